"""The build report: untrusted text stays text, personal data is hidden, the size is bounded, the numbers are the manifest's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataprep.build import Outcome
from dataprep.common.rules import meaning_of
from dataprep.contract import open_build
from dataprep.report import CollectedRows, build_report
from dataprep.store.fates import read_duplicates, read_fates
from tests.support.builds import make_build
from tests.support.commands import dataprep, dataprep_error
from tests.support.pages import SECRET, chat_line


def report_of(outcome: Outcome) -> str:
    assert outcome.path
    return (outcome.path / "report.html").read_text()


def test_markup_and_invisible_characters_in_texts_are_escaped(attacked: Outcome) -> None:
    text = report_of(attacked)
    assert "<script>window" not in text and "<img" not in text and "<i>evil" not in text and "<i>no answer" not in text
    assert "&lt;script&gt;" in text and "&lt;U+202E&gt;" in text
    assert "\u202e" not in text and "\x1b" not in text
    assert text.count("<script>") == 1
    assert len(text) < 1_000_000


def test_personal_data_is_hidden_unless_it_is_requested(attacked: Outcome) -> None:
    assert SECRET not in report_of(attacked) and "[e-mail hidden]" in report_of(attacked)
    opened = open_build(attacked.path or "")
    quality = json.loads((opened.path / "quality.json").read_text())
    fates, pairs = read_fates(opened.path), read_duplicates(opened.path)
    collected = CollectedRows.of_splits(opened.splits, 42, fates)
    assert SECRET in build_report(opened.manifest.data, collected, fates, pairs, quality, show_personal_data=True)


def test_the_report_shows_the_numbers_of_the_manifest(attacked: Outcome) -> None:
    text = report_of(attacked)
    assert attacked.version in text and "dataprep build --name n" in text
    for stage in attacked.summary["funnel"]:
        for rule, count in stage["rules"].items():
            row = text[text.index(f'id="rule-{stage["stage"]}-{rule}"') :].split("</summary>")[0]
            assert f"<strong>−{count:,}</strong>" in row and meaning_of(rule, stage["stage"]) in row
    assert f"{attacked.summary['rows']:,}</span><span>kept" in text
    assert text.count("<svg") == 4 and text.count(">Numbers<") == 3  # the fourth chart stands beside its table
    assert 'dir="auto">de</th>' in text and "</span>20</td>" in text and '<td class="n">100.0 %</td>' in text
    assert "http://" not in text.replace("http://www.w3.org/", "") and "https://" not in text


def test_the_command_prints_the_path_of_the_report_or_writes_another(attacked: Outcome, tmp_path: Path) -> None:
    store = attacked.path.parent.parent if attacked.path else tmp_path
    done = dataprep("report", "n", "--store", store)
    assert Path(done.stdout.strip()) == (attacked.path or tmp_path) / "report.html"
    done = dataprep("report", "n", "--store", store, "--show-personal-data", "--out", tmp_path / "r.html", "--json")
    assert SECRET in Path(json.loads(done.stdout)["path"]).read_text()
    assert "--out FILE" in dataprep_error(1, "report", "n", "--store", store, "--show-personal-data")
    assert "There is no build 'm'" in dataprep_error(1, "report", "m", "--store", store)


def test_groups_of_duplicates_show_the_common_text_once(attacked: Outcome) -> None:
    text = report_of(attacked)
    near = text[text.index("Near-duplicates, lowest") : text.index("Exact duplicates, largest")]
    assert near.count("kept: <code>") == 1 and near.count("removed: <code>") == 2
    assert "<mark>step99</mark>" in near and "<mark>⌫</mark>" in near
    assert near.count("step50") == 1  # members show only what is near a difference
    exact = text[text.index("Exact duplicates, largest") : text.index('id="lengths"')]
    assert "assistant: the same" in exact and exact.count("2 removed") == 1 and "<code>t2</code>" in exact


def hostile_file(folder: Path, kind: str) -> Path:
    """A file whose texts are as expensive to show as the kind allows."""
    rows = {
        "quotes": [chat_line(f"q{n} " + '"' * 100, f"a{n} " + "<\"&'>" * 3_000) for n in range(210)],
        "controls": [chat_line(f"q{n} hello there", f"a{n} " + "\u202e\u200f\x07" * 3_000) for n in range(210)],
        "ids": [
            chat_line(f"question {n * 7919}", f"answer {n * 104729}", id="&" * 100_000 + str(n)) for n in range(60)
        ],
        "languages": [chat_line(f"question {n * 7919}", f"answer {n}", lang="x" * 200 + str(n)) for n in range(3_000)],
        "turns": [chat_line(*(f"<{n}&{at}>" for at in range(400))) for n in range(200)],
    }
    file = folder / f"{kind}.jsonl"
    file.write_text("".join(rows[kind]))
    return file


@pytest.mark.parametrize("kind", ["quotes", "controls", "ids", "languages", "turns"])
def test_reports_of_hostile_texts_stay_below_five_megabytes(tmp_path: Path, kind: str) -> None:
    from dataprep.audit import audit_file

    file = hostile_file(tmp_path, kind)
    outcome = make_build(tmp_path / "store", source=(str(file),), near_dup="off", control_tokens="keep")
    assert len(report_of(outcome).encode()) < 5_000_000
    assert len(audit_file(file, format="messages").page().encode()) < 5_000_000


def test_secrets_are_hidden_in_ids_and_wherever_a_text_is_cut(tmp_path: Path) -> None:
    from dataprep.audit import audit_file

    key = "-----BEGIN PRIVATE KEY-----\n" + "SECRETBODY" * 900 + "\n-----END PRIVATE KEY-----"
    rows = [chat_line("x" * 980 + f" write {SECRET}", "ok"), chat_line("and a key?", "a" * 13_000 + key)]
    rows += [chat_line(f"how long {size}?", "a" * size + f" {SECRET}") for size in range(13_900, 14_100, 7)]
    rows += [
        chat_line("twice", "the same", id="t1"),
        chat_line("twice", "the same", id=SECRET),
        chat_line(f"no answer, {SECRET}"),
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(rows))
    text = report_of(make_build(tmp_path / "store", source=(str(file),), near_dup="off"))
    assert "jane" not in text and "SECRETBODY" not in text
    page = audit_file(file, format="messages").page()
    assert "jane" not in page and "SECRETBODY" not in page


def test_a_build_of_the_sample_warns_that_it_is_synthetic(tmp_path: Path) -> None:
    outcome = make_build(tmp_path, limit=100)
    assert "are <strong>synthetic</strong>" in report_of(outcome)
    card = ((outcome.path or tmp_path) / "README.md").read_text()
    assert "the bundled sample, which is synthetic" in card and "The texts are synthetic" in card


def test_many_sources_are_counted_instead_of_listed(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(40):
        (folder / f"part-{n:02}.jsonl").write_text(chat_line(f"question {n}", f"answer {n}"))
    outcome = make_build(tmp_path / "store", source=(str(folder),), near_dup="off")
    for text in (report_of(outcome), ((outcome.path or tmp_path) / "README.md").read_text()):
        assert "part-04.jsonl and 35 more" in text and "part-05.jsonl and" not in text


def test_the_gate_lists_failed_inapplicable_and_passed_expectations_in_this_order(attacked: Outcome) -> None:
    opened = open_build(attacked.path or "")
    fates = read_fates(opened.path)
    check: dict[str, Any] = {
        "severity": "warning",
        "arguments": {},
        "rows": 9,
        "abstaining": 0,
        "failing": 0,
        "ids": [],
    }
    failing = {"passed": False, "failing": 70, "ids": [f"i{n}" for n in range(70)]}
    checks = [
        check | {"name": "one", "says": "This fails."} | failing,
        check | {"name": "two", "says": "This holds.", "passed": True},
        check | {"name": "three", "says": "This abstains.", "passed": True, "abstaining": 9},
    ]
    quality = {"gate": "passed", "suite": "s.toml", "rows": 9, "checks": checks}
    text = build_report(opened.manifest.data, CollectedRows.of_splits(opened.splits, 42, fates), fates, None, quality)
    assert "1 passed, 1 failed, 1 did not apply" in text
    assert text.index("This fails.") < text.index("This abstains.") < text.index("This holds.")
    assert ">not applicable</span><div>This abstains." in text and ">warning</span>" in text
    assert "<code>i49</code> and 20 more" in text


def test_lengths_are_in_tokens_where_the_gate_counted_them_with_a_mark_at_the_context(attacked: Outcome) -> None:
    opened = open_build(attacked.path or "")
    fates = read_fates(opened.path)
    collected = CollectedRows.of_splits(opened.splits, 42, fates)
    rows = [0, 0, 0, 0, 0, collected.numbers.height - 3, 2, 1]
    tokens = {
        "bounds": [128, 256, 512, 1024, 2048, 4096, 8192],
        "rows": rows, "total": 9_000, "median": 4_000, "p95": 5_000, "longest": 9_000,
    }  # fmt: skip
    quality = {"gate": "off", "checks": [], "token_lengths": tokens}
    text = build_report(opened.manifest.data, collected, fates, None, quality)
    assert "tokens of the rendered text, up to</text>" in text and '<line class="mark"' in text
    assert "3 (" in text and "are longer than 4,096 tokens, the context of Llama 2." in text
    assert "characters of the rendered text, up to</text>" in report_of(attacked)
    assert '<line class="mark"' not in report_of(attacked)


def test_sections_come_in_the_order_of_the_contents(attacked: Outcome) -> None:
    text = report_of(attacked)
    sections = ("browse", "gate", "duplicates", "lengths", "funnel", "recipe")
    places = [text.index(f'<section id="{section}"') for section in sections]
    links = [text.index(f'href="#{section}"') for section in sections]
    assert places == sorted(places) and links == sorted(links) and links[-1] < places[0]
