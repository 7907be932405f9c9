"""Leaks are found exactly, and similar conversations are grouped."""

from __future__ import annotations

from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.dedup.fingerprints import FingerprintTable
from dataprep.dedup.leaks import similar_groups
from dataprep.dedup.near import drop_near_duplicates
from tests.support.frames import conversation, conversations
from tests.support.texts import edited, leaks_between, questions, sentence, slow_jaccard


def groups(frame: pl.DataFrame, threshold: float = 0.7) -> list[list[str]]:
    """Return the ids of each group of two or more."""
    labelled = similar_groups(frame, threshold)[0].join(frame.select("row", "id"), on="row")
    members = labelled.sort("row").group_by("group", maintain_order=True).agg("id")
    return [ids for ids in members["id"].to_list() if len(ids) > 1]


def test_trees_and_chains_of_near_duplicates_are_groups() -> None:
    words = sentence(Random(1), 140).split(" ")
    chain = [conversation(" ".join(words[i * 10 : i * 10 + 100])) for i in range(3)]
    same_tree = [{**conversation(text), "tree_id": "one"} for text in ("a", "b")]
    assert groups(conversations(*chain, *same_tree, conversation("c"), {**conversation("d"), "tree_id": None})) == [
        ["c0", "c1", "c2"],
        ["c3", "c4"],
    ]


def test_the_sketches_of_near_duplicate_removal_give_the_same_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Random(2)
    texts = [sentence(rng, 80) for _ in range(40)]
    frame = questions(texts + [edited(rng, text, 0.04) for text in texts])
    table = FingerprintTable.of(frame, "thread")
    kept = drop_near_duplicates(frame, 0.9, table=table).kept[::-1]
    expected = similar_groups(kept)
    monkeypatch.setattr("dataprep.dedup.fingerprints.sketch", None)  # nothing may be sketched again
    groups, recall = similar_groups(kept, table=table)
    assert groups.equals(expected[0])
    assert recall == expected[1]
    with pytest.raises(KeyError):
        similar_groups(frame.with_columns(pl.col("row") + 1), table=table)


def test_empty_frames_and_empty_texts_have_no_leaks() -> None:
    empty = questions(["a"]).clear()
    assert groups(empty) == [] and leaks_between(empty, empty).is_empty()
    assert leaks_between(questions([""]), questions(["", " "])).is_empty()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.5, 0.7, 0.8, 1.0]))
def test_leaks_equal_brute_force_over_all_pairs(seed: int, threshold: float) -> None:
    rng = Random(seed)
    texts = [sentence(rng, rng.randrange(0, 50), 40) for _ in range(12)]
    template = sentence(rng, 30)
    texts += [f"{template} {sentence(rng, rng.randrange(0, 20))}" for _ in range(12)]
    texts += [edited(rng, text, 0.05) for text in texts]
    rng.shuffle(texts)
    frame = questions(texts)
    leaks = leaks_between(frame[16:], frame[:16], threshold)
    slow = {(a, b): slow_jaccard(texts[a], texts[b]) for a in range(16) for b in range(16, len(texts))}
    expected = {(f"c{a}", f"c{b}"): value for (a, b), value in slow.items() if value >= threshold - 1e-12}
    assert {(a, b): value for a, b, value in leaks.rows()} == pytest.approx(expected)
