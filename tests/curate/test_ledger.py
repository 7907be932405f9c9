"""The ledger's sums fail when a stage loses a record: each test makes one stage lossy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dataprep.curate import conversations
from dataprep.curate.ledger import Ledger
from dataprep.curate.threads import choose_threads
from dataprep.sources import jsonlines, trees
from dataprep.sources.jsonlines import iter_lines
from dataprep.tables import StageResult, dropped
from tests.support.builds import GUANACO_TEXTS, guanaco_file, make_build


@pytest.mark.parametrize("name", ["_parse_by_columns", "_parse_by_lines"])
def test_a_line_that_reading_loses_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = getattr(jsonlines, name)

    def lossy(*arguments: Any) -> Any:
        rows = real(*arguments)
        return rows and rows._replace(batch=rows.batch[:-1], line=rows.line[:-1])

    texts = [*GUANACO_TEXTS, *GUANACO_TEXTS]
    source = guanaco_file(tmp_path, texts)
    if name == "_parse_by_lines":
        Path(source).write_bytes(Path(source).read_bytes() + b"no JSON\n")
    make_build(tmp_path / "store", source=(source,), near_dup="off", dry_run=True, max_bad=1.0)
    monkeypatch.setattr(jsonlines, name, lossy)
    with pytest.raises(AssertionError, match=r"rows.jsonl has \d+ records, and \d+ of them"):
        make_build(tmp_path / "store", source=(source,), near_dup="off", dry_run=True, max_bad=1.0)


def test_a_tree_that_reading_loses_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "iter_lines", lambda block: list(iter_lines(block))[1:])
    with pytest.raises(AssertionError, match=r"oasst_sample.trees.jsonl.gz has \d+ records"):
        make_build(tmp_path / "store", near_dup="off", dry_run=True)


@pytest.mark.parametrize("policy", ["reviewed", "guanaco", "all"])
@pytest.mark.parametrize("lost", ["message", "conversation", "fate"])
@pytest.mark.parametrize("shape", ["nested", "flat"])
def test_a_message_that_the_threads_stage_loses_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, lost: str, shape: str
) -> None:
    def lossy(messages: pl.DataFrame, policy: Any) -> StageResult[None]:
        threads, fates, *_ = choose_threads(messages[:-1] if lost == "message" else messages, policy)
        kept = threads[:-1] if lost == "conversation" else threads
        return StageResult(kept, fates[:-1] if lost == "fate" else fates)

    source = trees_file(tmp_path, shape)
    options: dict[str, Any] = {"source": (source,), "paths": policy, "near_dup": "off", "dry_run": True}
    make_build(tmp_path / "store", **options)
    monkeypatch.setattr(conversations, "choose_threads", lossy)
    with pytest.raises(AssertionError, match=r"threads: (of \d+ messages|\d+ lines have no fate)"):
        make_build(tmp_path / "store", **options)


def trees_file(folder: Path, shape: str) -> str:
    """Three trees with two answers each, and an orphan."""
    rows: list[dict[str, Any]] = []
    for n in range(3):
        rows.append({"message_id": f"q{n}", "text": f"question {n}", "role": "prompter"})
        rows += [
            {"message_id": f"a{n}{k}", "parent_id": f"q{n}", "text": f"{n} {k}", "role": "assistant"} for k in "xy"
        ]
    rows.append({"message_id": "o", "parent_id": "absent", "text": "orphan", "role": "assistant"})
    if shape == "nested":
        orphan = rows[-1]
        rows = [
            {"message_tree_id": f"q{n}", "prompt": {**rows[3 * n], "replies": rows[3 * n + 1 : 3 * n + 3]}}
            for n in range(3)
        ]
        rows[2]["prompt"]["replies"].append(orphan)  # its parent is not in the file
    file = folder / "trees.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def rows(count: int) -> pl.DataFrame:
    return pl.DataFrame({"id": [str(number) for number in range(count)]})


def test_a_stage_that_loses_a_record_is_an_error() -> None:
    ledger = Ledger()
    ledger.enter("threads", StageResult(rows(5)))
    with pytest.raises(AssertionError, match="rules: of 5 records, 4 go on and 0 have a fate"):
        ledger.enter("rules", StageResult(rows(4)))


def test_a_step_of_a_stage_that_loses_a_record_is_an_error() -> None:
    ledger = Ledger()
    ledger.enter("threads", StageResult(rows(5)))
    one_fate = dropped(rows(1), "conversation", "dedup", "exact_duplicate")
    with pytest.raises(AssertionError, match="dedup: of 4 records, 3 go on and 0 have a fate"):
        ledger.enter("dedup", StageResult(rows(4), one_fate), StageResult(rows(3)))


def test_fates_in_the_name_of_another_stage_are_an_error() -> None:
    fates = dropped(rows(1), "conversation", "dedup", "exact_duplicate")
    with pytest.raises(AssertionError, match=r"rules: fates of other stages: \['dedup'\]"):
        Ledger().enter("rules", StageResult(rows(4), fates))


def test_splits_that_lose_a_record_are_an_error() -> None:
    ledger = Ledger()
    ledger.enter("threads", StageResult(rows(5)))
    with pytest.raises(AssertionError, match="the last stage kept 5 records, and the splits have 1"):
        ledger.close({"train": rows(1)})
