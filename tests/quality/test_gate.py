"""The gate: it passes sound facts, fails faulty ones, and keeps what a failed build needs to be understood."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from dataprep.common.errors import GateError, RecipeError
from dataprep.quality.facts import SCHEMA
from dataprep.quality.gate import QUALITY_FILE
from dataprep.quality.suite import read_suite
from dataprep.quality.worker import __file__ as WORKER
from dataprep.quality.worker import _pandas_column
from dataprep.recipe import Recipe
from dataprep.store.history import gc
from tests.support.builds import GUANACO_TEXTS, guanaco_file, make_build
from tests.support.commands import dataprep
from tests.support.expectations import BETWEEN, SOUND, gate_over
from tests.support.warm_gate import warm_gates

FAULTY: dict[str, Any] = {
    **SOUND,
    **dict.fromkeys(["typed_controls", "extra_controls", "keys", "cards", "refusals", "echoes", "replacements"], 1),
    **dict.fromkeys(
        ["control_characters", "bidi_controls", "mojibake", "emails", "phones", "urls", "active_markup"], 1
    ),
    **dict.fromkeys(["repeated_questions", "open_fences", "empty_messages", "unwritten_system"], 1),
    **dict.fromkeys(["alternates", "ends_with_answer", "parses_back", "framed", "script_matches"], False),
    **dict.fromkeys(["unwritten_messages", "unwritten_reasoning"], 1),
    **{"trained_share": 0.0, "repeated_words": 0.9, "repeated_lines": 99, "unfinished": True, "tokens": 9999},
    **{"longest_message": 10**6, "answers": 9, "chars": 10**6, "id": "faulty"},
}

Checks = dict[str, dict[str, Any]]


def checks_over(rows: list[dict[str, Any]], **options: Any) -> Checks:
    gate = gate_over(rows, Recipe(max_turns=5, max_chars=10_000, **options))
    return {check["name"]: check for check in gate.verdict().checks}


@pytest.fixture(scope="module", autouse=True)
def gates_in_forks() -> Iterator[None]:
    """The gates of this process; tests of the process itself start one as a user does."""
    with warm_gates():
        yield


@pytest.fixture(scope="module")
def sound_and_faulty() -> tuple[Checks, Checks]:
    """Checks over twenty sound rows, and over three of them with two rows in which everything is wrong."""
    rows = [{**SOUND, "id": f"id{n}"} for n in range(20)]
    return checks_over(rows), checks_over([*rows[:3], FAULTY, FAULTY])


def test_every_bundled_expectation_can_hold_and_can_fail(sound_and_faulty: tuple[Checks, Checks]) -> None:
    sound, faulty = sound_and_faulty
    names = {entry["name"] for entry in tomllib.loads(read_suite(Recipe()).source)["expect"]}
    assert set(sound) == set(faulty) == names
    assert [name for name, check in sound.items() if not check["passed"]] == []
    assert [name for name, check in faulty.items() if check["passed"]] == []


def test_a_failed_check_names_its_failing_ids(sound_and_faulty: tuple[Checks, Checks]) -> None:
    check = sound_and_faulty[1]["parses_back"]
    assert (check["severity"], check["failing"], check["rows"], check["ids"]) == ("critical", 2, 5, ["faulty"])


def test_of_many_failing_ids_the_first_are_named_and_all_are_counted() -> None:
    rows = [{**SOUND, "id": f"id{n}", "framed": False} for n in range(1_200)]
    error = gate_over(rows, Recipe()).verdict().error(Path("failed"))
    assert (len(error.ids["framed"]), error.counts["framed"]) == (1_000, 1_200)
    assert "framed: 1,200 of 1,200 rows, ids id0, id1," in str(error) and "id19 and 1180 more" in str(error)


@pytest.fixture(scope="module")
def store_and_source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("typed")
    return folder / "store", guanaco_file(folder, GUANACO_TEXTS)  # one of the texts holds </s>


def test_a_critical_fault_stops_the_build_and_keeps_the_report(store_and_source: tuple[Path, str]) -> None:
    store, source = store_and_source
    done = dataprep("build", "--source", source, "--store", store, "--control-tokens", "keep", "--gate", "on", "--json")
    assert done.returncode == 3
    printed = json.loads(done.stdout)
    failing = printed["failing"]
    assert printed["failing_rows"] == {"parses_back": 1, "framed": 1}
    assert list(failing) == ["parses_back", "framed"] and len(failing["framed"]) == 1
    assert failing["framed"][0] in done.stderr and "--gate warn" in done.stderr
    assert sorted(path.name for path in (store / "rows").iterdir() if not path.name.startswith(".")) == ["failed"]
    assert sorted(path.name for path in (store / "rows/failed").iterdir()) == ["quality.json", "report.html"]
    assert "Quality gate failed" in (store / "rows/failed/report.html").read_text()

    passed = make_build(store, source=(source,), name="rows", gate="on")
    assert not (store / "rows/failed").exists()
    assert passed.path and json.loads((passed.path / "manifest.json").read_text())["gate"] == "passed"


def test_the_next_build_and_gc_remove_what_a_failed_build_left(tmp_path: Path) -> None:
    store, source = tmp_path / "s", guanaco_file(tmp_path, GUANACO_TEXTS)
    failed = store / "n/failed"

    def leave_files() -> None:
        failed.mkdir()
        (failed / QUALITY_FILE).write_text("{}")

    assert make_build(store, source=(source,), gate="off").built
    leave_files()
    assert not make_build(store, source=(source,), gate="off").built and not failed.exists()
    leave_files()
    assert gc(store, dry_run=True) == [(failed, 2)] and failed.exists()
    assert gc(store) == [(failed, 2)] and not failed.exists()
    assert make_build(store, source=(source,), gate="off").path


def test_warn_publishes_a_failed_build_and_marks_it(store_and_source: tuple[Path, str]) -> None:
    store, source = store_and_source
    outcome = make_build(store, source=(source,), name="warned", gate="warn", control_tokens="keep")
    assert outcome.path
    assert json.loads((outcome.path / "manifest.json").read_text())["gate"] == "failed"
    assert "The quality gate failed" in (outcome.path / "README.md").read_text()
    assert "A critical expectation does not hold" in (outcome.path / "report.html").read_text()
    quality = json.loads((outcome.path / QUALITY_FILE).read_text())
    assert quality["gate"] == "failed" and quality["checks"][0]["name"] == "parses_back"
    assert quality["result"]["statistics"]["evaluated_expectations"] == len(quality["checks"])


def test_a_gate_that_is_off_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataprep.quality.gate.subprocess.Popen", lambda *_, **__: pytest.fail("a process was started"))
    outcome = make_build(tmp_path / "s", source=(guanaco_file(tmp_path, GUANACO_TEXTS),), gate="off")
    assert outcome.path and json.loads((outcome.path / QUALITY_FILE).read_text())["gate"] == "off"


def test_the_content_of_an_expectations_file_is_part_of_the_version_and_its_place_is_not(tmp_path: Path) -> None:
    source, mine, moved = guanaco_file(tmp_path, GUANACO_TEXTS), tmp_path / "mine.toml", tmp_path / "moved.toml"
    mine.write_text(BETWEEN)
    first = make_build(tmp_path / "s", source=(source,), gate="on", expectations=str(mine))
    assert first.path
    checks = json.loads((first.path / QUALITY_FILE).read_text())["checks"]
    assert [check["name"] for check in checks] == ["x"]
    moved.write_text(BETWEEN)
    assert make_build(tmp_path / "s", source=(source,), gate="on", expectations=str(moved)).built is False
    moved.write_text(BETWEEN.replace("100000", "2"))
    with pytest.raises(GateError, match="x: 33 of 33 rows"):
        make_build(tmp_path / "s", source=(source,), gate="on", expectations=str(moved))


def test_an_expectation_about_a_distribution_is_judged(tmp_path: Path) -> None:
    file = tmp_path / "kl.toml"
    table = "partition_object = {values = ['en', 'de'], weights = [0.5, 0.5]}\nthreshold = 0.1"
    text = BETWEEN.replace("values_to_be_between", "kl_divergence_to_be_less_than").replace('"chars"', '"lang"')
    file.write_text(text.replace("max_value = 100000", table))
    checks = checks_over([{**SOUND, "lang": lang} for lang in ("en", "de")], expectations=str(file))
    assert checks["x"]["passed"]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("100000", "true\nmin_value = 5\nmostly = 7", "'x' has arguments that .* refuses"),
        ('"chars"', '"lang"', "'x' could not be judged"),
    ],
)
def test_an_expectation_that_great_expectations_refuses_is_named(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    file = tmp_path / "refused.toml"
    file.write_text(BETWEEN.replace(old, new))
    with pytest.raises(RecipeError, match=sentence):
        gate_over([SOUND], Recipe(expectations=str(file))).verdict()


def test_the_worker_prints_only_its_answer_and_uses_no_network(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\ndef refuse(*a, **k):\n    open('called', 'w'); raise OSError('no network')\n"
        "socket.socket.connect = refuse\nsocket.getaddrinfo = refuse\n"
    )
    entry = {"name": "x", "says": "y", "severity": "info", "type": "expect_column_values_to_be_between"}
    lines = json.dumps([{**entry, "arguments": {"column": "chars", "max_value": 5}}]) + "\n\n"
    with tempfile.TemporaryFile() as table:
        pl.DataFrame([SOUND], schema=SCHEMA).write_ipc(table, compat_level=pl.CompatLevel.oldest())
        table.flush()
        done = subprocess.run(
            [sys.executable, "-P", WORKER, str(table.fileno())],
            input=lines,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)},
            pass_fds=[table.fileno()],
            timeout=300,
        )
    assert json.loads(done.stdout)["result"]["success"] is False
    assert done.stderr == ""
    assert not (tmp_path / "called").exists()


def test_a_killed_gate_leaves_nothing_in_the_temporary_directory(tmp_path: Path) -> None:
    temporary, source = tmp_path / "tmp", guanaco_file(tmp_path, GUANACO_TEXTS)
    temporary.mkdir()
    command = [sys.executable, "-m", "dataprep", "build", "--source", source, "--store", str(tmp_path / "s")]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "s").glob("*/.tmp-*/version/train/*.arrow")) and time.monotonic() < deadline:
        time.sleep(0.02)  # until the shards are written and the gate judges
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(temporary.iterdir()) == []


def test_numbers_are_numpy_columns_unless_those_cannot_hold_a_value() -> None:
    columns = {
        "int64": pa.chunked_array([[1, 2]]),
        "int64[pyarrow]": pa.chunked_array([[1, None]]),
        "float64": pa.chunked_array([[0.5, None]]),
        "double[pyarrow]": pa.chunked_array([[0.5, math.nan]]),
        "bool[pyarrow]": pa.chunked_array([[True, None]]),
    }
    converted = {kind: _pandas_column(column) for kind, column in columns.items()}
    assert [str(column.dtype) for column in converted.values()] == list(converted)
    assert [int(pd.Series(column).isna().sum()) for column in converted.values()] == [0, 1, 1, 0, 1]
