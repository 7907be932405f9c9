"""Sketches never change, estimate similarity without bias, and find what datasketch finds."""

from __future__ import annotations

import hashlib
from random import Random

import numpy as np
import polars as pl
import pytest

from dataprep.dedup.buffers import text_buffer
from dataprep.dedup.candidates import Groups, star_pairs, uncompared_survivors
from dataprep.dedup.document_sketches import DocumentSketches
from dataprep.dedup.minhash import BINS, SHINGLE, signatures, sketch
from dataprep.dedup.ngrams import document_ngrams
from tests.support.texts import edited, sentence, slow_jaccard


def column(texts: list[str]) -> pl.Series:
    return pl.Series([text + "\n" for text in texts], dtype=pl.String)


def test_signatures_never_change() -> None:
    """A build's duplicates must not depend on the version of any library."""
    keys = sketch(column(["The quick brown fox jumps over the lazy dog.", "Быстрая лиса", "狐", "♜", ""])).band_keys
    assert hashlib.sha256(keys.astype("<u4").tobytes()).hexdigest()[:16] == "790639f65b992ca7"


def test_the_share_of_equal_bins_estimates_the_jaccard_similarity_without_bias() -> None:
    """Over 300 pairs, the mean error is within three standard errors."""
    rng = Random(1)
    originals = [sentence(rng, 150) for _ in range(300)]
    copies = [edited(rng, text, 0.05 + 0.3 * rng.random()) for text in originals]
    signature = signatures(text_buffer(pl.Series([f"{text} " for text in originals + copies])))
    estimate = (signature[:300] == signature[300:]).mean(1)
    shingles = [{f"{t} "[i : i + SHINGLE] for i in range(len(t) - SHINGLE + 2)} for t in originals + copies]
    exact = np.array([len(a & b) / len(a | b) for a, b in zip(shingles[:300], shingles[300:], strict=True)])
    error = np.sqrt((exact * (1 - exact) / BINS).sum()) / 300
    assert abs((estimate - exact).mean()) < 3 * error


def test_hashing_a_long_text_in_pieces_gives_the_same_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = text_buffer(pl.Series([f"{sentence(Random(i), 20 * i + 1)} " for i in range(40)] + ["a ", "ab cd "]))
    whole = signatures(forms)
    for piece in (7, 64, 1000):
        monkeypatch.setattr("dataprep.dedup.minhash.PIECE", piece)
        assert (signatures(forms) == whole).all()


@pytest.mark.parametrize("text", ["a", "ab", "abcdefg", "abcdefgh", "abcdefghi", "狐", "a" * 10_000])
def test_short_and_repetitive_texts_have_full_signatures(text: str) -> None:
    sketches = sketch(column([text, text + "!", "something else"]))
    assert (sketches.band_keys[0] == sketches.band_keys[1]).all() and not (
        sketches.band_keys[0] == sketches.band_keys[2]
    ).any()


def test_a_bucket_gives_a_star_of_pairs_and_no_clique() -> None:
    keys = np.array([[1, 7], [2, 7], [1, 7], [1, 8]], np.uint32)
    heads, members = star_pairs(keys.T)
    assert list(zip(heads.tolist(), members.tolist(), strict=True)) == [(0, 1), (0, 2), (0, 3)]


def test_uncompared_survivors_share_a_bucket_with_another_one_besides_its_head() -> None:
    keys = np.array([[1, 7], [2, 7], [1, 7], [1, 8]], np.uint32)
    everyone, no_one = np.ones(4, bool), np.zeros(4, bool)
    groups = uncompared_survivors(keys.T, everyone, everyone)
    assert groups.member.tolist() == [2, 3, 1, 2]  # 2 and 3 by the first band, 1 and 2 by the second
    assert groups.size.tolist() == [2, 2] and groups.count_pairs() == 2
    assert uncompared_survivors(keys.T, everyone, np.arange(4) == 3).member.tolist() == [2, 3]
    for survives, is_new in ((everyone, no_one), (np.arange(4) < 2, everyone)):
        assert uncompared_survivors(keys.T, survives, is_new).member.tolist() == []


def test_the_pairs_within_groups_are_given_once() -> None:
    groups = Groups(np.array([2, 5, 7, 1, 2, 5, 7]), np.array([3, 1, 1, 2]))
    left, right = groups.pairs()
    assert groups.count_pairs() == 4
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == [(2, 5), (2, 7), (5, 7)]


def test_the_estimate_keeps_near_duplicates_and_rejects_shared_templates() -> None:
    rng = Random(2)
    template = sentence(rng, 100)
    texts = [f"{template} {sentence(rng, 100)}" for _ in range(50)]
    copies = [edited(rng, text, 0.01) for text in texts]
    sketches = DocumentSketches.in_order(sketch(column(texts + copies)))
    each = np.arange(50)
    assert sketches.may_be_similar(each, each + 50, 0.8).all()
    assert not sketches.may_be_similar(each[1:], each[:-1], 0.8).any()


def test_candidates_include_every_near_duplicate_that_datasketch_finds() -> None:
    datasketch = pytest.importorskip("datasketch", reason="datasketch is not installed")
    rng = Random(3)
    texts = [sentence(rng, rng.randrange(30, 120)) for _ in range(150)]
    texts += [edited(rng, text, 0.04 * rng.random()) for text in texts]
    documents = column(texts)
    ngrams = document_ngrams(documents)
    index, theirs = datasketch.MinHashLSH(num_perm=125, params=(25, 5)), set[tuple[int, int]]()
    for i in range(len(texts)):
        minhash = datasketch.MinHash(num_perm=125)
        minhash.update_batch([gram.tobytes() for gram in ngrams.hash[ngrams.document == i]])
        theirs |= {(j, i) for j in index.query(minhash)}
        index.insert(i, minhash)
    ours = set(zip(*(side.tolist() for side in star_pairs(sketch(documents).band_keys.T)), strict=True))
    alike = {(a, b) for a, b in theirs if slow_jaccard(texts[a], texts[b]) >= 0.8}
    assert len(alike) > 50 and alike <= ours
