"""Path policies choose the right threads of a tree, and every message and tree has a fate."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.curate.ledger import check_messages
from dataprep.curate.message_tree import Policy
from dataprep.curate.threads import choose_threads
from dataprep.sources.files import find_files
from dataprep.sources.reader import read
from tests.support.frames import tree_messages

TREE: list[dict[str, Any]] = [
    {"id": "q"},
    {"id": "a0", "parent": "q", "rank": 1},
    {"id": "a1", "parent": "q", "rank": 0},
    {"id": "q0", "parent": "a0", "role": "user"},
    {"id": "q1", "parent": "a1", "role": "user"},
    {"id": "b1", "parent": "q1"},
]


def paths(frame: pl.DataFrame) -> list[list[str]]:
    return frame["message_ids"].to_list()


def rules(fates: pl.DataFrame) -> dict[str, str]:
    """The rule of each id, without the fates of messages on a path."""
    return dict(fates.filter(pl.col("rule") != "on_path").select("id", "rule").rows())


def test_guanaco_follows_the_first_reply_in_file_order() -> None:
    chosen, fates, *_ = choose_threads(tree_messages(*TREE), "guanaco")
    assert paths(chosen) == [["q", "a0", "q0"]]
    assert chosen["id"].to_list() == ["q0"]
    assert rules(fates) == {"a1": "off_path", "q1": "off_path", "b1": "off_path"}


def test_reviewed_follows_the_best_rank() -> None:
    chosen, fates, *_ = choose_threads(tree_messages(*TREE), "reviewed")
    assert paths(chosen) == [["q", "a1", "q1", "b1"]]
    assert rules(fates) == {"a0": "off_path", "q0": "off_path"}


@pytest.mark.parametrize(
    ("fault", "rule"), [({"deleted": True}, "deleted_reply"), ({"review_result": False}, "rejected_reply")]
)
def test_reviewed_skips_deleted_and_rejected_replies(fault: dict[str, bool], rule: str) -> None:
    rows: list[dict[str, Any]] = [{**row, **(fault if row["id"] == "a1" else {})} for row in TREE]
    chosen, fates, *_ = choose_threads(tree_messages(*rows), "reviewed")
    assert paths(chosen) == [["q", "a0", "q0"]]
    assert rules(fates)["a1"] == rule
    assert paths(choose_threads(tree_messages(*rows), "guanaco")[0]) == [["q", "a0", "q0"]]


def test_an_only_child_needs_no_rank_and_a_missing_rank_comes_after_all_ranks() -> None:
    only = tree_messages({"id": "q"}, {"id": "a", "parent": "q"})
    assert paths(choose_threads(only, "reviewed")[0]) == [["q", "a"]]
    mixed = tree_messages({"id": "q"}, {"id": "a", "parent": "q"}, {"id": "b", "parent": "q", "rank": 3})
    assert paths(choose_threads(mixed, "reviewed")[0]) == [["q", "b"]]


def test_all_returns_a_path_to_every_leaf() -> None:
    chosen, fates, *_ = choose_threads(tree_messages(*TREE), "all")
    assert sorted(paths(chosen)) == [["q", "a0", "q0"], ["q", "a1", "q1", "b1"]]
    assert not rules(fates)


def test_every_line_of_a_flat_file_has_exactly_one_fate() -> None:
    rows: list[dict[str, Any]] = [
        *TREE,
        {"id": "lost", "parent": "nobody"},
        {"id": "r", "tree": "u", "tree_state": "aborted_low_grade"},
    ]
    rows.append({"id": "s", "parent": "r", "tree": "u", "tree_state": "aborted_low_grade"})
    expected: list[tuple[Policy, set[str] | None]] = [
        ("reviewed", {"a1", "q1", "b1"}),
        ("guanaco", {"a0", "q0"}),
        ("all", None),
    ]
    for policy, held in expected:
        chosen, fates, *_ = choose_threads(tree_messages(*rows), policy)
        lines = [*chosen["line"].unique(), *fates["line"]]  # a conversation has its root's line
        assert sorted(lines) == list(range(1, len(rows) + 1)), policy
        on_path = fates.filter(rule="on_path")
        if held is not None:
            assert set(on_path["id"]) == held
        assert set(on_path["survivor"]) <= set(chosen["id"])
        if policy != "all":
            assert rules(fates)["s"] == rules(fates)["r"] == "tree_not_ready"


def test_the_lines_of_a_tree_may_be_in_different_files() -> None:
    refused: list[dict[str, Any]] = [
        {"id": "r", "tree_state": "aborted_low_grade"},
        {"id": "a", "parent": "r", "file": 1, "source": "b", "line": 1},
    ]
    chosen, fates, *_ = choose_threads(tree_messages(*refused), "reviewed")
    assert chosen.is_empty() and rules(fates) == {"r": "tree_not_ready", "a": "tree_not_ready"}
    again = [*({**row, "line": 1} for row in TREE), *({**row, "source": "b", "file": 1, "line": 1} for row in TREE)]
    again.append({"id": "new", "parent": "b1", "role": "user", "source": "b", "file": 1, "line": 1})
    _, fates, *_ = choose_threads(tree_messages(*again), "reviewed")
    assert fates.filter(source="b").select("rule", "line").rows() == [("repeated_tree", 1)]


def test_the_messages_on_the_path_of_a_one_line_tree_have_no_fates() -> None:
    chosen, fates, *_ = choose_threads(tree_messages(*({**row, "line": 1} for row in TREE)), "reviewed")
    assert paths(chosen) == [["q", "a1", "q1", "b1"]] and "on_path" not in fates["rule"]


def test_a_tree_with_a_deleted_prompt_is_dropped_whole_by_reviewed_only() -> None:
    rows: list[dict[str, Any]] = [{"id": "q", "deleted": True}, {"id": "a", "parent": "q"}]
    chosen, fates, *_ = choose_threads(tree_messages(*rows), "reviewed")
    assert chosen.is_empty()
    assert fates.select("kind", "rule").rows() == [("tree", "no_usable_path"), ("message", "no_usable_path")]
    assert paths(choose_threads(tree_messages(*rows), "guanaco")[0]) == [["q", "a"]]


def test_a_tree_that_is_not_ready_is_used_by_all_only() -> None:
    rows: list[dict[str, Any]] = [
        {"id": "q", "tree_state": "aborted_low_grade"},
        {"id": "a", "parent": "q", "tree_state": "aborted_low_grade"},
    ]
    policies: tuple[Policy, ...] = ("reviewed", "guanaco")
    for policy in policies:
        chosen, fates, *_ = choose_threads(tree_messages(*rows), policy)
        assert (chosen.height, fates["rule"].to_list()) == (0, ["tree_not_ready"] * 2)
    assert choose_threads(tree_messages(*rows), "all")[0].height == 1


def test_orphans_cycles_and_repeated_messages_have_fates_of_their_own() -> None:
    rows: list[dict[str, Any]] = [
        *TREE,
        {"id": "lost", "parent": "nobody"},
        {"id": "below", "parent": "lost"},
        {"id": "x", "parent": "y"},
        {"id": "y", "parent": "x"},
        {"id": "self", "parent": "self"},
        {"id": "a0", "parent": "q"},
    ]
    chosen, fates, *_ = choose_threads(tree_messages(*rows), "guanaco")
    assert paths(chosen) == [["q", "a0", "q0"]]
    rule_of = rules(fates)
    assert {rule_of["lost"], rule_of["below"]} == {"orphan"}
    assert {rule_of["x"], rule_of["y"], rule_of["self"]} == {"cycle"}
    assert rule_of["a0"] == "repeated_id"


def test_a_repeated_tree_has_one_fate_and_its_new_replies_join_the_first_copy() -> None:
    rows: list[dict[str, Any]] = [
        *({**row, "line": 1} for row in TREE),
        *({**row, "line": 2} for row in TREE),
        {"id": "new", "parent": "b1", "role": "user", "line": 2},
    ]
    chosen, fates, *_ = choose_threads(tree_messages(*rows), "reviewed")
    assert paths(chosen) == [["q", "a1", "q1", "b1", "new"]]
    assert fates.filter(kind="tree").select("rule", "line").rows() == [("repeated_tree", 2)]


def test_a_conversation_summarises_the_columns_of_its_messages() -> None:
    rows: list[dict[str, Any]] = [
        {"id": "q", "lang": "en", "review_count": 3, "review_result": True, "toxicity": 0.1},
        {"id": "a", "parent": "q", "lang": "de", "review_count": 2, "review_result": True, "quality": 0.5, "rank": 0},
        {
            "id": "r",
            "parent": "a",
            "role": "user",
            "review_count": 4,
            "review_result": True,
            "toxicity": 0.4,
            "quality": 0.1,
        },
        {"id": "b", "parent": "r", "review_count": 5, "review_result": None, "quality": 0.9, "rank": 2},
    ]
    chosen, *_ = choose_threads(tree_messages(*rows), "all")
    row = chosen.row(0, named=True)
    assert (row["lang"], row["rank"], row["review_count"], row["accepted"]) == ("en", 2, 2, None)
    assert row["quality"] == pytest.approx(0.5)  # the minimum over the answers
    assert row["toxicity"] == pytest.approx(0.4)  # the maximum over all messages
    assert row["helpfulness"] is None


trees = st.lists(
    st.tuples(
        st.integers(-2, 12), st.sampled_from([None, 0, 1, 2]), st.booleans(), st.sampled_from([None, True, False])
    ),
    min_size=1,
    max_size=14,
)


@given(trees, st.sampled_from(["reviewed", "guanaco", "all"]))
def test_every_message_is_on_a_path_or_has_a_fate(
    rows: list[tuple[int, int | None, bool, bool | None]], policy: Policy
) -> None:
    frame = tree_messages(
        *(
            {
                "id": str(n),
                "parent": None if parent == -1 else str(parent),
                "rank": rank,
                "deleted": deleted,
                "review_result": passed,
            }
            for n, (parent, rank, deleted, passed) in enumerate(rows)
        )
    )
    chosen, fates, *_ = choose_threads(frame, policy)
    check_messages(frame, chosen, fates)
    on_path = {message for path in paths(chosen) for message in path}
    off_path = set(fates.filter(pl.col("rule") != "on_path").filter(kind="message")["id"])
    assert sorted([*chosen["line"].unique(), *fates["line"]]) == list(range(1, len(rows) + 1))
    trees_with_fate = set(fates.filter(kind="tree")["id"])
    assert not on_path & off_path
    parents = dict(frame.select("message_id", "parent_id").rows())
    for message in frame["message_id"]:
        ancestors, at = set[str](), message
        while at is not None and at not in ancestors:
            ancestors.add(at)
            at = parents.get(at)
        if message not in on_path | off_path:
            assert ancestors & trees_with_fate


@pytest.mark.real
def test_the_guanaco_policy_yields_the_published_rows(real: Path) -> None:

    reading = read(find_files([str(real / "oasst/oasst1_en_validation_messages.jsonl")]))
    published = {json.loads(line)["text"] for line in (real / "guanaco/openassistant_best_replies_eval.jsonl").open()}
    chosen, *_ = choose_threads(reading.messages, "guanaco")
    names = {"user": "### Human: ", "assistant": "### Assistant: "}
    texts = ["".join(names[turn["role"]] + turn["content"] for turn in turns) for turns in chosen["messages"].to_list()]
    assert len(texts) == 188
    assert all(text in published for text in texts)


@pytest.mark.real
def test_all_yields_the_same_paths_as_a_recursive_walk(real: Path) -> None:

    file = real / "oasst/oasst1_en_validation_messages.jsonl"
    children = defaultdict(list)
    for record in map(json.loads, file.open()):
        children[record["parent_id"]].append(record["message_id"])

    def paths_below(message: str, above: tuple[str, ...]) -> list[tuple[str, ...]]:
        path = (*above, message)
        return [p for child in children[message] for p in paths_below(child, path)] or [path]

    expected = {path for root in children[None] for path in paths_below(root, ())}
    chosen, *_ = choose_threads(read(find_files([str(file)])).messages, "all")
    assert {tuple(path) for path in paths(chosen)} == expected
