"""Token ids of rendered rows against Meta's rule for Llama 2, with the real tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from dataprep.build import build
from dataprep.common.progress import Progress
from dataprep.contract import open_build
from dataprep.recipe import Recipe
from dataprep.rendering import Renderer, load_template
from dataprep.rendering.rows import render_row
from dataprep.store.fates import read_fates
from tests.support.chats import Chat, chat, render_rows

pytestmark = pytest.mark.real

BOS, EOS = 1, 2


@pytest.fixture(scope="module")
def tokenizer(real: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(real / "llama2/tokenizer.json"))
    tokenizer.encode_special_tokens = True  # typed tokens are plain text, as in Meta's code
    return tokenizer


def ids_by_metas_rule(tokenizer: Tokenizer, messages: Chat) -> list[int]:
    """Encode each pair separately, as Meta's reference does; written from its description, not from a template."""
    if messages[0]["role"] == "system":
        system, first, *rest = messages
        merged = f"<<SYS>>\n{system['content']}\n<</SYS>>\n\n{first['content']}"
        messages = [{"role": "user", "content": merged}, *rest]
    ids: list[int] = []
    for user, answer in zip(messages[::2], messages[1::2], strict=True):
        pair = f"[INST] {user['content'].strip()} [/INST] {answer['content'].strip()} "
        ids += [BOS, *tokenizer.encode(pair, add_special_tokens=False).ids, EOS]
    return ids


def ids_of(tokenizer: Tokenizer, text: str, controls: Sequence[tuple[int, int]]) -> list[int]:
    """Encode the text between the controls piece by piece, and insert the controls' ids."""
    ids: list[int] = []
    position = 0
    for start, end in [*controls, (len(text), len(text))]:
        if start > position:
            ids += tokenizer.encode(text[position:start], add_special_tokens=False).ids
        if end > start:
            token_id = tokenizer.token_to_id(text[start:end])
            assert token_id is not None
            ids.append(token_id)
        position = end
    return ids


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("guanaco/openassistant_best_replies_eval.jsonl", {"control_tokens": "keep"}),
        ("guanaco/openassistant_best_replies_eval.jsonl", {"control_tokens": "keep", "system": "  Be kind. "}),
        ("oasst/oasst1_en_validation_messages.jsonl", {"paths": "all"}),
        ("oasst/en_100_tree.jsonl", {}),
        ("sharegpt/dummy_conversation.json", {}),
    ],
)
def test_the_ids_of_a_builds_rows_follow_metas_rule(
    real: Path, tmp_path: Path, tokenizer: Tokenizer, file: str, options: dict[str, Any]
) -> None:
    outcome = build(Recipe(source=(str(real / file),), gate="off", **options), tmp_path, "n", progress=Progress())
    assert outcome.path is not None
    rows = open_build(outcome.path).splits["train"].to_pylist()
    assert len(rows) >= 50
    for row in rows:
        controls = [(control["start"], control["end"]) for control in row["controls"]]
        assert ids_of(tokenizer, row["text"], controls) == ids_by_metas_rule(tokenizer, row["messages"])


def test_golden_dialogues_give_metas_ids(real: Path, tokenizer: Tokenizer) -> None:
    """Including those with typed markers and control tokens: text is cut only where the template wrote its tokens."""
    template = load_template("llama2")
    golden = json.loads((real / "llama2/golden_dialog_token_ids.json").read_text())
    assert len(golden) >= 9
    assert sum(case["unsafe"] for case in golden) >= 2
    assert any("</s>" in case["dialog"][-1]["content"] for case in golden)
    for case in golden:
        row = render_row(template, case["dialog"])
        assert ids_of(tokenizer, row.text, row.controls) == case["meta_ids"], case["dialog"]


def test_every_pair_of_the_guanaco_test_split_follows_metas_rule(real: Path, tokenizer: Tokenizer) -> None:
    lines = (real / "guanaco/openassistant_best_replies_eval.jsonl").read_text(encoding="utf-8").splitlines()
    turns_of_rows = [re.split(r"### (?:Human|Assistant):", json.loads(line)["text"])[1:] for line in lines]
    conversations = [chat(*turns[: len(turns) // 2 * 2]) for turns in turns_of_rows if len(turns) > 1]
    assert len(conversations) > 500
    rows = render_rows(Renderer(load_template("llama2")), conversations)
    for messages, row in zip(conversations, rows, strict=True):
        assert ids_of(tokenizer, row.text, row.controls) == ids_by_metas_rule(tokenizer, messages)
        trained = [row.text[start:end] for start, end in row.spans]
        assert trained == [f" {answer['content'].strip()} </s>" for answer in messages[1::2]]


def test_every_row_of_the_guanaco_test_split_is_kept_whole(real: Path, tmp_path: Path) -> None:
    """518 of 518 rows without a lost or moved character, by a parser of the file that shares no code with dataprep's."""
    file = real / "guanaco/openassistant_best_replies_eval.jsonl"
    outcome = build(Recipe(source=(str(file),), control_tokens="keep", gate="off"), tmp_path, "n", progress=Progress())
    assert outcome.path is not None
    assert outcome.summary["fates"]["kept"] + outcome.summary["fates"]["rules"].get("exact_duplicate", 0) == 518
    fates = {row["line"]: row for row in read_fates(outcome.path).to_dicts()}
    rows = {row["id"]: row for row in open_build(outcome.path).splits["train"].to_pylist()}
    removed_questions = 0
    for line, record in enumerate(file.open(), start=1):
        fate = fates[line]
        if fate["fate"] != "kept":
            assert fate["rule"] == "exact_duplicate"
            continue
        text = "".join(
            {"user": "### Human: ", "assistant": "### Assistant: "}[turn["role"]] + turn["content"]
            for turn in rows[fate["id"]]["messages"]
        )
        for repair in fate["repairs"]:
            assert repair["rule"] == "dangling_question"
            text += "### Human: " + repair["detail"]
            removed_questions += 1
        assert text == json.loads(record)["text"]
    assert removed_questions == 132
