"""Publishing to a Hub on loopback with the real client: whole or not at all, and never twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.builds import GUANACO_TEXTS, guanaco_file, guanaco_text, make_build
from tests.support.hub import Hub
from tests.support.hub_writing import Fault
from tests.support.publishing import NAME, column_of, load_from_hub, publish, publish_error, rows_on_hub, run, start

QUICK = {"gate": "off", "near_dup": "off"}


def smaller_build(folder: Path) -> Path:
    """A build of 7 rows, without a test split."""
    path = make_build(folder / "s", source=(guanaco_file(folder, GUANACO_TEXTS),), sample=7, **QUICK).path
    assert path is not None
    return path


def head(hub: Hub, name: str = NAME) -> dict[str, bytes]:
    """The files of the last commit on main."""
    repository = hub.repositories[name]
    return repository.commits[repository.refs["main"]]


def test_a_published_data_set_loads_with_the_rows_of_the_build(hub: Hub, tmp_path: Path, published_build: Path) -> None:
    listed = json.loads(publish(hub, tmp_path, published_build, "--dry-run", "--json")[0])
    assert not hub.repositories and all(request.startswith("GET ") for request in hub.requests)
    sent = json.loads(publish(hub, tmp_path, published_build, "--json")[0])
    assert sent["tag"] == published_build.name and sent["files"] == listed["files"]
    assert {"README.md", "manifest.json", "template.jinja", "fates/fates-00000.parquet"} <= sent["files"].keys()
    repository = hub.repositories[NAME]
    assert repository.tags == {published_build.name: repository.refs["main"]}
    tree = repository.commits[repository.refs["main"]]
    assert {name: len(data) for name, data in tree.items() if name != ".gitattributes"} == sent["files"]
    assert len(repository.commits) == 2  # the repository's creation, and one commit with all files
    texts = {split: column_of(published_build, split, "text") for split in ("train", "test")}
    loaded = load_from_hub(hub, tmp_path, published_build.name)
    assert {split: columns["text"] for split, columns in loaded.items()} == texts
    assert {split: rows["text"].to_list() for split, rows in rows_on_hub(hub, "main").items()} == texts
    requests_before = len(hub.requests)
    assert "already: nothing was done" in publish(hub, tmp_path, published_build)[1]
    assert not [request for request in hub.requests[requests_before:] if not request.startswith("GET")]


def test_each_layout_has_its_own_tag_and_can_be_built_from(hub: Hub, tmp_path: Path, published_build: Path) -> None:
    publish(hub, tmp_path, published_build)
    output = publish(hub, tmp_path, published_build, "--layout", "messages")[1]
    assert f"Published {published_build.name}-messages" in output
    messages = rows_on_hub(hub, f"{published_build.name}-messages")["train"]["messages"].to_list()
    assert messages == column_of(published_build, "train", "messages")
    assert "text" in rows_on_hub(hub, published_build.name)["train"].columns
    build = ("build", "--store", tmp_path / "s", "--gate", "off", "--near-dup", "off", "--name", "back", "--json")
    summary = json.loads(run(hub, tmp_path, *build, "--source", f"{NAME}@{published_build.name}-messages:train")[0])
    again = Path(summary["path"])
    assert column_of(again, "train", "text") == column_of(published_build, "train", "text")
    pinned = json.loads((again / "manifest.json").read_text())["recipe"]["source"]
    assert pinned == [f"{NAME}@{hub.repositories[NAME].tags[f'{published_build.name}-messages']}:train"]
    hub.commit(NAME, {"data/train-00000-of-00001.parquet": b"something else"})
    rebuilt = run(hub, tmp_path, *build, "--recipe", again / "manifest.json", "--force")[0]
    assert json.loads(rebuilt)["version"] == summary["version"]


def test_a_new_version_replaces_the_files_of_the_old_one(hub: Hub, tmp_path: Path, published_build: Path) -> None:
    publish(hub, tmp_path, published_build)
    smaller = smaller_build(tmp_path)
    sent = json.loads(publish(hub, tmp_path, smaller, "--json")[0])
    assert sent["removed"] == ["data/test-00000-of-00001.parquet"]
    assert list(rows_on_hub(hub, "main")) == ["train"]
    assert len(rows_on_hub(hub, published_build.name)["test"]) == 5  # the tag keeps the old one


def test_documents_of_the_old_version_are_removed_and_files_of_others_stay(hub: Hub, tmp_path: Path) -> None:
    texts = [
        *GUANACO_TEXTS,
        guanaco_text("how do I bake a simple loaf of bread at home", "flour, water, salt and yeast " * 20),
    ]
    with_near_duplicate = [
        *texts,
        guanaco_text("how do I bake a simple loaf of bread at home", "flour, water, salt and yeast " * 20 + "now"),
    ]
    with_pairs, without = (
        make_build(tmp_path / str(n), source=(guanaco_file(tmp_path, variant),), gate="off").path
        for n, variant in enumerate((with_near_duplicate, texts))
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
def test_files_of_others_are_not_overwritten(
    hub: Hub, tmp_path: Path, published_build: Path, files: dict[str, bytes], named: str
) -> None:
    hub.commit(NAME, files)
    for more in ([], ["--dry-run"]):
        assert f"did not publish ({named})" in publish_error(hub, tmp_path, published_build, *more)
    assert head(hub) == files


def test_the_empty_card_of_a_data_set_made_on_the_web_is_replaced(
    hub: Hub, tmp_path: Path, published_build: Path
) -> None:
    hub.commit(NAME, {"README.md": b"---\nlicense: mit\n---\n", ".gitattributes": b""})
    publish(hub, tmp_path, published_build)
    assert published_build.name.encode() in head(hub)["README.md"]


def test_private_creates_a_private_data_set_or_sends_nothing(hub: Hub, tmp_path: Path, published_build: Path) -> None:
    publish(hub, tmp_path, published_build, "--private")
    assert hub.repositories[NAME].private
    hub.commit("org/open", {"x": b""})
    assert "is public" in run(hub, tmp_path, "publish", published_build, "--to", "org/open", "--private", code=1)[1]
    assert (
        "is for a data set on the Hub"
        in run(hub, tmp_path, "publish", published_build, "--to", "./x", "--private", code=1)[1]
    )


def test_invalid_tokens_and_names_are_refused(hub: Hub, tmp_path: Path, published_build: Path) -> None:
    assert "there is none" in publish_error(
        hub, tmp_path, published_build, HF_TOKEN="", HF_TOKEN_PATH=str(tmp_path / "none")
    )
    assert not hub.requests
    assert "refused the token" in publish_error(hub, tmp_path, published_build, HF_TOKEN="hf_of_somebody_else")
    for token in ("s\u00e9cret", "sec\x01ret"):
        requests_before = len(hub.requests)
        output = publish_error(hub, tmp_path, published_build, HF_TOKEN=token)
        assert "has characters that no token has" in output and "ret" not in output.replace("retr", "")
        assert len(hub.requests) == requests_before
    (tmp_path / "none").write_text(hub.token)  # where `hf auth login` puts it
    published = run(
        hub, tmp_path, "publish", published_build, "--to", "org/x", HF_TOKEN="", HF_TOKEN_PATH=str(tmp_path / "none")
    )
    assert "Published" in published[1]
    del hub.repositories["org/x"]
    output = run(hub, tmp_path, "publish", published_build, "--to", "strangers/x", code=1)[1]
    assert "no write access" in output
    for name in ("guanaco", "org/a--b", "org/na me", "org/x.git", "a/b/c"):
        assert "is no valid name on the Hub" in run(hub, tmp_path, "publish", published_build, "--to", name, code=1)[1]
    assert not hub.repositories
    code = "import huggingface_hub as h; print(h.HfApi().whoami()['name'])"
    env = {**os.environ, **hub.environment(tmp_path)}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout == "alice\n"


def test_a_build_that_failed_its_gate_or_is_damaged_is_not_published(
    hub: Hub, tmp_path: Path, published_build: Path
) -> None:
    copy = tmp_path / published_build.name
    shutil.copytree(published_build, copy)
    manifest = copy / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"gate": "failed"}))
    for target in (NAME, "./out"):
        assert "gate" in run(hub, tmp_path, "publish", copy, "--to", target, code=3)[1]
    (copy / "template.jinja").write_text("damaged")
    assert "template.jinja" in run(hub, tmp_path, "publish", copy, "--to", NAME, code=4)[1]
    assert not hub.requests and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST .*/commit/", 500, times=1),
        Fault("POST .*/commit/", 0, times=1),
        Fault("POST .*/commit/", 0, times=1, late=True),  # carried out, and the response lost
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
def test_a_passing_fault_is_retried(hub: Hub, tmp_path: Path, published_build: Path, fault: Fault) -> None:
    hub.faults.append(fault)
    publish(hub, tmp_path, published_build)
    repository = hub.repositories[NAME]
    assert repository.tags == {published_build.name: repository.refs["main"]}
    assert len(repository.commits) == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("POST .*/commit/", 412), "another commit changed"),
        (Fault("POST .*/commit/", 409), "another commit changed"),
        (Fault("POST .*/commit/", 403), "no write access"),
        (Fault("POST .*/commit/", 413), "with status 413 (fault 413), and nothing was written."),
        (
            Fault("POST .*/validate-yaml", 400, errors=('"license" must be one of', "a, b.")),
            '"license" must be one of - a, b.',
        ),
        (Fault("PUT /lfs/", 403), "no write access"),
        (Fault("POST .*/batch", 401), "refused the token"),
    ],
    ids=lambda value: value.pattern if isinstance(value, Fault) else value[:12],
)
def test_a_refused_publication_leaves_the_data_set_as_it_was(
    hub: Hub, tmp_path: Path, published_build: Path, fault: Fault, words: str
) -> None:
    before = hub.commit(NAME, {"notes.txt": b"mine"})
    hub.faults.append(fault)
    sentence = publish_error(hub, tmp_path, published_build)
    assert words in sentence and ".." not in sentence
    repository = hub.repositories[NAME]
    assert (repository.refs["main"], repository.tags) == (before, {})
    hub.faults.clear()
    publish(hub, tmp_path, published_build)
    assert repository.commits[repository.refs["main"]]["notes.txt"] == b"mine"


def test_a_persistent_fault_ends_after_five_attempts(hub: Hub, tmp_path: Path, published_build: Path) -> None:
    before = hub.commit(NAME, {"notes.txt": b"mine"})
    hub.faults.append(Fault("POST .*/commit/", 500))
    assert "status 500 5 times" in publish_error(hub, tmp_path, published_build)
    assert hub.repositories[NAME].refs["main"] == before
    assert sum("/commit/" in request for request in hub.requests) == 5
    hub.faults[:] = [Fault("POST .*/tag/", 400)]
    assert re.search("but the tag .* could not be set: publish again", publish_error(hub, tmp_path, published_build))
    hub.faults.clear()
    publish(hub, tmp_path, published_build)  # no second commit: the files are there
    assert len(hub.repositories[NAME].commits) == 2
    assert published_build.name in hub.repositories[NAME].tags


def test_an_unreachable_hub_is_one_sentence(hub: Hub, tmp_path: Path, published_build: Path) -> None:
    assert "cannot be reached" in publish_error(hub, tmp_path, published_build, HF_ENDPOINT="http://127.0.0.1:9")


def test_a_dry_run_reports_what_would_be_refused(hub: Hub, tmp_path: Path, published_build: Path) -> None:
    assert (
        "is not known: there is no token"
        in publish(hub, tmp_path, published_build, "--dry-run", HF_TOKEN="", HF_TOKEN_PATH=str(tmp_path / "none"))[1]
    )
    assert not hub.requests
    output = publish(hub, tmp_path, published_build, "--dry-run", HF_ENDPOINT="http://127.0.0.1:9")[1]
    assert "README.md" not in output and "is not known: http://127.0.0.1:9 cannot be reached" in output
    assert "refused the token" in publish_error(
        hub, tmp_path, published_build, "--dry-run", HF_TOKEN="hf_of_somebody_else"
    )
    publish(hub, tmp_path, published_build)
    assert "already: nothing was done" in publish(hub, tmp_path, published_build, "--dry-run")[1]
    assert "is public" in publish_error(hub, tmp_path, published_build, "--dry-run", "--private")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    command = ("publish", published_build, "--to", "./full", "--dry-run")
    assert "is no empty folder" in run(hub, tmp_path, *command, code=1)[1]
    run(hub, tmp_path, "publish", published_build, "--to", "./out")
    assert (
        "already: nothing was done" in run(hub, tmp_path, "publish", published_build, "--to", "./out", "--dry-run")[1]
    )


def test_a_kill_while_sending_leaves_the_data_set_as_it_was(hub: Hub, tmp_path: Path, published_build: Path) -> None:
    before = hub.commit(NAME, {"notes.txt": b"mine"})
    for pattern in ("PUT /lfs/", "POST .*/preupload", "POST .*/batch"):
        hub.faults[:] = [Fault(pattern, 500, seconds=1.0)]
        seen = len(hub.requests)
        process = start(hub, tmp_path, "publish", published_build, "--to", NAME)
        while not any(re.search(pattern, request) for request in hub.requests[seen:]):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.kill()
        process.communicate()
        assert (hub.repositories[NAME].refs["main"], hub.repositories[NAME].tags) == (before, {})
    hub.faults.clear()
    publish(hub, tmp_path, published_build)
    assert len(rows_on_hub(hub, published_build.name)["train"]) == 28


def test_concurrent_publications_succeed_or_ask_to_publish_again(
    hub: Hub, tmp_path: Path, published_build: Path
) -> None:
    other = smaller_build(tmp_path)
    hub.commit(NAME, {"notes.txt": b"mine"})
    hub.faults.append(Fault("POST .*/commit/", None, seconds=0.5))
    running = [
        start(hub, tmp_path, "publish", path, "--to", NAME) for path in (published_build, published_build, other)
    ]
    for process in running:
        _, output = process.communicate(timeout=300)
        assert (process.returncode, "publish again" in output) in ((0, False), (1, True)), output
    hub.faults.clear()
    for path in (published_build, other):
        publish(hub, tmp_path, path)
    repository = hub.repositories[NAME]
    assert set(repository.tags) == {published_build.name, other.name}
    for path in (published_build, other):
        assert rows_on_hub(hub, path.name)["train"]["text"].to_list() == column_of(path, "train", "text")
