"""The build command: what is printed where, and one sentence for each mistake."""

from __future__ import annotations

import gzip
import json
import random
import re
import resource
import shlex
import signal
from pathlib import Path

import pytest

from dataprep.common.lookup import locate
from dataprep.contract import open_build
from tests.support.builds import GUANACO_TEXTS, guanaco_file, guanaco_text
from tests.support.commands import dataprep, dataprep_error
from training.cli import app as training_app


def test_without_a_source_the_bundled_sample_is_built_and_called_synthetic(tmp_path: Path) -> None:
    done = dataprep("build", "--template", "llama2", "--sample", "1000", "--store", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stderr
    assert "dataprep build FILE" in done.stderr
    path = Path(done.stdout.strip())
    assert path.parent == tmp_path / "sample"
    assert open_build(path).splits["train"].num_rows == 1000
    assert "→ 1,000 kept: 1,000 in train\n" in done.stderr


def test_the_next_steps_are_commands_that_work(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda address: True)
    store = tmp_path / "a store"
    done = dataprep("build", source, "--store", store)
    steps = done.stderr.partition("Next:\n")[2].splitlines()
    commands = [shlex.split(re.split(r"  +", step.strip(), maxsplit=1)[1]) for step in steps]
    assert [command[:2] for command in commands] == [
        ["dataprep", "show"], ["dataprep", "report"], ["dataprep", "why"], ["training", "run"],
    ]  # fmt: skip
    for program, *arguments in commands:
        if program == "dataprep":
            assert dataprep(*arguments).returncode == 0
    _, bound, _ = training_app.parse_args(commands[-1][1:])
    assert locate(bound.arguments["options"].store, str(bound.arguments["options"].data)) == Path(done.stdout.strip())


def test_next_steps_are_not_printed_with_json_or_after_a_dry_run(tmp_path: Path, source: str) -> None:
    assert "Next:" not in dataprep("build", source, "--store", tmp_path / "s", "--json").stderr
    assert "Next:" not in dataprep("build", source, "--dry-run").stderr


def test_json_is_one_object_and_the_rest_goes_to_stderr(tmp_path: Path, source: str) -> None:
    done = dataprep(
        "build", "--source", source, "--store", tmp_path / "store", "--json", "--near-dup", "off", "--gate", "off"
    )
    summary = json.loads(done.stdout)
    assert {"name", "version", "path", "rows", "splits", "fates", "seconds"} <= summary.keys()
    assert (summary["name"], summary["rows"], summary["splits"]["train"]["rows"]) == ("rows", 33, 33)
    assert re.fullmatch("[0-9a-f]{12}", summary["version"])
    assert sum(summary["fates"][fate] for fate in ("kept", "dropped", "not_sampled")) == len(GUANACO_TEXTS)


def test_a_dry_run_shows_the_funnel_and_writes_nothing(tmp_path: Path, source: str) -> None:
    done = dataprep("build", "--source", source, "--store", tmp_path / "store", "--dry-run")
    assert "exact_duplicate" in done.stderr
    assert not (tmp_path / "store").exists()
    summary = json.loads(dataprep("build", "--source", source, "--dry-run", "--json").stdout)
    assert (summary["path"], summary["rows"]) == (None, 33)


def test_names_of_files_and_columns_are_printed_without_escapes_or_markup(tmp_path: Path) -> None:
    name = "a\x1b[31m[bold].jsonl"
    source = guanaco_file(tmp_path, GUANACO_TEXTS, name)
    done = dataprep("build", "--source", source, "--store", tmp_path / "store", "--name", "n")
    assert done.returncode == 0, done.stderr
    assert "cannot be read; the first is in line 7 of a<U+001B>[31m[bold].jsonl" in done.stderr
    unknown = _file(tmp_path, "u.jsonl", json.dumps({"\x9b2J\u202e": 1}).encode())
    for sentence in (
        dataprep_error(1, "build", "--source", unknown),
        dataprep_error(1, "build", "--source", f"{source}.gz"),
    ):
        assert "<U+" in sentence
        assert not {"\x1b", "\x9b", "\u202e"} & set(done.stderr + sentence)


def test_mistakes_are_one_sentence(tmp_path: Path, source: str) -> None:
    store = ("--store", tmp_path / "store")
    assert "Did you mean 'llama2'?" in dataprep_error(1, "build", "--source", source, "--template", "lama2", *store)
    assert "cannot be a build's name" in dataprep_error(1, "build", "--source", source, "--name", "../../x", *store)
    assert "--source is empty" in dataprep_error(1, "build", "--source", "", *store)
    assert "--system is blank" in dataprep_error(1, "build", "--source", source, "--system", " ", *store)
    assert "--system holds [INST]" in dataprep_error(1, "build", "--source", source, "--system", "a [INST] b", *store)
    several = _file(tmp_path, "tokenizer_config.json", b'{"chat_template": [{"a": "1", "b": "2"}]}')
    assert "none named 'default'" in dataprep_error(1, "templates", "check", several)
    assert "holds no options" in dataprep_error(
        1, "build", "--recipe", _file(tmp_path, "m.json", b'{"recipe": []}'), *store
    )
    assert "--sample is 0" in dataprep_error(1, "build", "--source", source, "--sample", "0", *store)
    assert "There is no file or folder none.jsonl" in dataprep_error(1, "build", "--source", "none.jsonl", *store)
    assert "There is no build 'n'" in dataprep_error(1, "show", "n", *store)
    assert "unknown key" in dataprep_error(1, "build", "--recipe", _file(tmp_path, "r.toml", b"x = 1"), *store)
    empty = _file(tmp_path, "empty.jsonl", b"")
    assert "empty.jsonl" in dataprep_error(1, "build", "--source", empty, *store)
    broken = _file(tmp_path, "broken.jinja", b"line\n{% if %}")
    assert re.search(
        r"broken\.jinja.*line 2", dataprep_error(1, "build", "--source", source, "--template", broken, *store)
    )
    escape = _file(tmp_path, "escape.jinja", b"{{ messages.__class__.__mro__ }}")
    assert "escape" in dataprep_error(1, "build", "--source", source, "--template", escape, *store)
    assert not list((tmp_path / "store").glob("*/*")) if (tmp_path / "store").exists() else True


def _file(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def test_sources_are_given_by_position_or_by_option(tmp_path: Path) -> None:
    first, second = (guanaco_file(tmp_path, [guanaco_text(f"q{n}", f"a{n}")], f"{n}.jsonl") for n in range(2))
    recipe = _file(tmp_path, "recipe.toml", f"source = [{second!r}]\nsystem = 'Be brief.'".encode())
    for arguments, rows in (
        ([first, second], 2), ([first, "--source", second], 2), ([first, "--recipe", recipe], 1), (["--recipe", recipe], 1),
    ):  # fmt: skip
        assert json.loads(dataprep("build", *arguments, "--dry-run", "--json").stdout)["rows"] == rows


def test_a_source_may_be_several_files_as_a_shell_expands_them(tmp_path: Path) -> None:
    files = [guanaco_file(tmp_path, [guanaco_text(f"question {n}", f"answer {n}")], f"{n}.jsonl") for n in range(3)]
    done = dataprep("build", "--source", *files, "--lang", "en", "de", "--dry-run", "--json", "--near-dup", "off")
    assert "No record has a language tag, so --lang en,de would drop all of them" in done.stderr
    done = dataprep("build", "--source", files[0], files[1], "--source", files[2], "--dry-run", "--json")
    assert json.loads(done.stdout)["rows"] == 3


def test_bad_lines_become_fates_and_nothing_else_is_lost(tmp_path: Path) -> None:
    good = [json.dumps({"text": guanaco_text(f"q{n}", f"a{n}")}).encode() for n in range(100)]
    bad = [b'{"text": "### Human: cut', b'{"text": "\xff### Human: x### Assistant: y"}', b'{"other": 1}', b"[1, 2]"]
    file = _file(tmp_path, "mixed.jsonl", b"\n".join([*good[:50], *bad, *good[50:]]))
    done = dataprep("build", "--source", file, "--store", tmp_path / "store", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["fates"]["kept"], summary["fates"]["dropped"]) == (100, 4)


def test_a_truncated_gzip_file_gives_its_whole_records(tmp_path: Path) -> None:
    random.seed(3)
    noise = ["".join(random.choices("abcdefghij ", k=400)) for _ in range(400)]
    packed = gzip.compress(
        "".join(json.dumps({"text": guanaco_text(f"q{n}", text)}) + "\n" for n, text in enumerate(noise)).encode()
    )
    file = _file(tmp_path, "cut.jsonl.gz", packed[: len(packed) * 3 // 4])
    done = dataprep("build", "--source", file, "--store", tmp_path / "store", "--json")
    assert done.returncode == 0, done.stderr
    fates = json.loads(done.stdout)["fates"]
    assert fates["kept"] > 200
    assert fates["dropped"] == 1
    assert "cut.jsonl.gz breaks off" in json.loads(done.stdout)["notes"][0]


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path, source: str) -> None:
    blocked = _file(tmp_path, "blocked", b"")
    assert "blocked" in dataprep_error(1, "build", "--source", source, "--store", blocked / "store")


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, source: str) -> None:
    def limit_file_size() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = dataprep("build", "--source", source, "--store", tmp_path / "store", preexec_fn=limit_file_size)
    assert done.returncode == 1
    assert "free some space or choose another --store" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [entry for entry in (tmp_path / "store/rows").iterdir() if not entry.name.startswith(".lock")]
