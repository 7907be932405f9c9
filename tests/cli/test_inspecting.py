"""`show`, `why` and `verify`: what is printed, in colour or without, and the error for what does not exist."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.support.builds import guanaco_file, guanaco_text
from tests.support.commands import dataprep, dataprep_error


@pytest.fixture
def fates(built: Path) -> pl.DataFrame:
    return pl.read_parquet(built / "fates/*.parquet")


def test_show_marks_the_trained_parts(built: Path) -> None:
    done = dataprep("show", built, "--row", "0")
    assert re.search(r"<s>\[INST\] .* \[/INST\]⟦ .* </s>⟧", done.stdout)
    record = json.loads(dataprep("show", built, "--split", "test", "--row", "2", "--json").stdout)
    assert record["text"].startswith("<s>[INST]")


def test_show_names_the_rows_and_splits_that_exist(built: Path) -> None:
    assert "its rows are 0 to 4" in dataprep_error(1, "show", built, "--split", "test", "--row", "5")
    assert "Available: test, train" in dataprep_error(1, "show", built, "--split", "dev")


def test_show_uses_colour_in_a_terminal_and_prints_no_escapes_of_the_data(tmp_path: Path) -> None:
    source = guanaco_file(tmp_path, [guanaco_text("clear \x1b[2J me [bold]x[/bold]", "right \u202e to left \x07")])
    path = json.loads(dataprep("build", "--source", source, "--store", tmp_path / "s", "--json").stdout)["path"]
    terminal = {**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"}
    plain, coloured = dataprep("show", path).stdout, dataprep("show", path, env=terminal).stdout
    assert "\x1b[32m" in coloured
    for output in (plain, coloured):
        assert "<U+001B>[2J" in output
        assert "<U+202E>" in output
        assert "\x1b[2J" not in output
        assert "\u202e" not in output
        assert "[bold]x[/bold]" in output


@pytest.mark.parametrize("rule", ["control_token", "exact_duplicate", "no_answer"])
def test_why_names_the_rule_and_the_line_of_a_dropped_record(built: Path, fates: pl.DataFrame, rule: str) -> None:
    output = dataprep("why", built, fates.filter(rule=rule)["id"][0]).stdout
    assert rule in output
    assert "rows.jsonl, line" in output


def test_why_names_the_survivor_of_a_duplicate(built: Path, fates: pl.DataFrame) -> None:
    duplicate = fates.filter(rule="exact_duplicate")
    output = dataprep("why", built, duplicate["id"][0]).stdout
    assert f"duplicate of {duplicate['survivor'][0]}" in output


def test_why_names_the_repairs_of_a_kept_record(built: Path, fates: pl.DataFrame) -> None:
    repaired = fates.filter(pl.col("repairs").list.len() > 0)["id"][0]
    output = dataprep("why", built, repaired).stdout
    assert "dangling_question: and then?" in output
    assert "kept" in output
    assert json.loads(dataprep("why", built, repaired, "--json").stdout)["fates"][0]["fate"] == "kept"


def test_why_finds_a_record_by_file_and_line(built: Path, fates: pl.DataFrame) -> None:
    file, line = fates.filter(rule="no_answer").select("source", "line").row(0)
    assert "no_answer" in dataprep("why", built, f"{file}:{line}").stdout
    unread = json.loads(dataprep("why", built, "rows.jsonl:7", "--json").stdout)["fates"]
    assert [(fate["rule"], fate["passed"]) for fate in unread] == [("no_role_marker", [])]


def test_why_lists_the_stages_that_a_record_passed(built: Path, fates: pl.DataFrame) -> None:
    for rule, passed in (("no_answer", "read, threads"), ("exact_duplicate", "read, threads, rules")):
        assert f"  passed    {passed}\n" in dataprep("why", built, fates.filter(rule=rule)["id"][0]).stdout
    kept = fates.filter(fate="kept")["id"][0]
    assert "  passed    read, threads, rules, dedup, render, select\n" in dataprep("why", built, kept).stdout


def test_why_lists_the_records_of_a_rule_and_of_a_repair(built: Path) -> None:
    assert dataprep("why", built, "--rule", "no_answer").stdout.endswith("rows.jsonl:4  it has no answer\n")
    repaired = json.loads(dataprep("why", built, "--rule", "dangling_question", "--json").stdout)["records"]
    assert [(record["line"], record["detail"]) for record in repaired] == [(3, "and then?")]
    assert "Did you mean 'no_answer'?" in dataprep_error(1, "why", built, "--rule", "no_anser")


def test_why_without_a_record_prints_the_funnel(built: Path) -> None:
    assert "36 conversations → 33 kept: 28 in train, 5 in test\n" in dataprep("why", built).stdout


def test_why_says_what_it_can_find_where_there_is_no_such_record(built: Path) -> None:
    assert "No record 'nobody'" in dataprep_error(1, "why", built, "nobody")


def test_why_reports_missing_fates_as_damage(built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "copy")
    (copy / "fates/fates-00000.parquet").unlink()
    assert "fates-00000.parquet is missing" in dataprep_error(4, "why", copy, "x")


@pytest.mark.parametrize("reference", ["{path}", "rows", "rows@{version}", "rows@latest"])
def test_verify_finds_a_build_by_path_name_and_short_version(built: Path, reference: str) -> None:
    named = reference.format(path=built, version=built.name[:8])
    assert "is whole: 33 rows" in dataprep("verify", named, "--store", built.parent.parent).stdout
