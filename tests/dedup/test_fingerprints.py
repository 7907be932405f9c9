"""Fingerprints depend on one conversation alone, so that partitions can be fingerprinted apart and reused."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.dedup.exact import drop_exact_duplicates
from dataprep.dedup.fingerprints import Fingerprints, FingerprintTable, fingerprint, sketched_text
from dataprep.dedup.leaks import similar_groups
from dataprep.dedup.near import drop_near_duplicates
from dataprep.recipe import Recipe
from dataprep.tables import without_absent_fields
from tests.support.frames import chat, conversations
from tests.support.texts import sentence


def varied_conversations() -> pl.DataFrame:
    """Return duplicates and others, of which a few have reasoning, tools or untrained answers."""
    rng, rows = Random(5), list[dict[str, Any]]()
    for number in range(24):
        question = sentence(rng, rng.randrange(60))
        fields: dict[str, Any] = {}
        if number % 5 == 1:
            fields["reasoning_content"] = sentence(rng, 20)
        if number % 5 == 2:
            fields["trained"] = False
        tools = '[{"name": "search"}]' if number % 5 == 3 else None
        for copy in (question, question.upper(), f"{question} more"):
            answer = {"role": "assistant", "content": "yes", **fields}
            rows.append(chat({"role": "user", "content": copy}, answer, tools=tools))
    rng.shuffle(rows)
    return conversations(*rows)


FRAME = varied_conversations()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(FRAME)), max_size=6), st.sampled_from(["thread", "prompt", "answer", None]))
def test_fingerprints_are_the_same_in_every_partition(cuts: list[int], compared: Any) -> None:
    borders = sorted({0, len(FRAME), *cuts})
    # Each partition has only those optional columns and fields that its own conversations need.
    partitions = [without_absent_fields(FRAME[a:b]) for a, b in zip(borders, borders[1:], strict=False)]
    parts = Fingerprints.concatenated([fingerprint(partition, compared) for partition in partitions])
    for name, column in fingerprint(FRAME, compared)._asdict().items():
        np.testing.assert_array_equal(getattr(parts, name), column, name)


def test_fingerprints_of_all_rows_as_read_serve_every_later_stage() -> None:
    table = FingerprintTable.of(FRAME, "thread")
    exact = drop_exact_duplicates(FRAME, table)
    near = drop_near_duplicates(exact.kept, table=table)
    assert exact.fates.height > 10
    assert near.fates.height > 10
    alone = drop_exact_duplicates(FRAME)
    assert exact.fates.equals(alone.fates)
    assert near.fates.equals(drop_near_duplicates(alone.kept).fates)
    assert similar_groups(near.kept, table=table)[0].equals(similar_groups(near.kept)[0])


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        (Recipe(), "thread"),
        (Recipe(near_dup_on="prompt", split="test=0.1"), "prompt"),
        (Recipe(near_dup="0.5"), None),
        (Recipe(near_dup="0.5", split="test=0.1"), "thread"),
        (Recipe(near_dup="off"), None),
    ],
)
def test_a_recipe_decides_which_text_is_sketched(recipe: Recipe, text: str | None) -> None:
    assert sketched_text(recipe) == text
