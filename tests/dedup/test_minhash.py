"""Sketches: fixed for good, an unbiased estimate, and as datasketch sees it."""

from __future__ import annotations

import hashlib
from random import Random

import numpy as np
import polars as pl
import pytest

from dataprep.dedup.buffers import text_buffer
from dataprep.dedup.candidates import star_pairs, uncompared_survivors
from dataprep.dedup.jaccard import jaccard
from dataprep.dedup.minhash import BINS, SHINGLE, Sketches, signatures, sketch
from dataprep.dedup.ngrams import document_ngrams
from tests.support.talks import edited, sentence, slow_jaccard


def column(texts: list[str]) -> pl.Series:
    return pl.Series([text + "\n" for text in texts], dtype=pl.String)


def test_signatures_never_change() -> None:
    """A build's duplicates must not depend on the version of any library: these bytes are for good."""
    keys = sketch(column(["The quick brown fox jumps over the lazy dog.", "Быстрая лиса", "狐", "♜", ""])).band_keys
    assert hashlib.sha256(keys.astype("<u4").tobytes()).hexdigest()[:16] == "790639f65b992ca7"


def test_estimate_is_unbiased() -> None:
    """The share of equal bins against the exact Jaccard of the shingles: within three standard errors over 300 pairs."""
    rng = Random(1)
    originals = [sentence(rng, 150) for _ in range(300)]
    copies = [edited(rng, text, 0.05 + 0.3 * rng.random()) for text in originals]
    signature = signatures(text_buffer(pl.Series([f"{text} " for text in originals + copies])))
    estimate = (signature[:300] == signature[300:]).mean(1)
    shingles = [{f"{t} "[i : i + SHINGLE] for i in range(len(t) - SHINGLE + 2)} for t in originals + copies]
    exact = np.array([len(a & b) / len(a | b) for a, b in zip(shingles[:300], shingles[300:], strict=True)])
    error = np.sqrt((exact * (1 - exact) / BINS).sum()) / 300
    assert abs((estimate - exact).mean()) < 3 * error


def test_long_text_is_hashed_in_pieces_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = text_buffer(pl.Series([f"{sentence(Random(i), 20 * i + 1)} " for i in range(40)] + ["a ", "ab cd "]))
    whole = signatures(forms)
    for piece in (7, 64, 1000):
        monkeypatch.setattr("dataprep.dedup.minhash.PIECE", piece)
        assert (signatures(forms) == whole).all()


@pytest.mark.parametrize("text", ["a", "ab", "abcdefg", "abcdefgh", "abcdefghi", "狐", "a" * 10_000])
def test_short_and_dull_texts_have_full_signatures(text: str) -> None:
    made = sketch(column([text, text + "!", "something else"]))
    assert (made.band_keys[0] == made.band_keys[1]).all() and not (made.band_keys[0] == made.band_keys[2]).any()


def test_stars_not_cliques() -> None:
    keys = np.array([[1, 7], [2, 7], [1, 7], [1, 8]], np.uint32)
    heads, members = star_pairs(keys)
    assert list(zip(heads.tolist(), members.tolist(), strict=True)) == [(0, 1), (0, 2), (0, 3)]


def test_crowded_is_what_stars_do_not_tell_apart() -> None:
    keys = np.array([[1, 7], [2, 7], [1, 7], [1, 8]], np.uint32)
    everybody, nobody = np.ones(4, bool), np.zeros(4, bool)
    assert uncompared_survivors(keys, everybody, everybody).tolist() == [
        1,
        2,
        3,
    ]  # 2 and 3 by the first band, 1 and 2 by the second
    assert uncompared_survivors(keys, everybody, np.arange(4) == 3).tolist() == [2, 3]
    assert (
        uncompared_survivors(keys, everybody, nobody).tolist()
        == uncompared_survivors(keys, np.arange(4) < 2, everybody).tolist()
        == []
    )


def test_promising_keeps_what_is_alike_and_drops_templates() -> None:
    rng = Random(2)
    template = sentence(rng, 100)
    texts = [f"{template} {sentence(rng, 100)}" for _ in range(50)]
    copies = [edited(rng, text, 0.01) for text in texts]
    made = sketch(column(texts + copies))
    each = np.arange(50)
    assert made.may_be_similar(each, each + 50, 0.8).all()
    assert not made.may_be_similar(each[1:], each[:-1], 0.8).any()
    assert isinstance(made.concatenated(Sketches.empty(2)), Sketches)


def test_as_datasketch() -> None:
    """What MinHashLSH finds and exact Jaccard confirms, our candidates hold too, and no fewer."""
    datasketch = pytest.importorskip("datasketch", reason="datasketch is not installed")
    rng = Random(3)
    texts = [sentence(rng, rng.randrange(30, 120)) for _ in range(150)]
    texts += [edited(rng, text, 0.04 * rng.random()) for text in texts]
    documents = column(texts)
    found = document_ngrams(documents)
    index, theirs = datasketch.MinHashLSH(num_perm=125, params=(25, 5)), set()
    for i in range(len(texts)):
        minhash = datasketch.MinHash(num_perm=125)
        minhash.update_batch([gram.tobytes() for gram in found.hash[found.document == i]])
        theirs |= {(j, i) for j in index.query(minhash)}
        index.insert(i, minhash)
    ours = set(zip(*(side.tolist() for side in star_pairs(sketch(documents).band_keys)), strict=True))
    alike = {(a, b) for a, b in theirs if slow_jaccard(texts[a], texts[b]) >= 0.8}
    assert len(alike) > 50 and alike <= ours


def test_proof_as_sets_of_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Random(4)
    texts = [sentence(rng, rng.randrange(0, 40), 30) for _ in range(30)] + [
        "",
        "♜ ♞",
        "♜ ♞",
        "中文字符測試",
        "中文字符測量",
    ]
    left, right = (side.ravel() for side in np.meshgrid(np.arange(len(texts)), np.arange(len(texts))))
    slow = [slow_jaccard(texts[a], texts[b]) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
    np.testing.assert_allclose(jaccard(column(texts), left, right), slow, atol=1e-12)
    some = np.random.default_rng(0).permutation(len(left))[:60]  # most of them with a left of their own, or few with it
    np.testing.assert_allclose(jaccard(column(texts), left[some], right[some]), np.array(slow)[some], atol=1e-12)
    monkeypatch.setattr("dataprep.dedup.jaccard.PAIRS", 7)
    np.testing.assert_allclose(jaccard(column(texts), left, right), slow, atol=1e-12)
