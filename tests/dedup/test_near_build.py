"""Near-duplicates, benchmarks and splits in a whole build, and how the CLI shows them."""

from __future__ import annotations

import gzip
import json
import random
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest

from dataprep.cli.views import side_by_side
from dataprep.common.errors import InputError, RecipeError
from dataprep.common.text import plural
from dataprep.contract import open_build, read_manifest
from dataprep.dedup.jaccard import jaccard
from dataprep.dedup.leaks import similar_groups
from dataprep.dedup.normal_form import documents
from dataprep.store.fates import read_fates
from tests.support.builds import guanaco_file, guanaco_text, make_build
from tests.support.commands import dataprep
from tests.support.texts import leaks_between

WORDS = [
    "amber",
    "basin",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "islet",
    "jetty",
    "kelp",
    "lagoon",
    "marsh",
    "nectar",
    "otter",
    "pebble",
    "quartz",
    "reed",
]


def random_words(seed: int, length: int = 60) -> list[str]:
    rng = random.Random(seed)
    return [rng.choice(WORDS) + str(rng.randrange(40)) for _ in range(length)]


def with_new_end(words: list[str], changes: int) -> list[str]:
    return [*words[: len(words) - changes], *(f"changed{n}" for n in range(changes))]


@pytest.fixture
def source(tmp_path: Path) -> str:
    rows = [guanaco_text(f"question {n}", " ".join(random_words(n))) for n in range(40)]
    rows += [
        guanaco_text(f"question {n}", " ".join(with_new_end(random_words(n), 2))) for n in range(4)
    ]  # similarity 0.93: dropped
    rows += [
        guanaco_text(f"question {n}", " ".join(with_new_end(random_words(n), 8))) for n in range(10, 14)
    ]  # similarity 0.77: on one side
    return guanaco_file(tmp_path, rows)


def test_near_duplicates_are_dropped_with_survivor_and_exact_similarity(tmp_path: Path, source: str) -> None:
    outcome = make_build(tmp_path / "store", source=(source,))
    fates = read_fates(outcome.path).filter(rule="near_duplicate")
    assert fates.height == 4
    assert all(0.9 < similarity < 1 for similarity in fates["similarity"])
    assert set(fates["survivor"]) <= set(read_fates(outcome.path).filter(fate="kept")["id"])
    report = read_manifest(outcome.path).complete()["near_dup"]
    assert report is not None and (report["threshold"], report["dropped"]) == (0.8, 4)
    assert report["error_budget"]["recall"]
    assert report["algorithm"]
    off = make_build(tmp_path / "store", source=(source,), near_dup="off")
    assert (off.summary["rows"], off.summary["near_dup"]) == (48, None)
    assert make_build(tmp_path / "store", source=(source,), near_dup="0.75").summary["rows"] == 40
    assert off.version != outcome.version


@pytest.mark.parametrize("near_dup", ["0.8", "off"])
def test_similar_conversations_are_on_one_side_of_a_split(tmp_path: Path, source: str, near_dup: str) -> None:
    for seed in range(4):
        outcome = make_build(tmp_path / "store", source=(source,), split="test=0.4", seed=seed, near_dup=near_dup)
        proof = outcome.summary["split"]
        splits = {name: pl.DataFrame(table) for name, table in open_build(outcome.path).splits.items()}
        assert proof["tested"] == splits["test"].height > 0
        assert proof["proved_below"] == 0.7
        both = pl.concat([splits["train"], splits["test"]])
        train, test = splits["train"].height, splits["test"].height
        pairs = [(a, train + b) for a in range(train) for b in range(test)]
        left, right = pl.DataFrame(pairs, orient="row").to_numpy().T
        assert jaccard(documents(both), left, right).max() < 0.7


def test_a_leak_that_sketches_missed_is_moved_to_train_and_noted(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def every_row_alone(frame: pl.DataFrame, *more: object) -> object:
        return frame.select("row", group="row"), similar_groups(frame)[1]

    clean = make_build(tmp_path / "store", source=(source,), split="test=0.4", near_dup="off")
    monkeypatch.setattr(import_module("dataprep.build"), "similar_groups", every_row_alone)
    outcome = make_build(
        tmp_path / "store", source=(source,), split="test=0.4", near_dup="off", force=True, name="blind"
    )
    proof = outcome.summary["split"]
    assert proof["moved_to_train"] > 0 and clean.summary["split"]["moved_to_train"] == 0
    assert any(
        note.startswith(plural(proof["moved_to_train"], "row") + " planned for test")
        for note in outcome.summary["notes"]
    )
    splits = {name: pl.DataFrame(table) for name, table in open_build(outcome.path).splits.items()}
    assert leaks_between(splits["train"], splits["test"]).is_empty()
    assert proof["tested"] == splits["test"].height > 0
    assert clean.summary["near_dup"] is None and clean.summary["split"]["error_budget"]["recall"]


def test_a_leak_that_remains_fails_the_build(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def always_one_leak(frame: pl.DataFrame, is_test: pl.Series, *more: object) -> pl.DataFrame:
        sides = {"test": frame.filter(is_test)["id"][:1], "train": frame.filter(~is_test)["id"][:1]}
        return pl.DataFrame({**sides, "similarity": [0.9]})

    monkeypatch.setattr(import_module("dataprep.build"), "find_leaks", always_one_leak)
    with pytest.raises(
        InputError, match=r"--split leaks: .* in test and .* in train are near-duplicates \(similarity 0.900\)"
    ):
        make_build(tmp_path / "store", source=(source,), split="test=20")
    assert not list((tmp_path / "store").glob("n/*/manifest.json"))


def test_conversations_that_hold_a_benchmark_item_are_dropped(tmp_path: Path, source: str) -> None:
    bench = tmp_path / "bench.jsonl.gz"
    item = {"turns": [{"prompt": " ".join(random_words(20, 60))}]}
    bench.write_bytes(gzip.compress(json.dumps(item).encode() + b"\n"))
    outcome = make_build(tmp_path / "store", source=(source,), decontaminate=(str(bench),))
    fates = read_fates(outcome.path).filter(rule="contaminated")
    assert fates["line"].to_list() == [21]
    assert "bench.jsonl.gz" in fates["detail"][0]
    assert outcome.version != make_build(tmp_path / "store", source=(source,)).version
    bench.write_bytes(gzip.compress(b'{"x": "another"}\n'))
    assert outcome.version != make_build(tmp_path / "store", source=(source,), decontaminate=(str(bench),)).version
    with pytest.raises(InputError, match="no benchmark file"):
        make_build(tmp_path / "store", source=(source,), decontaminate=("none.jsonl",))


def test_a_near_dup_option_that_is_no_similarity_is_refused(tmp_path: Path, source: str) -> None:
    for wrong in ("0", "1.5", "on", "nan"):
        with pytest.raises(RecipeError, match="--near-dup is"):
            make_build(tmp_path / "store", source=(source,), near_dup=wrong)


def test_duplicates_lists_clusters_and_why_shows_both_texts(tmp_path: Path, source: str) -> None:
    outcome = make_build(tmp_path / "store", source=(source,))
    listed = json.loads(dataprep("duplicates", outcome.path, "--json").stdout)
    assert listed["clusters"] == 4
    lost = listed["largest"][0]["members"][0]["id"]
    shown = dataprep("duplicates", outcome.path, "--limit", "1").stdout
    assert "4 near-duplicates in 4 clusters" in shown
    assert "3 more" in shown
    shown = dataprep("why", outcome.path, lost).stdout
    assert "near_duplicate" in shown
    assert "similarity 0.9" in shown
    assert "changed1" in shown
    assert listed["largest"][0]["survivor"] in shown
    assert listed["largest"][0]["why"].startswith("kept for its ")
    assert dataprep("duplicates", outcome.path, "--limit", "-1").returncode == 2
    without = make_build(tmp_path / "store", source=(source,), near_dup="off")
    assert "0 near-duplicates" in dataprep("duplicates", without.path).stdout


def test_why_follows_the_chain_of_survivors_to_its_end(tmp_path: Path) -> None:
    """An exact duplicate of a near-duplicate of a conversation that was not sampled."""
    words = random_words(0)
    rows = [guanaco_text("a question", " ".join([*words, *more])) for more in ([], ["and"], ["and", "more"])]
    rows.insert(1, guanaco_text("A  question", " ".join(words)))
    outcome = make_build(
        tmp_path / "store",
        source=(guanaco_file(tmp_path, [*rows, *(guanaco_text("q", str(n)) for n in range(9))]),),
        sample=1,
    )
    fates = read_fates(outcome.path)
    lost = fates.filter(rule="exact_duplicate")["id"][0]
    fate = json.loads(dataprep("why", outcome.path, lost, "--json").stdout)["fates"][0]
    assert [step["rule"] for step in fate["survivors"]][:1] == ["near_duplicate"]
    assert fate["survivors"][-1]["fate"] in ("not_sampled", "kept") and fate["survivors"][-1]["survivor"] is None
    shown = dataprep("why", outcome.path, lost).stdout
    assert all(step["id"] in shown for step in fate["survivors"]) and "by rule near_duplicate, duplicate of" in shown
    near = json.loads(dataprep("why", outcome.path, fate["survivors"][0]["id"], "--json").stdout)["fates"][0]
    assert near["messages"] != near["survivor_messages"] and near["messages"][0]["content"] == "A  question"


def test_two_long_texts_are_shown_side_by_side_fast_with_their_differences_marked() -> None:
    rng = random.Random(1)
    long = [f"w{rng.randrange(50)}" for _ in range(20_000)]
    other = [word if n % 100 else f"x{n}" for n, word in enumerate(long)]
    sides = [[{"role": "user", "content": " ".join(side)}] for side in (long, other)]
    side_by_side(sides[0], sides[1], "a", "b", plain=True)  # takes a second; comparing word by word would take minutes
    table = side_by_side(
        [{"role": "user", "content": "one two\n three"}], [{"role": "user", "content": "one 2 three"}], "a", "b", True
    )
    left, right = (next(iter(column.cells)) for column in table.columns)
    assert [str(left), str(right)] == ["⟦user: one⟧ two\n ⟦three⟧", "⟦user: one⟧ 2 ⟦three⟧"]


def test_too_little_memory_ends_the_build_with_one_sentence(tmp_path: Path, source: str) -> None:
    done = dataprep("build", "--source", source, "--store", tmp_path / "s", "--max-memory", "1MB")
    assert done.returncode == 1
    assert "--max-memory" in done.stderr and "or give --near-dup off" in done.stderr
    assert "Traceback" not in done.stderr
    more = ("--near-dup", "off", "--split", "test=5")
    done = dataprep("build", "--source", source, "--store", tmp_path / "s", "--max-memory", "1MB", *more)
    assert done.returncode == 1
    assert "--max-memory" in done.stderr and "or build without --split" in done.stderr


@pytest.mark.real
def test_a_split_of_real_threads_keeps_trees_whole(tmp_path: Path, real: Path) -> None:
    file = real / "oasst/oasst1_en_validation_messages.jsonl"
    outcome = make_build(tmp_path / "store", source=(str(file),), paths="all", split="test=0.2")
    splits = {name: pl.DataFrame(table) for name, table in open_build(outcome.path).splits.items()}
    assert splits["test"].height > 20
    assert not set(splits["train"]["tree_id"]) & set(splits["test"]["tree_id"])


@pytest.mark.real
def test_real_rows_share_little_with_a_real_benchmark(tmp_path: Path, real: Path) -> None:
    rows = real / "guanaco/openassistant_best_replies_eval.jsonl"
    bench = str(real / "benchmarks/mt_bench_questions.jsonl")
    outcome = make_build(tmp_path / "store", source=(str(rows),), decontaminate=(bench,))
    assert outcome.summary["fates"]["kept"] > 500  # they share a handful of questions at most
