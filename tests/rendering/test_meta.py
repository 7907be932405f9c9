"""Token ids of rendered rows against Meta's rule for Llama 2, with the real tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from dataprep.build import build
from dataprep.common.progress import Progress
from dataprep.contract import open_build
from dataprep.recipe import Recipe
from dataprep.rendering import load_template
from dataprep.rendering.rows import render_row

pytestmark = pytest.mark.real

BOS, EOS = 1, 2


@pytest.fixture(scope="module")
def tokenizer(real: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(real / "llama2/tokenizer.json"))
    tokenizer.encode_special_tokens = True  # what is typed is text, as for Meta
    return tokenizer


def by_metas_rule(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> list[int]:
    """Each pair encoded on its own, as Meta's reference does; written from its description, not from a template."""
    if messages[0]["role"] == "system":
        system, first, *rest = messages
        merged = f"<<SYS>>\n{system['content']}\n<</SYS>>\n\n{first['content']}"
        messages = [{"role": "user", "content": merged}, *rest]
    ids: list[int] = []
    for user, answer in zip(messages[::2], messages[1::2], strict=True):
        pair = f"[INST] {user['content'].strip()} [/INST] {answer['content'].strip()} "
        ids += [BOS, *tokenizer.encode(pair, add_special_tokens=False).ids, EOS]
    return ids


def cut_at_controls(tokenizer: Tokenizer, text: str, controls: list[dict[str, int]]) -> list[int]:
    ids: list[int] = []
    at = 0
    for control in [*controls, {"start": len(text), "end": len(text)}]:
        if control["start"] > at:
            ids += tokenizer.encode(text[at : control["start"]], add_special_tokens=False).ids
        if control["end"] > control["start"]:
            ids.append(tokenizer.token_to_id(text[control["start"] : control["end"]]))
        at = control["end"]
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
def test_ids_equal_metas_rule(
    real: Path, tmp_path: Path, tokenizer: Tokenizer, file: str, options: dict[str, Any]
) -> None:
    outcome = build(Recipe(source=(str(real / file),), gate="off", **options), tmp_path, "n", progress=Progress())
    rows = open_build(outcome.path).splits["train"].to_pylist()
    assert len(rows) >= 50
    for row in rows:
        assert cut_at_controls(tokenizer, row["text"], row["controls"]) == by_metas_rule(tokenizer, row["messages"])


def test_golden_dialogues(real: Path, tokenizer: Tokenizer) -> None:
    """All of them, typed markers and control tokens included: cut where the template wrote its tokens, and nowhere else."""
    template = load_template("llama2")
    golden = json.loads((real / "llama2/golden_dialog_token_ids.json").read_text())
    assert len(golden) >= 9 and any("</s>" in case["dialog"][-1]["content"] for case in golden)
    for case in golden:
        row = render_row(template, case["dialog"])
        controls = [{"start": start, "end": end} for start, end in row.controls]
        assert cut_at_controls(tokenizer, row.text, controls) == case["meta_ids"], case["dialog"]


def test_every_row_of_the_guanaco_test_split_comes_through_whole(real: Path, tmp_path: Path) -> None:
    """518 of 518, no character lost or moved, against a reading of the file that shares no code with ours."""
    file = real / "guanaco/openassistant_best_replies_eval.jsonl"
    outcome = build(Recipe(source=(str(file),), control_tokens="keep", gate="off"), tmp_path, "n", progress=Progress())
    assert outcome.summary["fates"]["kept"] + outcome.summary["fates"]["rules"].get("exact_duplicate", 0) == 518
    from dataprep.store.shards import read_fates

    fates = {row["line"]: row for row in read_fates(outcome.path).to_dicts()}
    rows = {row["id"]: row for row in open_build(outcome.path).splits["train"].to_pylist()}
    cut = 0
    for line, record in enumerate(file.open(), start=1):
        fate = fates[line]
        if fate["fate"] != "kept":
            assert fate["rule"] == "exact_duplicate"
            continue
        again = "".join(
            {"user": "### Human: ", "assistant": "### Assistant: "}[turn["role"]] + turn["content"]
            for turn in rows[fate["id"]]["messages"]
        )
        for repair in fate["repairs"]:
            assert repair["rule"] == "dangling_question"
            again += "### Human: " + repair["detail"]
            cut += 1
        assert again == json.loads(record)["text"]
    assert cut == 132
