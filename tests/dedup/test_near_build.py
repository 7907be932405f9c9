"""Near-duplicates, benchmarks and splits in a whole build, and how they are told."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import polars as pl
import pytest

from dataprep.common.errors import InputError, RecipeError
from dataprep.common.terminal import side_by_side
from dataprep.contract import open_build, read_manifest
from dataprep.dedup.jaccard import pair_similarities
from dataprep.dedup.leaks import find_leaks, similar_groups
from dataprep.store.shards import read_fates
from tests.support.builds import guanaco_file, guanaco_text, make_build
from tests.support.commands import dataprep

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


def text(seed: int, length: int = 60) -> list[str]:
    chance = random.Random(seed)
    return [chance.choice(WORDS) + str(chance.randrange(40)) for _ in range(length)]


def near(words: list[str], changes: int) -> list[str]:
    return [*words[: len(words) - changes], *(f"changed{n}" for n in range(changes))]


@pytest.fixture
def source(tmp_path: Path) -> str:
    rows = [guanaco_text(f"question {n}", " ".join(text(n))) for n in range(40)]
    rows += [guanaco_text(f"question {n}", " ".join(near(text(n), 2))) for n in range(4)]  # 0.93 alike: dropped
    rows += [
        guanaco_text(f"question {n}", " ".join(near(text(n), 8))) for n in range(10, 14)
    ]  # 0.77 alike: on one side
    return guanaco_file(tmp_path, rows)


def test_near_duplicates_are_dropped_with_survivor_and_exact_similarity(tmp_path: Path, source: str) -> None:
    outcome = make_build(tmp_path / "store", source=(source,))
    fates = read_fates(outcome.path).filter(rule="near_duplicate")
    assert fates.height == 4
    assert all(0.9 < similarity < 1 for similarity in fates["similarity"])
    assert set(fates["survivor"]) <= set(read_fates(outcome.path).filter(fate="kept")["id"])
    told = read_manifest(outcome.path).facts["near_dup"]
    assert (told["threshold"], told["dropped"]) == (0.8, 4)
    assert told["error_budget"]["recall"]
    assert told["algorithm"]
    off = make_build(tmp_path / "store", source=(source,), near_dup="off")
    assert (off.summary["rows"], off.summary["near_dup"]) == (48, None)
    assert make_build(tmp_path / "store", source=(source,), near_dup="0.75").summary["rows"] == 40
    assert off.version != outcome.version


@pytest.mark.parametrize("near_dup", ["0.8", "off"])
def test_what_is_alike_is_on_one_side_and_test_is_proved_clean(tmp_path: Path, source: str, near_dup: str) -> None:
    for seed in range(4):
        outcome = make_build(tmp_path / "store", source=(source,), split="test=0.4", seed=seed, near_dup=near_dup)
        told = outcome.summary["split"]
        splits = {name: pl.DataFrame(table) for name, table in open_build(outcome.path).splits.items()}
        assert told["tested"] == splits["test"].height > 0
        assert told["proved_below"] == 0.7
        both = pl.concat([splits["train"], splits["test"]])
        train, test = splits["train"].height, splits["test"].height
        pairs = [(a, train + b) for a in range(train) for b in range(test)]
        left, right = pl.DataFrame(pairs, orient="row").to_numpy().T
        assert pair_similarities(both, "thread", left, right).max() < 0.7


def test_what_sketches_miss_is_moved_to_train_and_told(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(frame: pl.DataFrame, *more: object) -> object:
        return frame.select("row", group="row"), similar_groups(frame)[1]

    clean = make_build(tmp_path / "store", source=(source,), split="test=0.4", near_dup="off")
    monkeypatch.setattr("dataprep.build.similar_groups", blind)
    outcome = make_build(
        tmp_path / "store", source=(source,), split="test=0.4", near_dup="off", force=True, name="blind"
    )
    told = outcome.summary["split"]
    assert told["moved_to_train"] > 0 and clean.summary["split"]["moved_to_train"] == 0
    assert any(note.startswith(f"{told['moved_to_train']} rows planned for test") for note in outcome.summary["notes"])
    splits = {name: pl.DataFrame(table) for name, table in open_build(outcome.path).splits.items()}
    assert find_leaks(splits["train"], splits["test"]).is_empty()
    assert told["tested"] == splits["test"].height > 0
    assert clean.summary["near_dup"] is None and clean.summary["split"]["error_budget"]["recall"]


def test_a_leak_that_is_left_fails_the_build(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def leak(train: pl.DataFrame, test: pl.DataFrame, *more: object) -> pl.DataFrame:
        return pl.DataFrame({"test": test["id"][:1], "train": train["id"][:1], "similarity": [0.9]})

    monkeypatch.setattr("dataprep.build.find_leaks", leak)
    with pytest.raises(
        InputError, match=r"--split leaks: .* in test and .* in train are near-duplicates \(similarity 0.900\)"
    ):
        make_build(tmp_path / "store", source=(source,), split="test=20")
    assert not list((tmp_path / "store").glob("n/*/manifest.json"))


def test_benchmarks_are_kept_out(tmp_path: Path, source: str) -> None:
    bench = tmp_path / "bench.jsonl.gz"
    item = {"turns": [{"prompt": " ".join(text(20, 60))}]}
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


def test_a_threshold_that_is_none_is_refused(tmp_path: Path, source: str) -> None:
    for wrong in ("0", "1.5", "on", "nan"):
        with pytest.raises(RecipeError, match="--near-dup is"):
            make_build(tmp_path / "store", source=(source,), near_dup=wrong)


def test_clusters_and_both_texts_are_shown(tmp_path: Path, source: str) -> None:
    outcome = make_build(tmp_path / "store", source=(source,))
    listed = json.loads(dataprep("duplicates", outcome.path, "--json").stdout)
    assert listed["clusters"] == 4
    gone = listed["largest"][0]["members"][0]["id"]
    told = dataprep("duplicates", outcome.path, "--limit", "1").stdout
    assert "4 near-duplicates in 4 clusters" in told
    assert "3 more" in told
    told = dataprep("why", outcome.path, gone).stdout
    assert "near_duplicate" in told
    assert "similarity 0.9" in told
    assert "changed1" in told
    assert listed["largest"][0]["survivor"] in told
    assert listed["largest"][0]["why"].startswith("stays for its ")
    assert dataprep("duplicates", outcome.path, "--limit", "-1").returncode == 2
    none = make_build(tmp_path / "store", source=(source,), near_dup="off")
    assert "0 near-duplicates" in dataprep("duplicates", none.path).stdout


def test_survivors_are_followed_to_the_end(tmp_path: Path) -> None:
    """An exact duplicate of a near-duplicate of what was not sampled: each is told, and both texts are in the JSON."""
    words = text(0)
    rows = [guanaco_text("a question", " ".join([*words, *more])) for more in ([], ["and"], ["and", "more"])]
    rows.insert(1, guanaco_text("A  question", " ".join(words)))
    outcome = make_build(
        tmp_path / "store",
        source=(guanaco_file(tmp_path, [*rows, *(guanaco_text("q", str(n)) for n in range(9))]),),
        sample=1,
    )
    fates = read_fates(outcome.path)
    gone = fates.filter(rule="exact_duplicate")["id"][0]
    told = json.loads(dataprep("why", outcome.path, gone, "--json").stdout)["fates"][0]
    assert [fate["rule"] for fate in told["survivors"]][:1] == ["near_duplicate"]
    assert told["survivors"][-1]["fate"] in ("not_sampled", "kept") and told["survivors"][-1]["survivor"] is None
    shown = dataprep("why", outcome.path, gone).stdout
    assert all(fate["id"] in shown for fate in told["survivors"]) and "by rule near_duplicate, in its place" in shown
    near = json.loads(dataprep("why", outcome.path, told["survivors"][0]["id"], "--json").stdout)["fates"][0]
    assert near["messages"] != near["survivor_messages"] and near["messages"][0]["content"] == "A  question"


def test_both_texts_are_shown_fast_and_what_they_share_is_marked() -> None:
    chance = random.Random(1)
    long = [f"w{chance.randrange(50)}" for _ in range(20_000)]
    other = [word if n % 100 else f"x{n}" for n, word in enumerate(long)]
    sides = [[{"role": "user", "content": " ".join(side)}] for side in (long, other)]
    side_by_side(*sides, "a", "b", plain=True)  # a second; compared word by word, minutes
    table = side_by_side(
        [{"role": "user", "content": "one two\n three"}], [{"role": "user", "content": "one 2 three"}], "a", "b", True
    )
    left, right = (next(iter(column.cells)) for column in table.columns)
    assert [str(left), str(right)] == ["⟦user: one⟧ two\n ⟦three⟧", "⟦user: one⟧ 2 ⟦three⟧"]


def test_too_little_memory_is_one_sentence(tmp_path: Path, source: str) -> None:
    done = dataprep("build", "--source", source, "--store", tmp_path / "s", "--max-memory", "1MB")
    assert done.returncode == 1
    assert "--max-memory" in done.stderr and "or give --near-dup off" in done.stderr
    assert "Traceback" not in done.stderr
    more = ("--near-dup", "off", "--split", "test=5")
    done = dataprep("build", "--source", source, "--store", tmp_path / "s", "--max-memory", "1MB", *more)
    assert done.returncode == 1
    assert "--max-memory" in done.stderr and "or build without --split" in done.stderr


@pytest.mark.real
def test_real_threads_that_are_alike_stay_together(tmp_path: Path, real: Path) -> None:
    file = real / "oasst/oasst1_en_validation_messages.jsonl"
    outcome = make_build(tmp_path / "store", source=(str(file),), paths="all", split="test=0.2")
    splits = {name: pl.DataFrame(table) for name, table in open_build(outcome.path).splits.items()}
    assert splits["test"].height > 20
    assert not set(splits["train"]["tree_id"]) & set(splits["test"]["tree_id"])


@pytest.mark.real
def test_real_rows_against_a_real_benchmark(tmp_path: Path, real: Path) -> None:
    rows = real / "guanaco/openassistant_best_replies_eval.jsonl"
    bench = str(real / "benchmarks/mt_bench_questions.jsonl")
    outcome = make_build(tmp_path / "store", source=(str(rows),), decontaminate=(bench,))
    assert outcome.summary["fates"]["kept"] > 500  # questions in common are a handful at most
