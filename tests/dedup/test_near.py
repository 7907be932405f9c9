"""Near-duplicates are dropped only for a survivor that is verified to be similar, whatever the input order."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.common.errors import RecipeError
from dataprep.curate.threads import choose_threads
from dataprep.dedup.near import drop_near_duplicates
from dataprep.dedup.normal_form import documents
from dataprep.sources.files import find_files
from dataprep.sources.reader import read
from dataprep.tables import CONVERSATIONS, FATES
from tests.support.frames import conversation, conversations
from tests.support.texts import edited, questions, sentence, slow_jaccard

TEXT = sentence(Random(0), 60)


def survivors(frame: pl.DataFrame, threshold: float = 0.8, **more: object) -> dict[str, str]:
    """Return the survivor of each dropped conversation."""
    fates = drop_near_duplicates(frame, threshold, **more)[1]  # type: ignore[arg-type]
    return dict(zip(fates["id"], fates["survivor"], strict=True))


def test_the_fate_names_the_survivor_and_the_criterion_that_decided() -> None:
    frame = questions(["z", TEXT, "y", TEXT.replace("w", "W") + "!", f"{TEXT} more", "x"])
    kept, fates, _, report = drop_near_duplicates(frame)
    assert kept["id"].to_list() == ["c0", "c2", "c4", "c5"] and kept.schema == pl.Schema(CONVERSATIONS)
    assert fates.schema == pl.Schema(FATES)
    assert fates.select("id", "fate", "stage", "rule", "survivor").rows() == [
        ("c1", "dropped", "dedup", "near_duplicate", "c4"),
        ("c3", "dropped", "dedup", "near_duplicate", "c4"),
    ]
    assert fates["similarity"].to_list() == [56 / 57] * 2
    assert (
        fates["detail"][0] == "Near-duplicate of 'c4' (similarity 0.982 on word 5-grams), which is kept for its length."
    )
    assert report.dropped == 2
    assert report.candidates >= report.proven >= report.alike >= 2


def test_rank_quality_reviews_length_and_id_decide_in_this_order() -> None:
    same = [TEXT, TEXT + " ", TEXT]
    assert set(survivors(questions(same, rank=[1, None, 2])).values()) == {"c1"}
    assert set(survivors(questions(same, rank=[0, 0, 0], quality=[0.1, None, 0.9])).values()) == {"c2"}
    assert set(survivors(questions(same, review_count=[3, 2, None])).values()) == {"c0"}
    assert set(survivors(questions(same)).values()) == {"c1"}
    assert set(survivors(questions([TEXT] * 3)).values()) == {"c0"}


def test_the_ends_of_a_chain_both_survive() -> None:
    """c1 is similar to c0 and c2, which are not similar: c0 is best and drops c1; c2 is compared with c0 and survives."""
    words = sentence(Random(1), 120).split(" ")
    chain = [" ".join(words[i * 8 : i * 8 + 100]) for i in range(3)]
    similarity = [slow_jaccard(chain[a], chain[b]) for a, b in ((0, 1), (1, 2), (0, 2))]
    threshold = (similarity[0] + similarity[2]) / 2
    assert min(similarity[:2]) > threshold > similarity[2]
    assert survivors(questions(chain, rank=[0, 2, 1]), threshold) == {"c1": "c0"}
    assert survivors(questions(chain, rank=[1, 0, 2]), threshold) == {"c0": "c1", "c2": "c1"}


def test_documents_uncovered_by_a_dropped_one_are_compared_with_each_other() -> None:
    """c1 is similar to c0, c2 and c3, and c2 to c3: with c1 dropped for c0, c3 must be dropped for c2."""
    words = sentence(Random(2), 140).split(" ")
    texts = [" ".join(words[i : i + 100]) for i in (0, 8, 16, 17)]
    assert survivors(questions(texts, rank=[0, 1, 2, 3]), 0.8) == {"c1": "c0", "c3": "c2"}


def test_siblings_are_compared_by_what_follows_their_common_beginning() -> None:
    start, rng = sentence(Random(3), 200), Random(4)
    ends = [sentence(rng, 60) for _ in range(2)]
    talks = [conversation(start, ends[0]), conversation(start, ends[1]), conversation(start, ends[0] + " really")]
    frame = conversations(*({**talk, "tree_id": "one"} for talk in talks))
    assert survivors(frame) == {}
    assert survivors(frame, siblings=True) == {"c0": "c2"}
    assert len(survivors(conversations(*talks), 0.7)) == 1


def test_only_prompts_or_only_answers_can_be_compared() -> None:
    other = sentence(Random(5), 60)
    frame = conversations(conversation(TEXT, other), conversation(TEXT, "no"), conversation("why", other))
    assert survivors(frame) == {}
    assert survivors(frame, compared="prompt") == {"c1": "c0"}
    assert survivors(frame, compared="answer") == {"c2": "c0"}
    assert survivors(conversations(conversation(), conversation(), conversation("a")), compared="answer") == {}


ODD = [
    [],
    [""],
    ["", " ", "\n"],
    ["a", "b", "!", "?"],
    ["♜♞♝♛", "♜♞♝♚"],
    ["👍", "👎", "e\u0301", "\u05d0\u05d1"],
    [sentence(Random(i), 30) for i in range(50)],
]


@pytest.mark.parametrize("texts", ODD)
def test_texts_that_are_not_similar_are_all_kept(texts: list[str]) -> None:
    frame = questions(texts) if texts else questions(["a"]).clear()
    kept, fates, *_ = drop_near_duplicates(frame)
    assert kept["id"].to_list() == frame["id"].to_list() and fates.is_empty()


@pytest.mark.parametrize("text", ["a", "狐", "♜♞♝", "a" * 100_000, "a " * 50_000, TEXT])
def test_one_of_forty_equal_texts_survives(text: str) -> None:
    assert survivors(questions([text] * 40)) == {f"c{i}": "c0" for i in range(1, 40)}


def test_characters_are_the_words_of_scripts_without_spaces() -> None:
    text = "我们都知道机器学习模型需要大量干净的数据才能得到好的结果所以数据清洗很重要"
    assert survivors(questions([text, text.replace("所以", "。")])) == {}
    assert survivors(questions([text, text.replace("很重要", "很重要。")])) == {"c0": "c1"}


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.01])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(RecipeError, match="above 0 and up to 1"):
        drop_near_duplicates(questions(["a"]), threshold)


def copies_of_copies(seed: int) -> list[str]:
    """Return originals, and copies of copies of them at any similarity."""
    rng = Random(seed)
    texts = [sentence(rng, rng.randrange(5, 80)) for _ in range(20)]
    for _ in range(60):
        texts.append(edited(rng, rng.choice(texts), rng.choice((0, 0.01, 0.03, 0.06, 0.2))))
    return texts


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.7, 0.8, 0.95]))
def test_no_conversation_is_lost_and_every_survivor_is_similar_whatever_the_order(seed: int, threshold: float) -> None:
    texts = copies_of_copies(seed)
    rng = Random(seed)
    frame = questions(texts, rank=[rng.choice((None, 0, 1)) for _ in texts])
    kept, fates, *_ = drop_near_duplicates(frame, threshold)
    text_of = dict(zip(frame["id"], texts, strict=True))
    assert sorted(kept["id"].to_list() + fates["id"].to_list()) == sorted(frame["id"])
    assert set(fates["survivor"]) <= set(kept["id"])  # so each group keeps one
    for lost, survivor, similarity in fates.select("id", "survivor", "similarity").rows():
        assert similarity == pytest.approx(slow_jaccard(text_of[lost], text_of[survivor])) and similarity >= threshold
    assert drop_near_duplicates(kept, threshold)[1].is_empty()
    shuffled = frame[np.random.default_rng(seed).permutation(len(frame))]
    assert survivors(shuffled, threshold) == survivors(frame, threshold)


def test_all_similar_copies_are_found_and_no_others() -> None:
    rng = Random(9)
    texts = [sentence(rng, rng.randrange(25, 120)) for _ in range(300)]
    copies = [edited(rng, text, 0.06 * rng.random()) for text in texts]
    expected = {f"c{i}" for i, (a, b) in enumerate(zip(texts, copies, strict=True)) if slow_jaccard(a, b) >= 0.8}
    recalled = {name for pair in survivors(questions(texts + copies)).items() for name in pair} & {
        f"c{i}" for i in range(300)
    }
    assert len(expected) > 100 and recalled == expected


@pytest.mark.real
def test_planted_copies_of_real_threads_are_dropped_and_siblings_are_kept(real: Path) -> None:
    reading = read(find_files([str(real / "oasst/oasst1_en_validation_messages.jsonl")]))
    threads, *_ = choose_threads(reading.messages, "all")
    threads = threads.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
    assert len(threads) > 500
    # Hardly any real threads are similar, so copies are planted: they lack the last words of their last message.
    last = pl.col("messages").list.last().struct["content"].str.split(" ")
    long = threads.filter(last.list.len() > 60).gather_every(5)
    cut = pl.struct(
        role=pl.element().struct["role"], content=pl.element().struct["content"].str.replace(r"(\s+\S+){3}\s*$", "")
    )
    copies = long.with_columns(
        pl.col("messages").list.eval(cut),
        row=pl.int_range(pl.len(), dtype=pl.Int64) + len(threads),
        id=pl.format("copy-{}", "id"),
        tree_id=pl.format("copy-{}", "tree_id"),
    )
    threads = pl.concat([threads, copies])
    texts = dict(zip(threads["id"], documents(threads), strict=True))
    kept, fates, *_ = drop_near_duplicates(threads)
    trees = dict(threads.select("id", "tree_id").rows())
    assert len(fates) > 0.9 * len(copies) > 20
    for lost, survivor, similarity in fates.select("id", "survivor", "similarity").rows():
        assert trees[lost] != trees[survivor]
        assert similarity == pytest.approx(slow_jaccard(texts[lost], texts[survivor]))
    assert len(kept) + len(fates) == len(threads)
    assert len(drop_near_duplicates(threads, siblings=True)[1]) >= len(fates)
