"""The gate: it passes what is sound, fails what is not, keeps what it found, and its file can be replaced and broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dataprep.common.errors import GateError, RecipeError
from dataprep.quality import Gate, read_suite
from dataprep.quality.facts import SCHEMA
from dataprep.quality.gate import QUALITY_FILE
from dataprep.quality.worker import __file__ as WORKER
from dataprep.recipe import Recipe
from dataprep.store.history import gc
from tests.support.builds import GUANACO_TEXTS, guanaco_file, guanaco_text, make_build
from tests.support.commands import dataprep

GOOD: dict[str, Any] = {
    **{name: 0 for name, kind in SCHEMA.items() if kind.is_integer()},
    **{"id": "a", "split": "train", "lang": "en", "turns": 2, "answers": 1, "chars": 100, "bytes": 100, "tokens": 40},
    **{"alternates": True, "ends_with_answer": True, "parses_back": True, "framed": True, "script_matches": True},
    **{"trained_share": 0.5, "script_share": 1.0, "repeated_words": 0.0, "unfinished": False, "longest_message": 60},
}
BAD: dict[str, Any] = {
    **dict.fromkeys(["typed_controls", "extra_controls", "keys", "cards", "refusals", "echoes", "replacements"], 1),
    **dict.fromkeys(
        ["control_characters", "bidi_controls", "mojibake", "emails", "phones", "urls", "active_markup"], 1
    ),
    **dict.fromkeys(["repeated_questions", "open_fences", "empty_messages"], 1),
    **dict.fromkeys(["alternates", "ends_with_answer", "parses_back", "framed", "script_matches"], False),
    **{"trained_share": 0.0, "repeated_words": 0.9, "repeated_lines": 99, "unfinished": True, "tokens": 9999},
    **{"longest_message": 10**6, "answers": 9, "chars": 10**6},
}


class Planted:
    """Stands in for `FactsOf`: gives rows of facts as they are planted."""

    digest = ""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def batch(self, _: object, __: str) -> pl.DataFrame:
        return pl.DataFrame(self._rows, schema=SCHEMA)


def judged(rows: list[dict[str, Any]], **recipe: Any) -> dict[str, dict[str, Any]]:
    gate = Gate(Recipe(max_turns=5, max_chars=10_000, **recipe), Planted(rows))  # type: ignore[arg-type]
    gate.start()
    gate.see(None, "train")
    return {check["name"]: check for check in gate.judge().checks}


@pytest.fixture(scope="module")
def both() -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Checks over twenty sound rows, and over the same with one row in which everything is wrong, twice."""
    rows = [{**GOOD, "id": f"id{n}"} for n in range(20)]
    bad = [{**GOOD, **BAD, "id": "bad"}] * 2
    return judged(rows), judged([*rows[:3], *bad])


def test_every_expectation_can_hold_and_can_fail(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    sound, broken = both
    named = {entry["name"] for entry in tomllib.loads(read_suite(Recipe()).source)["expect"]}
    assert set(sound) == set(broken) == named
    assert [name for name, check in sound.items() if not check["passed"]] == []
    assert [name for name, check in broken.items() if check["passed"]] == []


def test_a_check_has_its_failing_ids(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    check = both[1]["parses_back"]
    assert (check["severity"], check["failing"], check["rows"], check["ids"]) == ("critical", 2, 5, ["bad"])


def test_of_many_failing_ids_the_first_are_named_and_all_are_counted() -> None:
    gate = Gate(Recipe(), Planted([{**GOOD, "id": f"id{n}", "framed": False} for n in range(1_200)]))  # type: ignore[arg-type]
    gate.start()
    gate.see(None, "train")  # type: ignore[arg-type]
    error = gate.judge().error(Path("failed"))
    assert (len(error.ids["framed"]), error.counts["framed"]) == (1_000, 1_200)
    assert "framed: 1200 of 1200 rows, ids id0, id1," in str(error) and "id19 and 1180 more" in str(error)


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("typed")
    return folder / "store", guanaco_file(folder, GUANACO_TEXTS)  # one of them holds </s>


def test_a_critical_fault_stops_the_build_and_keeps_what_was_found(typed: tuple[Path, str]) -> None:
    store, source = typed
    done = dataprep("build", "--source", source, "--store", store, "--control-tokens", "keep", "--gate", "on", "--json")
    assert done.returncode == 3
    told = json.loads(done.stdout)
    failing = told["failing"]
    assert told["failing_rows"] == {"parses_back": 1, "framed": 1}
    assert list(failing) == ["parses_back", "framed"] and len(failing["framed"]) == 1
    assert failing["framed"][0] in done.stderr and "--gate warn" in done.stderr
    assert sorted(path.name for path in (store / "rows").iterdir() if not path.name.startswith(".")) == ["failed"]
    assert sorted(path.name for path in (store / "rows/failed").iterdir()) == ["quality.json", "report.html"]
    assert "Quality gate failed" in (store / "rows/failed/report.html").read_text()

    passed = make_build(store, source=(source,), name="rows", gate="on")
    assert not (store / "rows/failed").exists()
    assert passed.path and json.loads((passed.path / "manifest.json").read_text())["gate"] == "passed"


def test_what_a_failed_build_left_goes_with_the_next_build_found_or_made_and_with_gc(tmp_path: Path) -> None:
    store, source = tmp_path / "s", guanaco_file(tmp_path, GUANACO_TEXTS)
    failed = store / "n/failed"

    def leave() -> None:
        failed.mkdir()
        (failed / QUALITY_FILE).write_text("{}")

    assert make_build(store, source=(source,), gate="off").built
    leave()
    assert not make_build(store, source=(source,), gate="off").built and not failed.exists()
    leave()
    assert gc(store, dry_run=True) == [(failed, 2)] and failed.exists()
    assert gc(store) == [(failed, 2)] and not failed.exists()
    assert make_build(store, source=(source,), gate="off").path


def test_warn_lets_it_through_and_marks_it(typed: tuple[Path, str]) -> None:
    outcome = make_build(typed[0], source=(typed[1],), name="warned", gate="warn", control_tokens="keep")
    assert outcome.path
    assert json.loads((outcome.path / "manifest.json").read_text())["gate"] == "failed"
    assert "The quality gate failed" in (outcome.path / "README.md").read_text()
    assert "A critical expectation does not hold" in (outcome.path / "report.html").read_text()
    told = json.loads((outcome.path / QUALITY_FILE).read_text())
    assert told["gate"] == "failed" and told["checks"][0]["name"] == "parses_back"
    assert told["result"]["statistics"]["evaluated_expectations"] == len(told["checks"])


def test_off_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    outcome = make_build(tmp_path / "s", source=(guanaco_file(tmp_path, GUANACO_TEXTS),), gate="off")
    assert outcome.path and json.loads((outcome.path / QUALITY_FILE).read_text())["gate"] == "off"


ONE = '[[expect]]\nname = "x"\nsays = "y"\nseverity = "critical"\ntype = "expect_column_values_to_be_between"\ncolumn = "chars"\nmax_value = 100000\n'


def test_a_file_of_ones_own_replaces_it_and_is_in_the_version(tmp_path: Path) -> None:
    source, mine, moved = guanaco_file(tmp_path, GUANACO_TEXTS), tmp_path / "mine.toml", tmp_path / "moved.toml"
    mine.write_text(ONE)
    first = make_build(tmp_path / "s", source=(source,), gate="on", expectations=str(mine))
    assert first.path and [
        check["name"] for check in json.loads((first.path / QUALITY_FILE).read_text())["checks"]
    ] == ["x"]
    moved.write_text(ONE)
    assert make_build(tmp_path / "s", source=(source,), gate="on", expectations=str(moved)).built is False
    moved.write_text(ONE.replace("100000", "2"))
    with pytest.raises(GateError, match="x: 33 of 33 rows"):
        make_build(tmp_path / "s", source=(source,), gate="on", expectations=str(moved))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("not toml", "is not TOML"),
        ("a = 1", "must hold"),
        (ONE.replace('"chars"', '"charz"'), "unknown column 'charz'. Did you mean 'chars'"),
        (ONE.replace('"critical"', '"fatal"'), "severity 'fatal'"),
        (ONE + ONE, "two expectations named 'x'"),
        (ONE.replace('says = "y"', ""), "has no text 'says'"),
        (ONE.replace("100000", '"recipe:max_char"'), "Did you mean 'max_chars'"),
        (ONE.replace("100000", '["recipe:max_char"]'), "Did you mean 'max_chars'"),
        (ONE.replace("100000", "2026-01-01"), "number 1 .* has a date or a time for 'max_value'"),
        (ONE.replace("100000", "[12:30:00]"), "has a date or a time for 'max_value'"),
        (ONE.replace("100000", "nan"), "has nan for 'max_value', which is no bound"),
        (ONE.replace('"chars"', '["chars", "charz"]'), "unknown column 'charz'"),
        (ONE.replace('"chars"', "5"), "unknown column '5'"),
    ],
)
def test_a_broken_file_is_told_before_the_build_begins(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "broken.toml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=told):
        read_suite(Recipe(expectations=str(file)))
    with pytest.raises(RecipeError, match="cannot be read"):
        read_suite(Recipe(expectations=str(tmp_path / "none.toml")))


def test_options_of_the_recipe_stand_in_lists_and_tables_too(tmp_path: Path) -> None:
    file = tmp_path / "lists.toml"
    file.write_text(
        ONE.replace("100000", '1\nvalue_set = ["recipe:max-chars", 7, "recipe:min_chars"]\nt = {a = "recipe:seed"}')
    )
    (expectation,) = read_suite(Recipe(expectations=str(file), max_chars=9)).expectations
    assert expectation.arguments == {"column": "chars", "max_value": 1, "value_set": [9, 7], "t": {"a": Recipe().seed}}
    assert expectation.says == f"y (--max-chars 9, --min-chars None, --seed {Recipe().seed})"
    file.write_text(ONE.replace("100000", '["recipe:max_chars"]'))
    assert read_suite(Recipe(expectations=str(file))).expectations == ()


def test_every_type_of_great_expectations_is_known_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "kl.toml"
    table = "partition_object = {values = ['en', 'de'], weights = [0.5, 0.5]}\nthreshold = 0.1"
    new = ONE.replace("values_to_be_between", "kl_divergence_to_be_less_than").replace('"chars"', '"lang"')
    file.write_text(new.replace("max_value = 100000", table))
    assert judged([{**GOOD, "lang": lang} for lang in ("en", "de")], expectations=str(file))["x"]["passed"]


QUANTILES = """quantile_values_to_be_between"
column = "chars"
quantile_ranges = {quantiles = [0.5], value_ranges = [[0, 1]]}"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("values_to", "valus_to", "unknown type"),
        ("100000", "true\nfoo = 1", "does not take"),
        ('values_to_be_between"\ncolumn = "chars"\nmax_value = 100000', QUANTILES, "'x' cannot be judged by Great Exp"),
    ],
)
def test_what_great_expectations_does_not_know_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    file = tmp_path / "odd.toml"
    file.write_text(ONE.replace(old, new))
    with pytest.raises(RecipeError, match=told):
        make_build(
            tmp_path / "s",
            source=(guanaco_file(tmp_path, [guanaco_text("a", "b")]),),
            gate="on",
            expectations=str(file),
        )
    assert not list((tmp_path / "s").glob("n/[!.]*"))


def test_the_worker_is_silent_and_touches_no_network(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\ndef refuse(*a, **k):\n    open('called', 'w'); raise OSError('no network')\n"
        "socket.socket.connect = refuse\nsocket.getaddrinfo = refuse\n"
    )
    pl.DataFrame([GOOD], schema=SCHEMA).write_ipc(tmp_path / "f.arrow", compat_level=pl.CompatLevel.oldest())
    entry = {"name": "x", "says": "y", "severity": "info", "type": "expect_column_values_to_be_between"}
    lines = json.dumps([{**entry, "arguments": {"column": "chars", "max_value": 5}}]) + f"\n{tmp_path / 'f.arrow'}\n"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", WORKER],
        input=lines,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=300,
    )
    assert json.loads(done.stdout)["result"]["success"] is False
    assert done.stderr == ""
    assert not (tmp_path / "called").exists()
