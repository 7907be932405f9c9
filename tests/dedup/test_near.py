"""Near-duplicates: only what is proven alike goes, for one that stays, whatever the order."""

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
from dataprep.dedup.components import connected_components
from dataprep.dedup.corpus import DOCUMENT_BYTES, Corpus, half_of_memory
from dataprep.dedup.near import drop_near_duplicates
from dataprep.dedup.normal_form import documents
from dataprep.dedup.prefix_filter import prefix_grams
from dataprep.dedup.recall import COPIES
from dataprep.sources.files import find_files
from dataprep.sources.reader import read
from dataprep.tables import CONVERSATIONS, FATES
from tests.support.frames import conversation, conversations
from tests.support.talks import edited, said, sentence, slow_jaccard

TEXT = sentence(Random(0), 60)


def victims(frame: pl.DataFrame, threshold: float = 0.8, **more: object) -> dict[str, str]:
    """Who of `frame` was dropped, and for whom."""
    fates = drop_near_duplicates(frame, threshold, **more)[1]  # type: ignore[arg-type]
    return dict(zip(fates["id"], fates["survivor"], strict=True))


def test_fates_report_and_order() -> None:
    frame = said(["z", TEXT, "y", TEXT.replace("w", "W") + "!", f"{TEXT} more", "x"])
    kept, fates, report = drop_near_duplicates(frame)
    assert kept["id"].to_list() == ["c0", "c2", "c4", "c5"] and kept.schema == pl.Schema(CONVERSATIONS)
    assert fates.schema == pl.Schema(FATES)
    assert fates.select("id", "fate", "stage", "rule", "survivor").rows() == [
        ("c1", "dropped", "dedup", "near_duplicate", "c4"),
        ("c3", "dropped", "dedup", "near_duplicate", "c4"),
    ]
    assert fates["similarity"].to_list() == [56 / 57] * 2
    assert fates["detail"][0] == "Alike to 'c4' (0.982 of their word 5-grams), which stays for its length."
    assert (report.dropped, report.candidates >= report.proven >= report.alike >= 2) == (2, True)


def test_who_survives() -> None:
    same = [TEXT, TEXT + " ", TEXT]
    assert set(victims(said(same, rank=[1, None, 2])).values()) == {"c1"}
    assert set(victims(said(same, rank=[0, 0, 0], quality=[0.1, None, 0.9])).values()) == {"c2"}
    assert set(victims(said(same, review_count=[3, 2, None])).values()) == {"c0"}
    assert set(victims(said(same)).values()) == {"c1"}
    assert set(victims(said([TEXT] * 3)).values()) == {"c0"}


def test_a_chain_joins_nobody() -> None:
    """c1 is alike to c0 and c2, which are not alike: c0 is best and takes c1; c2 is compared with c0 and stays."""
    words = sentence(Random(1), 120).split(" ")
    chain = [" ".join(words[i * 8 : i * 8 + 100]) for i in range(3)]
    alike = [slow_jaccard(chain[a], chain[b]) for a, b in ((0, 1), (1, 2), (0, 2))]
    threshold = (alike[0] + alike[2]) / 2
    assert min(alike[:2]) > threshold > alike[2]
    assert victims(said(chain, rank=[0, 2, 1]), threshold) == {"c1": "c0"}
    assert victims(said(chain, rank=[1, 0, 2]), threshold) == {"c0": "c1", "c2": "c1"}


def test_the_orphans_of_a_chain_are_compared_with_each_other() -> None:
    """Of four, a and b are alike, b and the two c's, and the two c's: with a and b settled, one c must go for the other."""
    words = sentence(Random(2), 140).split(" ")
    texts = [" ".join(words[i : i + 100]) for i in (0, 8, 16, 17)]
    assert victims(said(texts, rank=[0, 1, 2, 3]), 0.8) == {"c1": "c0", "c3": "c2"}


def test_siblings_are_compared_on_what_differs() -> None:
    start, rng = sentence(Random(3), 200), Random(4)
    ends = [sentence(rng, 60) for _ in range(2)]
    talks = [conversation(start, ends[0]), conversation(start, ends[1]), conversation(start, ends[0] + " really")]
    frame = conversations(*({**talk, "tree_id": "one"} for talk in talks))
    assert victims(frame) == {}
    assert victims(frame, siblings=True) == {"c0": "c2"}
    assert len(victims(conversations(*talks), 0.7)) == 1


def test_on_prompt_or_answer() -> None:
    other = sentence(Random(5), 60)
    frame = conversations(conversation(TEXT, other), conversation(TEXT, "no"), conversation("why", other))
    assert victims(frame) == {}
    assert victims(frame, compared="prompt") == {"c1": "c0"}
    assert victims(frame, compared="answer") == {"c2": "c0"}
    assert victims(conversations(conversation(), conversation(), conversation("a")), compared="answer") == {}


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
def test_nothing_alike_nothing_lost(texts: list[str]) -> None:
    frame = said(texts) if texts else said(["a"]).clear()
    kept, fates, _ = drop_near_duplicates(frame)
    assert kept["id"].to_list() == frame["id"].to_list() and fates.is_empty()


@pytest.mark.parametrize("text", ["a", "狐", "♜♞♝", "a" * 100_000, "a " * 50_000, TEXT])
def test_all_the_same(text: str) -> None:
    assert victims(said([text] * 40)) == {f"c{i}": "c0" for i in range(1, 40)}


def test_unspaced_script() -> None:
    text = "我们都知道机器学习模型需要大量干净的数据才能得到好的结果所以数据清洗很重要"
    assert victims(said([text, text.replace("所以", "。")])) == {}
    assert victims(said([text, text.replace("很重要", "很重要。")])) == {"c0": "c1"}


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.01])
def test_no_threshold(threshold: float) -> None:
    with pytest.raises(RecipeError, match="above 0"):
        drop_near_duplicates(said(["a"]), threshold)


def test_too_little_memory() -> None:
    with pytest.raises(RecipeError, match=r"2 conversations need \d+ MiB .* --max-memory allows 1 MiB"):
        drop_near_duplicates(said(["a", "b"]), max_memory=1 << 20)


def test_little_memory_takes_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Random(11)
    texts = [sentence(rng, 100) for _ in range(30)]
    texts += [edited(rng, text, 0.02) for text in texts]
    wanted = victims(said(texts))
    assert len(wanted) > 20 and victims(said(texts), max_memory=100 << 20) == wanted
    monkeypatch.setattr("dataprep.dedup.corpus.MIN_BATCH_BYTES", 1 << 12)
    for memory in (1 << 18, 1 << 20):
        assert victims(said(texts), max_memory=60 * DOCUMENT_BYTES + memory) == wanted


def test_long_texts_and_shared_ones_keep_the_bound() -> None:
    with pytest.raises(RecipeError, match=r"\(the longest has 4 MB\) but --max-memory allows 100 MiB"):
        drop_near_duplicates(said(["a " * 2_000_000, "b " * 2_000_000]), max_memory=100 << 20)
    corpus = Corpus(said(["a"]), "thread", DOCUMENT_BYTES + 100, "pray")
    many = prefix_grams(corpus.documents(np.arange(1)), np.arange(1), np.zeros(1 << 20, np.uint8), 0.8)
    with pytest.raises(RecipeError, match=r"share much of their text .* --max-memory allows; allow more, or pray\."):
        for _ in range(3):
            corpus.new_index(0.8).add(many.concatenated(many).concatenated(many))


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = half_of_memory()
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "some").write_text("4096\n")
    monkeypatch.setattr("dataprep.dedup.corpus.CGROUP_LIMITS", (str(tmp_path / "max"), str(tmp_path / "none")))
    assert half_of_memory() >= whole
    monkeypatch.setattr("dataprep.dedup.corpus.CGROUP_LIMITS", (str(tmp_path / "some"),))
    assert half_of_memory() == 2048


def salad(seed: int) -> list[str]:
    """Originals, and copies of copies of them at any similarity."""
    rng = Random(seed)
    texts = [sentence(rng, rng.randrange(5, 80)) for _ in range(20)]
    for _ in range(60):
        texts.append(edited(rng, rng.choice(texts), rng.choice((0, 0.01, 0.03, 0.06, 0.2))))
    return texts


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.7, 0.8, 0.95]))
def test_invariants(seed: int, threshold: float) -> None:
    texts = salad(seed)
    rng = Random(seed)
    frame = said(texts, rank=[rng.choice((None, 0, 1)) for _ in texts])
    kept, fates, _ = drop_near_duplicates(frame, threshold)
    text_of = dict(zip(frame["id"], texts, strict=True))
    assert sorted(kept["id"].to_list() + fates["id"].to_list()) == sorted(frame["id"])
    assert set(fates["survivor"]) <= set(kept["id"])  # so each cluster keeps one
    for gone, survivor, similarity in fates.select("id", "survivor", "similarity").rows():
        assert similarity == pytest.approx(slow_jaccard(text_of[gone], text_of[survivor])) and similarity >= threshold
    assert drop_near_duplicates(kept, threshold)[1].is_empty()
    shuffled = frame[np.random.default_rng(seed).permutation(len(frame))]
    assert victims(shuffled, threshold) == victims(frame, threshold)


def test_finds_all_and_only_what_is_alike() -> None:
    """Pairs of one original and one copy: by brute force over each."""
    rng = Random(9)
    texts = [sentence(rng, rng.randrange(25, 120)) for _ in range(300)]
    copies = [edited(rng, text, 0.06 * rng.random()) for text in texts]
    alike = {f"c{i}" for i, (a, b) in enumerate(zip(texts, copies, strict=True)) if slow_jaccard(a, b) >= 0.8}
    gone = {name for pair in victims(said(texts + copies)).items() for name in pair} & {f"c{i}" for i in range(300)}
    assert len(alike) > 100 and gone == alike


def test_error_budget_is_measured_and_stays_outside() -> None:
    rng = Random(10)
    frame = said([sentence(rng, 100) for _ in range(500)])
    kept, fates, report = drop_near_duplicates(frame)
    assert fates.is_empty() and kept.equals(frame)
    planted = {band.low: (band.planted, band.found) for band in report.error_budget.recall}
    assert sum(count for count, _ in planted.values()) > 0.8 * COPIES
    assert all(planted[low][0] == planted[low][1] > 20 for low in (0.8, 0.9))
    assert dict(report.error_budget.s_curve)[0.8] == pytest.approx(1 - (1 - 0.8**5) ** 25, abs=1e-5)
    assert drop_near_duplicates(frame)[2] == report


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_components(pairs: list[tuple[int, int]]) -> None:
    groups = [{i} for i in range(20)]
    for a, b in pairs:
        joined = groups[a] | groups[b]
        for member in joined:
            groups[member] = joined
    left, right = (np.array(side, np.intp) for side in (zip(*pairs, strict=True) if pairs else ([], [])))
    assert connected_components(20, left, right).tolist() == [min(group) for group in groups]


@pytest.mark.real
def test_real_threads(real: Path) -> None:
    """All threads of OASST1's English validation trees: siblings stay, unless they are asked about; then the proof holds."""
    reading = read(find_files([str(real / "oasst/oasst1_en_validation_messages.jsonl")]))
    threads, _ = choose_threads(reading.messages, "all")
    threads = threads.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
    assert len(threads) > 500
    # Hardly any of them are alike, so copies are planted: shorter by their last message's last few words.
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
    kept, fates, _ = drop_near_duplicates(threads)
    trees = dict(threads.select("id", "tree_id").rows())
    assert len(fates) > 0.9 * len(copies) > 20
    for gone, survivor, similarity in fates.select("id", "survivor", "similarity").rows():
        assert trees[gone] != trees[survivor]
        assert similarity == pytest.approx(slow_jaccard(texts[gone], texts[survivor]))
    assert len(kept) + len(fates) == len(threads)
    assert len(drop_near_duplicates(threads, siblings=True)[1]) >= len(fates)
