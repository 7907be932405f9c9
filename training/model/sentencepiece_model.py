"""Converts a SentencePiece `tokenizer.model` to a tokenizer of the `tokenizers` library with the same ids.

transformers' own conversion gives other ids for runs of spaces. Here each merge is ranked by the score and id of the piece
that it makes, which is SentencePiece's own order (https://github.com/google/sentencepiece, bpe_model.cc: the pair with
the best result first, then the leftmost).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def read_sentencepiece(path: Path) -> Tokenizer:
    """Convert a SentencePiece BPE model.

    Raises:
        ModelError: not a SentencePiece model, or one of another kind than BPE with byte fallback.
    """
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf implementations each define their own DecodeError
        raise ModelError(f"{path} is not a SentencePiece model ({error}).") from None
    trainer, rules = proto.trainer_spec, proto.normalizer_spec
    if trainer.model_type != trainer.BPE or rules.precompiled_charsmap or rules.remove_extra_whitespaces:
        raise ModelError(f"{path} is not a plain SentencePiece BPE model: convert it to a tokenizer.json first.")
    pieces = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    bpe = models.BPE(
        pieces,
        _merges(proto, pieces),
        unk_token=proto.pieces[trainer.unk_id].piece,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(bpe)
    user_defined = [piece.piece for piece in proto.pieces if piece.type == piece.USER_DEFINED]
    if rules.add_dummy_prefix and user_defined:  # SentencePiece prepends to the text only, not after these pieces
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        prefix = [normalizers.Prepend("▁")] if rules.add_dummy_prefix else []
        tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if rules.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    controls = [piece.piece for piece in proto.pieces if piece.type in (piece.CONTROL, piece.UNKNOWN)]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in controls])
    # SentencePiece splits the text at these pieces before it merges. Runs of spaces are found among the merges.
    tokenizer.add_tokens(
        [AddedToken(piece, normalized=False, special=False) for piece in user_defined if "▁" not in piece]
    )
    return tokenizer


def _merges(proto: Any, pieces: dict[str, int]) -> list[tuple[str, str]]:
    """The merges by score, then by id: Llama's runs of spaces all have one score, far below all others."""
    plain = {piece.piece for piece in proto.pieces if piece.type in (piece.NORMAL, piece.USER_DEFINED)}
    ranked = sorted(pieces, key=lambda piece: (-proto.pieces[pieces[piece]].score, pieces[piece]))
    return [
        (piece[:cut], piece[cut:])
        for piece in ranked
        if piece in plain
        for cut in range(1, len(piece))
        if piece[:cut] in plain and piece[cut:] in plain
    ]
