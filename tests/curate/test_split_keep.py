"""`--split keep` in a whole build: the sources' own splits, without leaks."""

from __future__ import annotations

import json
import random
from pathlib import Path

import polars as pl
import pytest

from dataprep.common.errors import InputError
from dataprep.contract import open_build
from tests.support.builds import make_build
from tests.support.texts import leaks_between, sentence


def write_records(file: Path, texts: list[str], **fields: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        for text in texts:
            messages = [{"role": "user", "content": f"q {text}"}, {"role": "assistant", "content": "a"}]
            out.write(json.dumps({"messages": messages, **fields}) + "\n")


def read_splits(path: Path) -> dict[str, pl.DataFrame]:
    return {name: pl.DataFrame(table) for name, table in open_build(path).splits.items()}


@pytest.mark.parametrize("layout", ["files", "column"])
def test_the_held_out_rows_of_the_sources_are_test_except_for_leaks(tmp_path: Path, layout: str) -> None:
    rng = random.Random(3)
    train, test = [sentence(rng, 60) for _ in range(20)], [sentence(rng, 60) for _ in range(6)]
    test.append(f"{train[0]} and more")  # a near-duplicate of a training row
    folder = tmp_path / "data"
    for name, texts in (("train", train), ("test", test)):
        if layout == "files":
            write_records(folder / f"{name}.jsonl", texts)
        else:
            write_records(folder / "rows.jsonl", texts, split=name)
    outcome = make_build(tmp_path / "store", source=(str(folder),), split="keep", near_dup="off")
    splits = read_splits(outcome.path)
    assert (splits["train"].height, splits["test"].height) == (21, 6)
    assert leaks_between(splits["train"], splits["test"]).is_empty()
    assert outcome.summary["split"]["moved_to_train"] == 1
    assert "--split keep: test is made of the sources' test (7 rows)." in outcome.summary["notes"]


def test_a_source_without_held_out_rows_is_refused(tmp_path: Path) -> None:
    write_records(tmp_path / "rows.jsonl", [sentence(random.Random(n), 30) for n in range(5)])
    with pytest.raises(InputError, match="--split keep: the sources have no split besides train"):
        make_build(tmp_path / "store", source=(str(tmp_path / "rows.jsonl"),), split="keep")
