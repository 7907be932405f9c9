"""Publishing to a Hub on loopback with the real client, and to a folder: whole or not at all, and never twice."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dataprep.cli.publishing import publish as publish_command
from dataprep.common.errors import StoreError
from dataprep.contract import open_build
from dataprep.publish import folder as files
from dataprep.publish.publishing import to_folder
from dataprep.store import builds as store
from dataprep.store import history, verification
from tests.support.builds import GUANACO_TEXTS, guanaco_file, guanaco_text, make_build
from tests.support.hub import Hub
from tests.support.hub_writing import Fault
from tests.support.paths import ROOT

NAME = "org/guanaco-llama2"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server
    assert not server.leaks, "the token went to the storage"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("built")
    source = guanaco_file(place, GUANACO_TEXTS)
    path = make_build(place / "store", source=(source,), split="test=5", gate="off", near_dup="off").path
    assert path is not None
    return path


def start(hub: Hub, home: Path, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    env = {**os.environ, **hub.environment(home), "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "dataprep", *map(str, arguments)]
    return subprocess.Popen(command, env=env, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ask(hub: Hub, home: Path, *arguments: str | Path, code: int = 0, **environment: str) -> tuple[str, str]:
    """stdout and stderr of a command that must end with `code`; the token is in neither."""
    process = start(hub, home, *arguments, **environment)
    out, told = process.communicate(timeout=300)
    assert process.returncode == code, told
    assert hub.token not in out + told and "hf_" not in out + told.replace("hf_hub", "")
    assert "Traceback" not in told
    return out, told


def publish(hub: Hub, home: Path, built: Path, *more: str, code: int = 0, **environment: str) -> tuple[str, str]:
    return ask(hub, home, "publish", built, "--to", NAME, *more, code=code, **environment)


def refused(hub: Hub, home: Path, built: Path, *more: str, code: int = 1, **environment: str) -> str:
    sentence = publish(hub, home, built, *more, code=code, **environment)[1].strip()
    assert sentence.startswith("dataprep: ") and "\n" not in sentence
    return sentence


LOAD = """
import json, sys
from datasets import load_dataset
data = load_dataset(sys.argv[1], revision=sys.argv[2])
print(json.dumps({split: rows.to_dict() for split, rows in data.items()}))
"""


def loaded(hub: Hub, home: Path, revision: str, name: str = NAME) -> dict[str, dict[str, list[Any]]]:
    env = {**os.environ, **hub.environment(home)}
    command = [sys.executable, "-c", LOAD, name, revision]
    done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def rows_of(built: Path, split: str, column: str) -> list[Any]:
    return pl.DataFrame(open_build(built, check=False).splits[split]).sort("id")[column].to_list()


def test_what_is_published_is_loaded_row_by_row(hub: Hub, tmp_path: Path, built: Path) -> None:
    listed = json.loads(publish(hub, tmp_path, built, "--dry-run", "--json")[0])
    assert not hub.repositories and all(request.startswith("GET ") for request in hub.requests)
    sent = json.loads(publish(hub, tmp_path, built, "--json")[0])
    assert sent["tag"] == built.name and sent["files"] == listed["files"]
    assert {"README.md", "manifest.json", "template.jinja", "fates/fates-00000.parquet"} <= sent["files"].keys()
    repository = hub.repositories[NAME]
    assert repository.tags == {built.name: repository.refs["main"]}
    tree = repository.commits[repository.refs["main"]]
    assert {name: len(data) for name, data in tree.items() if name != ".gitattributes"} == sent["files"]
    assert len(repository.commits) == 2  # one when it was made, one for all files
    for revision in (built.name, "main"):
        data = loaded(hub, tmp_path, revision)
        assert {split: data[split]["text"] for split in data} == {
            s: rows_of(built, s, "text") for s in ("train", "test")
        }
    there = len(hub.requests)
    assert "already: nothing was done" in publish(hub, tmp_path, built)[1]
    assert not [request for request in hub.requests[there:] if not request.startswith("GET")]


def test_layouts_have_tags_of_their_own_and_go_back_into_a_build(hub: Hub, tmp_path: Path, built: Path) -> None:
    publish(hub, tmp_path, built)
    told = publish(hub, tmp_path, built, "--layout", "messages")[1]
    assert f"Published {built.name}-messages" in told
    assert loaded(hub, tmp_path, f"{built.name}-messages")["train"]["messages"] == rows_of(built, "train", "messages")
    assert "text" in loaded(hub, tmp_path, built.name)["train"]
    build = ("build", "--store", tmp_path / "s", "--gate", "off", "--near-dup", "off", "--name", "back", "--json")
    summary = json.loads(ask(hub, tmp_path, *build, "--source", f"{NAME}@{built.name}-messages:train")[0])
    again = Path(summary["path"])
    assert rows_of(again, "train", "text") == rows_of(built, "train", "text")
    pinned = json.loads((again / "manifest.json").read_text())["recipe"]["source"]
    assert pinned == [f"{NAME}@{hub.repositories[NAME].tags[f'{built.name}-messages']}:train"]
    hub.commit(NAME, {"data/train-00000-of-00001.parquet": b"something else"})
    rebuilt = ask(hub, tmp_path, *build, "--recipe", again / "manifest.json", "--force")[0]
    assert json.loads(rebuilt)["version"] == summary["version"]


def test_a_new_version_replaces_the_files_of_the_old_one(hub: Hub, tmp_path: Path, built: Path) -> None:
    publish(hub, tmp_path, built)
    smaller = make_build(
        tmp_path / "s", source=(guanaco_file(tmp_path, GUANACO_TEXTS),), sample=7, gate="off", near_dup="off"
    ).path
    sent = json.loads(publish(hub, tmp_path, smaller, "--json")[0])
    assert sent["removed"] == ["data/test-00000-of-00001.parquet"]
    assert list(loaded(hub, tmp_path, "main")) == ["train"]
    assert len(loaded(hub, tmp_path, built.name)["test"]["text"]) == 5  # the tag keeps the old one


def head(hub: Hub, name: str = NAME) -> dict[str, bytes]:
    repository = hub.repositories[name]
    return repository.commits[repository.refs["main"]]


def test_papers_of_the_old_version_go_and_what_somebody_added_stays(hub: Hub, tmp_path: Path) -> None:
    texts = [
        *GUANACO_TEXTS,
        guanaco_text("how do I bake a simple loaf of bread at home", "flour, water, salt and yeast " * 20),
    ]
    near = [
        *texts,
        guanaco_text("how do I bake a simple loaf of bread at home", "flour, water, salt and yeast " * 20 + "now"),
    ]
    with_pairs, without = (
        make_build(tmp_path / str(n), source=(guanaco_file(tmp_path, some),), gate="off").path
        for n, some in enumerate((near, texts))
    )
    assert with_pairs and without and (with_pairs / "duplicates.parquet").exists()
    publish(hub, tmp_path, with_pairs)
    hub.commit(NAME, {"data/extra.csv": b"added by hand", "notes.txt": b"mine"})
    assert "duplicates.parquet  would be removed" in publish(hub, tmp_path, without, "--dry-run")[0]
    sent = json.loads(publish(hub, tmp_path, without, "--json")[0])
    assert sent["removed"] == ["duplicates.parquet"]
    assert head(hub).keys() == {*sent["files"], ".gitattributes", "data/extra.csv", "notes.txt"}


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"data/rows.parquet": b"somebody's", "README.md": b"theirs"}, "data/rows.parquet"),
        ({"data/train-00000-of-00001.parquet": b"as push_to_hub makes it"}, "data/train-00000-of-00001.parquet"),
        ({"manifest.json": b'{"of": "something else"}'}, "manifest.json"),
        ({"README.md": b"---\nlicense: mit\n---\nWritten by hand.\n"}, "README.md"),
    ],
    ids=["rows", "push_to_hub", "manifest", "card"],
)
def test_what_others_put_there_is_not_written_over(
    hub: Hub, tmp_path: Path, built: Path, files: dict[str, bytes], named: str
) -> None:
    hub.commit(NAME, files)
    for more in ([], ["--dry-run"]):
        assert f"did not publish ({named})" in refused(hub, tmp_path, built, *more)
    assert head(hub) == files


def test_the_empty_card_of_a_data_set_made_on_the_web_is_replaced(hub: Hub, tmp_path: Path, built: Path) -> None:
    hub.commit(NAME, {"README.md": b"---\nlicense: mit\n---\n", ".gitattributes": b""})
    publish(hub, tmp_path, built)
    assert built.name.encode() in head(hub)["README.md"]


def test_private_is_private_or_nothing_is_sent(hub: Hub, tmp_path: Path, built: Path) -> None:
    publish(hub, tmp_path, built, "--private")
    assert hub.repositories[NAME].private
    hub.commit("org/open", {"x": b""})
    assert "is public" in ask(hub, tmp_path, "publish", built, "--to", "org/open", "--private", code=1)[1]
    assert "is for a data set on the Hub" in ask(hub, tmp_path, "publish", built, "--to", "./x", "--private", code=1)[1]


def test_tokens_and_names_that_will_not_do(hub: Hub, tmp_path: Path, built: Path) -> None:
    assert "there is none" in refused(hub, tmp_path, built, HF_TOKEN="", HF_TOKEN_PATH=str(tmp_path / "none"))
    assert not hub.requests
    assert "refused the token" in refused(hub, tmp_path, built, HF_TOKEN="hf_of_somebody_else")
    for token in ("s\u00e9cret", "sec\x01ret"):
        asked = len(hub.requests)
        told = refused(hub, tmp_path, built, HF_TOKEN=token)
        assert "holds characters that no token has" in told and "ret" not in told.replace("retr", "")
        assert len(hub.requests) == asked
    (tmp_path / "none").write_text(hub.token)  # where `hf auth login` puts it
    published = ask(hub, tmp_path, "publish", built, "--to", "org/x", HF_TOKEN="", HF_TOKEN_PATH=str(tmp_path / "none"))
    assert "Published" in published[1]
    del hub.repositories["org/x"]
    told = ask(hub, tmp_path, "publish", built, "--to", "strangers/x", code=1)[1]
    assert "may not write there" in told
    for name in ("guanaco", "org/a--b", "org/na me", "org/x.git", "a/b/c"):
        assert "is no name that the Hub takes" in ask(hub, tmp_path, "publish", built, "--to", name, code=1)[1]
    assert not hub.repositories
    code = "import huggingface_hub as h; print(h.HfApi().whoami()['name'])"
    env = {**os.environ, **hub.environment(tmp_path)}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout == "alice\n"


def test_what_failed_its_gate_or_is_damaged_is_not_published(hub: Hub, tmp_path: Path, built: Path) -> None:
    import shutil

    copy = tmp_path / built.name
    shutil.copytree(built, copy)
    manifest = copy / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"gate": "failed"}))
    for target in (NAME, "./out"):
        assert "gate" in ask(hub, tmp_path, "publish", copy, "--to", target, code=3)[1]
    (copy / "template.jinja").write_text("damaged")
    assert "template.jinja" in ask(hub, tmp_path, "publish", copy, "--to", NAME, code=4)[1]
    assert not hub.requests and not (tmp_path / "out").exists()


def test_what_is_published_is_what_was_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`latest` moves, and a version goes, while it is published."""
    place = tmp_path / "store"
    first, second = (make_build(place, source=(guanaco_file(tmp_path, GUANACO_TEXTS),), sample=n).path for n in (5, 7))
    assert first and second
    checked = verification.verify_build

    def moving(folder: Path) -> dict[str, Any]:
        facts = checked(folder)
        make_build(place, source=(guanaco_file(tmp_path, GUANACO_TEXTS),), sample=5)
        return facts

    monkeypatch.setattr(verification, "verify_build", moving)
    publish_command("n", to=str(tmp_path / "out"), store=place)
    assert store.latest_version(place, "n") == first.name
    assert json.loads((tmp_path / "out/manifest.json").read_bytes())["version"] == second.name
    write = files.write_data

    def going(*arguments: Any) -> dict[str, int]:
        written = write(*arguments)
        history.gc(place, 0)
        return written

    monkeypatch.setattr(files, "write_data", going)
    with pytest.raises(StoreError, match=f"{second}.* cannot be read any more .*was removed meanwhile"):
        publish_command(str(second), to=str(tmp_path / "more"), store=place)
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST .*/commit/", 500, times=1),
        Fault("POST .*/commit/", 0, times=1),
        Fault("POST .*/commit/", 0, times=1, late=True),  # made, and the answer lost
        Fault("POST .*/commit/", 429, times=1, headers={"Retry-After": "1"}),
        Fault("PUT /lfs/", 503, times=1),
        Fault("PUT /lfs/", 0, times=1),
        Fault("POST .*/preupload/", 500, times=1),
        Fault("POST .*/tag/", 500, times=1),
        Fault("POST .*/tag/", 0, times=1, late=True),
        Fault("POST /api/repos/create", 502, times=1),
        Fault("POST /api/validate-yaml", 500, times=1),
        Fault(".*", None, seconds=0.15),
    ],
    ids=lambda fault: f"{fault.pattern}-{fault.status}{'-late' * fault.late}",
)
def test_a_bad_moment_is_waited_for(hub: Hub, tmp_path: Path, built: Path, fault: Fault) -> None:
    hub.faults.append(fault)
    publish(hub, tmp_path, built)
    repository = hub.repositories[NAME]
    assert repository.tags == {built.name: repository.refs["main"]}
    assert len(repository.commits) == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("POST .*/commit/", 412), "somebody else changed"),
        (Fault("POST .*/commit/", 409), "somebody else changed"),
        (Fault("POST .*/commit/", 403), "may not write"),
        (Fault("POST .*/commit/", 413), "with status 413 (fault 413), and the data set is as it was."),
        (
            Fault("POST .*/validate-yaml", 400, errors=('"license" must be one of', "a, b.")),
            '"license" must be one of - a, b.',
        ),
        (Fault("PUT /lfs/", 403), "may not write"),
        (Fault("POST .*/batch", 401), "refused the token"),
    ],
    ids=lambda value: value.pattern if isinstance(value, Fault) else value[:12],
)
def test_a_refusal_leaves_the_data_set_as_it_was(
    hub: Hub, tmp_path: Path, built: Path, fault: Fault, words: str
) -> None:
    before = hub.commit(NAME, {"notes.txt": b"mine"})
    hub.faults.append(fault)
    sentence = refused(hub, tmp_path, built)
    assert words in sentence and ".." not in sentence
    repository = hub.repositories[NAME]
    assert (repository.refs["main"], repository.tags) == (before, {})
    hub.faults.clear()
    publish(hub, tmp_path, built)
    assert repository.commits[repository.refs["main"]]["notes.txt"] == b"mine"


def test_a_hub_that_stays_away_is_given_up(hub: Hub, tmp_path: Path, built: Path) -> None:
    before = hub.commit(NAME, {"notes.txt": b"mine"})
    hub.faults.append(Fault("POST .*/commit/", 500))
    assert "status 500 5 times" in refused(hub, tmp_path, built)
    assert hub.repositories[NAME].refs["main"] == before
    assert sum("/commit/" in request for request in hub.requests) == 5
    hub.faults[:] = [Fault("POST .*/tag/", 400)]
    assert re.search("but the tag .* could not be set: publish again", refused(hub, tmp_path, built))
    hub.faults.clear()
    publish(hub, tmp_path, built)  # no second commit: the files are there
    assert len(hub.repositories[NAME].commits) == 2
    assert built.name in hub.repositories[NAME].tags


def test_no_way_to_the_hub(hub: Hub, tmp_path: Path, built: Path) -> None:
    assert "cannot be reached" in refused(hub, tmp_path, built, HF_ENDPOINT="http://127.0.0.1:9")


def test_a_dry_run_tells_what_would_be_refused(hub: Hub, tmp_path: Path, built: Path) -> None:
    nowhere = {"HF_TOKEN": "", "HF_TOKEN_PATH": str(tmp_path / "none")}
    assert "is not known: there is no token" in publish(hub, tmp_path, built, "--dry-run", **nowhere)[1]
    assert not hub.requests
    away = publish(hub, tmp_path, built, "--dry-run", HF_ENDPOINT="http://127.0.0.1:9")[1]
    assert "README.md" not in away and "is not known: http://127.0.0.1:9 cannot be reached" in away
    assert "refused the token" in refused(hub, tmp_path, built, "--dry-run", HF_TOKEN="hf_of_somebody_else")
    publish(hub, tmp_path, built)
    assert "already: nothing was done" in publish(hub, tmp_path, built, "--dry-run")[1]
    assert "is public" in refused(hub, tmp_path, built, "--dry-run", "--private")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    there = ("publish", built, "--to", "./full", "--dry-run")
    assert "is no empty folder" in ask(hub, tmp_path, *there, code=1)[1]
    ask(hub, tmp_path, "publish", built, "--to", "./out")
    assert "already: nothing was done" in ask(hub, tmp_path, "publish", built, "--to", "./out", "--dry-run")[1]


def test_killed_while_sending_the_data_set_is_as_it_was(hub: Hub, tmp_path: Path, built: Path) -> None:
    before = hub.commit(NAME, {"notes.txt": b"mine"})
    for pattern in ("PUT /lfs/", "POST .*/preupload", "POST .*/batch"):
        hub.faults[:] = [Fault(pattern, 500, seconds=1.0)]
        seen = len(hub.requests)
        process = start(hub, tmp_path, "publish", built, "--to", NAME)
        while not any(re.search(pattern, request) for request in hub.requests[seen:]):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.kill()
        process.communicate()
        assert (hub.repositories[NAME].refs["main"], hub.repositories[NAME].tags) == (before, {})
    hub.faults.clear()
    publish(hub, tmp_path, built)
    assert len(loaded(hub, tmp_path, built.name)["train"]["text"]) == 28


def test_two_at_once_end_well_or_say_so(hub: Hub, tmp_path: Path, built: Path) -> None:
    other = make_build(
        tmp_path / "s", source=(guanaco_file(tmp_path, GUANACO_TEXTS),), sample=7, gate="off", near_dup="off"
    ).path
    hub.commit(NAME, {"notes.txt": b"mine"})
    hub.faults.append(Fault("POST .*/commit/", None, seconds=0.5))
    running = [start(hub, tmp_path, "publish", path, "--to", NAME) for path in (built, built, other)]
    for process in running:
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0 or "publish again" in told, told
    hub.faults.clear()
    for path in (built, other):
        publish(hub, tmp_path, path)
    repository = hub.repositories[NAME]
    assert set(repository.tags) == {built.name, other.name}
    for path in (built, other):
        assert loaded(hub, tmp_path, path.name)["train"]["text"] == rows_of(path, "train", "text")


def test_a_published_folder_can_be_built_from(tmp_path: Path) -> None:
    """Its manifest, fates and near-duplicates are no conversations."""
    near = [
        *GUANACO_TEXTS,
        *(guanaco_text("how do I bake bread", "flour, water, salt and yeast " * 20 + end) for end in ("", "now")),
    ]
    first = make_build(tmp_path / "s", source=(guanaco_file(tmp_path, near),), split="test=5").path
    assert first and (first / "duplicates.parquet").exists()
    to_folder(open_build(first), str(tmp_path / "sets" / "out"), "messages")
    quick = {"gate": "off", "near_dup": "off"}
    for source in ("sets/out", "sets"):
        again = make_build(tmp_path / "s", source=(str(tmp_path / source),), name="again", **quick).path
        assert again
        before = [text for split in ("train", "test") for text in rows_of(first, split, "text")]
        assert sorted(rows_of(again, "train", "text")) == sorted(before)


def test_a_folder_gets_the_same_files(hub: Hub, tmp_path: Path, built: Path) -> None:
    from datasets import load_dataset

    sent = json.loads(ask(hub, tmp_path, "publish", built, "--to", "./out", "--json")[0])
    assert not hub.requests
    files = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert files == sent["files"].keys()
    cache = str(tmp_path / "cache")
    data = load_dataset(str(tmp_path / "out"), cache_dir=cache)
    assert list(data["test"]["text"]) == rows_of(built, "test", "text")
    globs = {split: str(tmp_path / f"out/data/{split}-*.parquet") for split in ("train", "test")}
    data = load_dataset("parquet", data_files=globs, cache_dir=cache)
    assert {split: list(data[split]["text"]) for split in data} == {s: rows_of(built, s, "text") for s in globs}
    assert "already: nothing was done" in ask(hub, tmp_path, "publish", built, "--to", "./out")[1]
    assert "no empty folder" in ask(hub, tmp_path, "publish", built, "--to", "./out", "--layout", "full", code=1)[1]
    assert "A dry run" in ask(hub, tmp_path, "publish", built, "--to", "./more", "--dry-run")[1]
    assert not (tmp_path / "more").exists()
