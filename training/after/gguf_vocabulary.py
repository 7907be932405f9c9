"""The tokenizer of a model folder as llama.cpp's converter wants it: a SentencePiece model, or the name of a
pre-tokenizer.

llama.cpp knows two families of BPE. Tokenizers with byte fallback (Llama 2, Mistral, Gemma) are `llama` vocabularies:
pieces with scores, merged by the score of the piece that results. Byte-level tokenizers (GPT-2, Llama 3, Qwen) are
`gpt2` vocabularies: merges, and the name of a pre-tokenizer that is compiled into llama.cpp.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.errors import ModelError
from training.model.files import read_json_object

# Regular expressions of byte-level pre-tokenizers and llama.cpp's names for them (llama-vocab.cpp, llm_tokenizer_bpe).
_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {_LLAMA3: "llama-bpe", _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"): "qwen2"}

UNKNOWN, CONTROL, USER_DEFINED, BYTE, NORMAL = 2, 3, 4, 6, 1  # SentencePiece's ModelProto.SentencePiece.Type


def has_byte_fallback(tokenizer: dict[str, Any]) -> bool:
    """Whether a parsed tokenizer.json is a BPE with byte fallback, which llama.cpp reads as a SentencePiece model."""
    model = tokenizer.get("model") or {}
    return bool(model.get("type") == "BPE" and model.get("byte_fallback"))


def adds_space_prefix(tokenizer: dict[str, Any]) -> bool:
    """Whether a tokenizer puts a space before a text: by a `Prepend` normaliser or a `Metaspace` pre-tokenizer."""
    parts = [*_parts(tokenizer.get("normalizer")), *_parts(tokenizer.get("pre_tokenizer"))]
    return any(
        part.get("type") == "Prepend" or (part.get("type") == "Metaspace" and part.get("prepend_scheme") != "never")
        for part in parts
    )


def pre_tokenizer_name(tokenizer: dict[str, Any]) -> str | None:
    """llama.cpp's name for the pre-tokenizer of a byte-level tokenizer; None if llama.cpp has no equal one that is
    known here."""
    parts = _parts(tokenizer.get("pre_tokenizer"))
    kinds = [part.get("type") for part in parts]
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits") and parts[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not parts[1].get("use_regex", True):
        return _SPLITS.get((parts[0].get("pattern") or {}).get("Regex", ""))
    return None


def _parts(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A normaliser or pre-tokenizer as the list of its steps."""
    if not step:
        return []
    if step.get("type") == "Sequence":
        return list(step.get("normalizers") or step.get("pretokenizers") or [])
    return [step]


def write_sentencepiece_model(folder: Path) -> None:
    """Write `tokenizer.model` beside a lone tokenizer.json with byte fallback.

    A piece's score is minus the rank of the first merge that gives it, so merging by score follows the order of the
    merges. Llama 2's own model has the same order (its scores are minus the id less 259).

    Raises:
        ModelError: the vocabulary has gaps or no unknown token, which a SentencePiece model must have.
    """
    from sentencepiece import sentencepiece_model_pb2

    messages: Any = sentencepiece_model_pb2  # generated code without types

    tokenizer = read_json_object(folder / "tokenizer.json")
    model = tokenizer["model"]
    pieces = {index: piece for piece, index in model["vocab"].items()}
    added = {token["id"]: token for token in tokenizer.get("added_tokens", [])}
    pieces |= {index: token["content"] for index, token in added.items()}
    unknown = model["vocab"].get(model.get("unk_token") or "<unk>")
    if sorted(pieces) != list(range(len(pieces))) or unknown is None:
        raise ModelError(
            f"The vocabulary of {folder / 'tokenizer.json'} has gaps or no unknown token, "
            "so it cannot become a SentencePiece model."
        )
    rank: dict[str, int] = {}
    for position, merge in enumerate(model["merges"]):
        rank.setdefault("".join(merge.split(" ", 1) if isinstance(merge, str) else merge), position)
    last = len(model["merges"])
    proto = messages.ModelProto()
    proto.trainer_spec.model_type = messages.TrainerSpec.BPE
    proto.trainer_spec.byte_fallback = True
    proto.trainer_spec.vocab_size = len(pieces)
    proto.trainer_spec.unk_id, proto.trainer_spec.bos_id = unknown, -1
    proto.trainer_spec.eos_id = proto.trainer_spec.pad_id = -1
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = adds_space_prefix(tokenizer)
    proto.normalizer_spec.remove_extra_whitespaces = False
    # A loop over the vocabulary, tens of thousands of pieces, once for each export.
    for index in range(len(pieces)):
        text = pieces[index]
        proto.pieces.add(piece=text, score=float(-rank.get(text, last)), type=_piece_type(index, text, unknown, added))
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())


def _piece_type(index: int, text: str, unknown: int, added: dict[int, dict[str, Any]]) -> int:
    if index == unknown:
        return UNKNOWN
    if index in added:
        return CONTROL if added[index].get("special") else USER_DEFINED
    return BYTE if len(text) == 6 and text.startswith("<0x") and text.endswith(">") else NORMAL
