"""The files by which stock `generate()` stops: generation_config.json, config.json and tokenizer_config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import RunError
from training.model.files import CONFIG, locate, read_json_object
from training.model.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

GENERATION_CONFIG = "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

# The class in tokenizer_config.json that transformers 4 and 5 both open with the same ids.
TOKENIZER_CLASS = "PreTrainedTokenizerFast"


def special_token_ids(base_model: str, revision: str | None, tokenizer: ChatTokenizer, folder: Path) -> dict[str, Any]:
    """`eos_token_id` (the template's end token, then the base model's own), and `pad_token_id` and `bos_token_id` if any.

    Args:
        folder: of the adapter, whose tokenizer_config.json names the three tokens.
    """
    saved = read_json_object(folder / TOKENIZER_CONFIG)
    end = tokenizer.id_of(saved["eos_token"])
    own = [number for number in _own_end_ids(base_model, revision) if number != end and 0 <= number < tokenizer.size]
    ids: dict[str, Any] = {"eos_token_id": [end, *own]}
    if saved.get("pad_token") not in (None, saved["eos_token"]):  # trl pads with the end token if there is no other
        ids["pad_token_id"] = tokenizer.backend.token_to_id(saved["pad_token"])
    if saved.get("bos_token"):
        ids["bos_token_id"] = tokenizer.backend.token_to_id(saved["bos_token"])
    return ids


def _own_end_ids(base_model: str, revision: str | None) -> list[int]:
    """The end token ids of the base model's generation_config.json, or else of its config.json."""
    for name in (GENERATION_CONFIG, CONFIG):
        path = locate(base_model, name, revision)
        if path is None:
            continue
        content = read_json_object(path)
        value = content.get("eos_token_id", (content.get("text_config") or {}).get("eos_token_id"))
        if value is not None:
            values = value if isinstance(value, list) else [value]
            return [number for number in values if type(number) is int]
    return []


def write_generation_config(folder: Path, base_model: str, revision: str | None, ids: Mapping[str, Any]) -> None:
    """Write generation_config.json: the base model's, with these special tokens."""
    path = locate(base_model, GENERATION_CONFIG, revision)
    content = read_json_object(path) if path is not None else {}
    content.pop("pad_token_id", None)  # the base model's may be a control token of the template
    _write(folder / GENERATION_CONFIG, content | dict(ids))


def make_tokenizer_portable(folder: Path) -> None:
    """Name the tokenizer class in tokenizer_config.json that transformers 4 opens too."""
    content = read_json_object(folder / TOKENIZER_CONFIG)
    for name in ("backend", "is_local", "local_files_only"):  # written by transformers 5 for itself
        content.pop(name, None)
    _write(folder / TOKENIZER_CONFIG, content | {"tokenizer_class": TOKENIZER_CLASS})


def check_stopping(folder: Path, end_token: str) -> None:
    """Open the saved files as stock transformers does, and check that generation stops at the template's end token.

    Raises:
        RunError: it would not.
    """
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    settings = GenerationConfig.from_pretrained(str(folder))
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(str(folder))
    end = tokenizer.convert_tokens_to_ids(end_token)
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    if tokenizer.eos_token != end_token or end not in ends or settings.pad_token_id == end:
        raise RunError(
            f"The files in {folder} would not stop generation at {end_token!r}: eos_token {tokenizer.eos_token!r}, "
            f"eos_token_id {settings.eos_token_id}, pad_token_id {settings.pad_token_id}; please report this."
        )


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
