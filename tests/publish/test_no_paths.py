"""What is published names no folder of the machine that built it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from dataprep.common.bundled import templates_folder
from dataprep.common.errors import PublishError
from dataprep.contract import Build, open_build
from dataprep.publish.publishing import publish
from dataprep.report.public_recipe import absolute_folders, without_folders
from tests.support.builds import GUANACO_TEXTS, guanaco_file, make_build

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A build whose every input is named by its whole path."""
    folder = tmp_path_factory.mktemp("secret-folder")
    sources = folder / "sources"
    sources.mkdir()
    source = guanaco_file(sources, [*GUANACO_TEXTS, "### Human: no answer"])
    shutil.copyfile(templates_folder() / "chatml.jinja", folder / "mine.jinja")
    benchmark = folder / "questions.jsonl"
    benchmark.write_text(json.dumps({"question": "a question that no conversation holds at all"}) + "\n")
    path = make_build(
        folder / "store", source=(str(source),), template=str(folder / "mine.jinja"), decontaminate=(str(benchmark),),
        split="test=5", gate="off",
    ).path  # fmt: skip
    assert path is not None
    return open_build(path)


def texts_of(folder: Path) -> dict[str, str]:
    """The text of each file, and all values of each Parquet file."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: json.dumps(pl.read_parquet(path).to_dicts()) if name.endswith(".parquet") else path.read_text("utf-8")
        for name, path in files.items()
    }


def test_no_published_file_names_the_store_a_source_or_the_home_folder(build: Build, tmp_path: Path) -> None:
    publish(build, str(tmp_path / "out"), "full", with_report=True)
    published = texts_of(tmp_path / "out")
    assert {"README.md", "manifest.json", "report.html", "template.jinja"} <= published.keys()
    store = build.path.parents[1]
    for name, text in published.items():
        for folder in (store.parent, tmp_path, Path.home(), Path.cwd()):
            assert str(folder) not in text, (name, folder)


def test_documents_of_a_build_that_people_pass_on_name_files_without_folders(build: Build) -> None:
    for name in ("README.md", "report.html", "croissant.json", "quality.json"):
        text = (build.path / name).read_text("utf-8")
        assert str(build.path.parents[1].parent) not in text, name
    assert "--template mine.jinja" in (build.path / "README.md").read_text("utf-8")


def test_the_published_manifest_has_names_and_the_builds_own_keeps_the_paths(build: Build, tmp_path: Path) -> None:
    publish(build, str(tmp_path / "out"))
    published = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    own = json.loads((build.path / "manifest.json").read_text("utf-8"))
    assert published["recipe"]["template"] == "mine.jinja"
    assert published["recipe"]["decontaminate"] == ["questions.jsonl"]
    assert Path(own["recipe"]["template"]).is_absolute()
    assert published | {"recipe": own["recipe"]} == own


def test_the_report_is_published_only_if_it_is_asked_for(build: Build, tmp_path: Path) -> None:
    publish(build, str(tmp_path / "without"))
    publish(build, str(tmp_path / "with"), with_report=True)
    assert not (tmp_path / "without" / "report.html").exists()
    assert (tmp_path / "with" / "report.html").read_bytes() == (build.path / "report.html").read_bytes()


def test_a_report_of_an_earlier_release_that_names_a_folder_is_not_published(build: Build, tmp_path: Path) -> None:
    copy = tmp_path / "store" / build.manifest.name / build.manifest.version
    shutil.copytree(build.path, copy)
    (copy / "report.html").write_text(f"--template {build.manifest.recipe['template']}", encoding="utf-8")
    opened = Build(copy, build.manifest.__class__(copy, build.manifest.data), build.splits)
    with pytest.raises(PublishError, match="a folder of this machine: build again with --force"):
        publish(opened, str(tmp_path / "out"), with_report=True)
    assert not (tmp_path / "out").exists()


def test_hub_ids_and_bundled_names_stay_and_paths_become_names() -> None:
    recipe = {
        "source": [
            f"org/name@{COMMIT}:test",
            "/data/my rows.jsonl",
            "C:\\rows\\a.csv",
            "data/folder:train",
            "~/x/*.json",
        ],
        "template": "llama2",
        "tokenizer": None,
        "system": "/not/a/path",
    }
    assert without_folders(recipe) == {
        "source": [f"org/name@{COMMIT}:test", "my rows.jsonl", "a.csv", "folder:train", "*.json"],
        "template": "llama2",
        "tokenizer": None,
        "system": "/not/a/path",
    }
    assert absolute_folders(recipe) == ["/data/", "C:\\rows\\", "~/x/"]
