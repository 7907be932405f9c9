"""Comparing conversations stays within the memory bound, or is refused with a sentence."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from dataprep.common.errors import RecipeError
from dataprep.dedup.corpus import DOCUMENT_BYTES, half_of_memory
from dataprep.dedup.near import drop_near_duplicates
from dataprep.dedup.prefix_filter import prefix_grams
from tests.support.texts import corpus_of, edited, questions, sentence


def test_too_little_memory_is_refused_with_the_memory_needed() -> None:
    with pytest.raises(RecipeError, match=r"Comparing 2 conversations needs \d+ MiB, but --max-memory allows 1 MiB"):
        drop_near_duplicates(questions(["a", "b"]), max_memory=1 << 20)


def test_less_memory_gives_the_same_result_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Random(11)
    texts = [sentence(rng, 100) for _ in range(30)]
    texts += [edited(rng, text, 0.02) for text in texts]
    expected = drop_near_duplicates(questions(texts)).fates
    assert len(expected) > 20 and drop_near_duplicates(questions(texts), max_memory=100 << 20).fates.equals(expected)
    monkeypatch.setattr("dataprep.dedup.corpus.MIN_BATCH_BYTES", 1 << 12)
    for memory in (1 << 18, 1 << 20):
        result = drop_near_duplicates(questions(texts), max_memory=60 * DOCUMENT_BYTES + memory)
        assert result.fates.equals(expected)


def test_texts_that_do_not_fit_into_the_memory_bound_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"\(the longest has 4 MB\) needs .* but --max-memory allows 100 MiB"):
        drop_near_duplicates(questions(["a " * 2_000_000, "b " * 2_000_000]), max_memory=100 << 20)
    corpus, _ = corpus_of(questions(["a"]), DOCUMENT_BYTES + 100, "wait")
    many = prefix_grams(corpus.documents(np.arange(1)), np.arange(1), np.zeros(1 << 20, np.uint8), 0.8)
    with pytest.raises(
        RecipeError,
        match=r"Comparing 1 conversations that share much of their text.* --max-memory allows\. Allow more, or wait\.",
    ):
        for _ in range(3):
            corpus.new_index(0.8).add(many.followed_by(many).followed_by(many))


def test_the_memory_limit_of_a_container_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = half_of_memory()
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "some").write_text("4096\n")
    monkeypatch.setattr("dataprep.dedup.corpus.CGROUP_LIMITS", (str(tmp_path / "max"), str(tmp_path / "none")))
    assert half_of_memory() >= whole
    monkeypatch.setattr("dataprep.dedup.corpus.CGROUP_LIMITS", (str(tmp_path / "some"),))
    assert half_of_memory() == 2048
