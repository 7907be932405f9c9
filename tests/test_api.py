"""The Python API: the functions of the command line, with builds as objects."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import dataprep
from dataprep.common.errors import InputError, RecipeError, StoreError
from dataprep.common.rules import meaning_of
from tests.support.builds import GUANACO_TEXTS, guanaco_file
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> dataprep.Build:
    folder = tmp_path_factory.mktemp("api")
    source = guanaco_file(folder, GUANACO_TEXTS)
    return dataprep.build(source, store=folder / "store", template="chatml", split="test=5", gate="off")


def test_a_build_knows_its_rows_and_opens_as_a_dataset_and_as_a_frame(build: dataprep.Build) -> None:
    assert build.name == "rows" and build.rows["test"] == 5
    assert build.dataset("train").num_rows == build.rows["train"]
    assert build.to_polars("test")["id"].to_list() == build.dataset("test")["id"][:]
    assert build.dataset()[0]["text"].startswith("<|im_start|>user\n")
    assert build.report().is_file()


def test_why_explains_a_line(build: dataprep.Build) -> None:
    [fate] = build.why("rows.jsonl:4")
    assert fate["rule"] == "no_answer"


def test_a_build_is_opened_by_name_version_or_path(build: dataprep.Build) -> None:
    store = build.path.parent.parent
    for reference in ("rows", f"rows@{build.version[:8]}", build.path):
        assert dataprep.open_build(reference, store).version == build.version
    with pytest.raises(StoreError, match="Did you mean 'rows'"):
        dataprep.open_build("row", store)


def test_the_same_call_opens_the_existing_version(build: dataprep.Build) -> None:
    store = build.path.parent.parent
    again = dataprep.build(store.parent / "rows.jsonl", store=store, template="chatml", split="test=5", gate="off")
    assert again == build


def test_a_recipe_file_gives_options_and_arguments_take_precedence(build: dataprep.Build, tmp_path: Path) -> None:
    source = build.path.parent.parent.parent / "rows.jsonl"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('template = "llama2"\nsample = 7\ngate = "off"\n')
    built = dataprep.build(source, store=tmp_path / "store", recipe=recipe, sample=3)
    assert built.rows == {"train": 3}
    assert built.manifest.template["name"] == "llama2"


def test_unknown_options_and_splits_are_named_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="unknown key 'tempalte'. Did you mean 'template'"):
        dataprep.build(tempalte="llama2")


def test_a_missing_split_is_named(build: dataprep.Build) -> None:
    with pytest.raises(InputError, match="no split 'tset'.*Did you mean 'test'"):
        build.dataset("tset")


def test_a_notebook_shows_the_funnel_and_marks_the_trained_text(build: dataprep.Build) -> None:
    page = build._repr_html_()
    assert meaning_of("exact_duplicate") in page
    assert "<mark>" in page and "<i>&lt;|im_start|&gt;</i>" in page


def test_a_conversation_is_rendered_with_a_bundled_template() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    assert dataprep.render(messages, "llama2") == "<s>[INST] Hi [/INST]"
    assert dataprep.render(messages, "chatml", add_generation_prompt=True).endswith("<|im_start|>assistant\n")


def test_an_audit_finds_the_faults_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text('{"text": "<s>[INST] a [/INST] b </s>"}\n{"text": "<s><s>[INST] a [/INST] b </s>"}\n')
    assert set(dataprep.audit(file).faults) == {1}


def test_functions_are_not_hidden_by_submodules_of_the_same_name() -> None:
    for name in ("build", "audit"):
        assert inspect.ismodule(import_module(f"dataprep.{name}"))
        assert inspect.isfunction(getattr(dataprep, name))


def test_importing_dataprep_loads_no_heavy_library() -> None:
    code = "import sys, dataprep; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not {"polars", "pyarrow", "numpy", "jinja2", "datasets"} & set(done.stdout.split())
