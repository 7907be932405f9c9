"""Tokenizers for llama.cpp: SentencePiece models from a lone tokenizer.json, and names of pre-tokenizers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import REAL
from training.after.gguf_vocabulary import (
    adds_space_prefix,
    has_byte_fallback,
    pre_tokenizer_name,
    write_sentencepiece_model,
)
from training.errors import ModelError

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


def byte_level(**changes: Any) -> dict[str, Any]:
    return {"model": {"type": "BPE"}, "pre_tokenizer": {**BYTE_LEVEL, **changes}}


@pytest.mark.skipif(not REAL.is_dir(), reason="the Llama 2 tokenizer cannot be redistributed")
def test_llama_2s_lone_tokenizer_json_becomes_a_sentencepiece_model_with_the_same_ids(tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer

    shutil.copy(REAL / "llama2" / "tokenizer.json", tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    assert has_byte_fallback(tokenizer) and adds_space_prefix(tokenizer)
    write_sentencepiece_model(tmp_path)
    converted = SentencePieceProcessor()
    converted.LoadFromFile(str(tmp_path / "tokenizer.model"))
    original = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    lines = (REAL / "guanaco" / "openassistant_best_replies_eval.jsonl").read_text().splitlines()
    for line in lines[:100]:
        text = json.loads(line)["text"]
        assert converted.encode(text) == original.encode(text, add_special_tokens=False).ids
    assert converted.IsByte(converted.PieceToId("<0x0A>")) and converted.IsUnknown(0) and converted.IsControl(1)


def test_a_vocabulary_with_gaps_is_refused(tmp_path: Path) -> None:
    model = {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "vocab": {"<unk>": 0, "a": 2}, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
    with pytest.raises(ModelError, match="gaps"):
        write_sentencepiece_model(tmp_path)


def test_pre_tokenizers_that_llama_cpp_has_are_named_by_their_structure() -> None:
    split = {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False}
    digits = {"type": "Digits", "individual_digits": True}
    sequence = {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]}}
    assert pre_tokenizer_name(sequence) == "llama-bpe"
    split["pattern"] = {"Regex": LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")}
    assert pre_tokenizer_name(sequence) == "qwen2"
    split["pattern"] = {"Regex": r"\s+"}
    assert pre_tokenizer_name(sequence) is None
    sequence["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, {**BYTE_LEVEL, "use_regex": True}]}
    assert pre_tokenizer_name(sequence) == "smollm"
    assert pre_tokenizer_name(byte_level(use_regex=True)) == "gpt-2"
    assert pre_tokenizer_name({"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Whitespace"}}) is None


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
