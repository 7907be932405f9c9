"""`training publish`: an adapter on a Hub on loopback, by the real client."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load

from tests.support.hub import Hub
from tests.support.publishing import called
from tests.support.training_runs import copy_run
from training.after.card import model_card, public_options
from training.after.publish import adapter_version
from training.cli import main

NAME = "org/adapter"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server
    assert not server.leaks, "the token was sent to the storage"


def publish(hub: Hub, folder: Path, run: Path, *options: str, code: int = 0) -> str:
    """What a publication prints, which must exit with `code`; the token may not be in it."""
    ended, out, err = called(main, "training", hub, folder, "publish", "--run", run, "--to", NAME, *options)
    assert ended == code, err
    assert hub.token not in out + err
    return out + err


def files_on(hub: Hub) -> dict[str, bytes]:
    repository = hub.repositories[NAME]
    return repository.commits[repository.refs["main"]]


def test_an_adapter_is_published_in_one_commit_with_a_tag_and_only_once(
    hub: Hub, finished_run: Path, tmp_path: Path
) -> None:
    assert "nothing was sent" in publish(hub, tmp_path, finished_run, "--dry-run")
    assert not hub.repositories
    publish(hub, tmp_path, finished_run)
    repository = hub.repositories[NAME]
    version = adapter_version(finished_run / "adapter")
    assert repository.tags == {version: repository.refs["main"]}
    assert len(repository.commits) == 2  # the repository's creation, and one commit with all files
    adapter = finished_run / "adapter"
    assert files_on(hub)["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
    assert load(files_on(hub)["adapter_model.safetensors"])
    assert files_on(hub).keys() == {".gitattributes", *(path.name for path in adapter.iterdir())}
    assert "already: nothing was done" in publish(hub, tmp_path, finished_run)
    assert len(repository.commits) == 2


def test_the_card_has_the_build_the_template_and_the_figures_of_the_run(
    hub: Hub, finished_run: Path, tmp_path: Path
) -> None:
    publish(hub, tmp_path, finished_run)
    card = files_on(hub)["README.md"].decode()
    record = json.loads((finished_run / "run.json").read_text())
    assert f"**test {record['provenance']['version']}**" in card
    assert "template llama2, gate passed" in card
    assert f"{record['metrics']['held_out_before']:.4f} before, {record['metrics']['held_out_after']:.4f} after" in card
    assert f"{record['metrics']['trained_tokens']} trained tokens" in card


def test_no_published_file_names_a_folder_of_this_machine(hub: Hub, finished_run: Path, tmp_path: Path) -> None:
    publish(hub, tmp_path, finished_run)
    for name, content in files_on(hub).items():
        for folder in (finished_run, finished_run.parents[2], Path.home(), Path.cwd()):
            assert str(folder).encode() not in content, name
    settings = json.loads(files_on(hub)["adapter_config.json"])
    assert settings["base_model_name_or_path"] == "tiny"


def test_cards_and_pages_of_a_run_name_a_local_model_without_its_folder(finished_run: Path, tmp_path: Path) -> None:
    record = json.loads((finished_run / "run.json").read_text())
    record["options"] |= {"model": "/secret/place/model", "init_adapter": "/secret/place/adapter"}
    record["model"] = {"name": "/secret/place/model", "revision": "0123456789abcdef"}
    assert "/secret" not in model_card(record)
    assert "base model model quantised" in model_card(record)
    assert {name: public_options(record)[name] for name in ("model", "init_adapter")} == {
        "model": "model",
        "init_adapter": "adapter",
    }
    for page in ("loss.html", "adapter/README.md"):
        assert str(finished_run.parents[1]) not in (finished_run / page).read_text("utf-8")


def test_the_base_models_name_on_the_hub_replaces_its_folder(hub: Hub, finished_run: Path, tmp_path: Path) -> None:
    publish(hub, tmp_path, finished_run, "--base-model", "meta-llama/Llama-2-7b-hf")
    assert json.loads(files_on(hub)["adapter_config.json"])["base_model_name_or_path"] == "meta-llama/Llama-2-7b-hf"
    assert b'base_model: "meta-llama/Llama-2-7b-hf"' in files_on(hub)["README.md"]


def test_checksums_are_those_of_the_published_files(hub: Hub, finished_run: Path, tmp_path: Path) -> None:
    from training.checksums import find_damage

    publish(hub, tmp_path, finished_run)
    for name, content in files_on(hub).items():
        (tmp_path / "copy").mkdir(exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    assert find_damage(tmp_path / "copy") is None


def test_files_of_others_are_not_overwritten_and_files_of_an_earlier_adapter_are_removed(
    hub: Hub, finished_run: Path, tmp_path: Path
) -> None:
    hub.commit(NAME, {"adapter_config.json": b"{}"})
    assert "did not publish (adapter_config.json)" in publish(hub, tmp_path, finished_run, code=1)
    del hub.repositories[NAME]
    entry = {"bytes": 1, "sha256": ""}
    earlier = {"checksums.json": json.dumps({"adapter_model.safetensors": entry, "added_tokens.json": entry}).encode()}
    hub.commit(NAME, {**earlier, "adapter_model.safetensors": b"x", "added_tokens.json": b"x", "notes.md": b"mine"})
    assert re.search(r"^added_tokens.json  removed$", publish(hub, tmp_path, finished_run), re.MULTILINE)
    assert "added_tokens.json" not in files_on(hub)
    assert files_on(hub)["notes.md"] == b"mine"


def test_a_run_without_an_adapter_or_a_name_without_an_organization_is_refused(
    hub: Hub, finished_run: Path, tmp_path: Path
) -> None:
    unfinished = copy_run(finished_run, tmp_path / "run")
    (unfinished / "adapter" / "adapter_config.json").unlink()
    assert "has no adapter yet" in publish(hub, tmp_path, unfinished, code=1)
    ended, _, err = called(main, "training", hub, tmp_path, "publish", "--run", finished_run, "--to", "adapter")
    assert (ended, "write org/name." in err) == (1, True)
    assert not hub.repositories
