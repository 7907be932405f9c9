"""A model's tokenizer, read so that it gives the ids its makers meant.

transformers rebuilds a Llama tokenizer from its class and ignores tokenizer.json's own normaliser: pieces after a
`<s>` lose their `▁`. So tokenizer.json is read by the library that defines it (`tokenizers`), and a lone SentencePiece
`tokenizer.model` is converted with each merge ranked by the score and id of the piece it makes, which is SentencePiece's
own order (https://github.com/google/sentencepiece, bpe_model.cc: the pair with the best result first, then the leftmost).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

CONFIG = "config.json"
FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja")

# Reserved tokens that models carry and never use, good to pad with.
SPARE_TOKENS = ("<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|endoftext|>", "<unk>")


@dataclass(frozen=True)
class ChatTokenizer:
    """A tokenizer and what is known of it. `facts` is the content of tokenizer_config.json, `{}` where there is none."""

    backend: Tokenizer
    facts: dict[str, Any]
    chat_template: str | None

    @cached_property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def sha256(self) -> str:
        """Digest of the tokenizer as `tokenizers` writes it: the same for the same ids, wherever it came from."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()

    def named(self, key: str) -> str | None:
        """The token that tokenizer_config.json names for `key` (`bos_token`, `eos_token`, …)."""
        token = self.facts.get(key)
        return token.get("content") if isinstance(token, dict) else token

    def id_of(self, token: str) -> int:
        """The id of a special token.

        Raises:
            ModelError: the tokenizer has no such token of its own.
        """
        number = self._special.get(token)
        if number is None:
            known = ", ".join(sorted(self._special)[:12])
            raise ModelError(
                f"The build's template writes the special token {token!r}, which the model's tokenizer lacks "
                f"(it has {known}): rebuild with a template of this model, or choose a model made for that template."
            )
        return number

    @cached_property
    def _special(self) -> dict[str, int]:
        return {token.content: number for number, token in self.backend.get_added_tokens_decoder().items()}

    def padding(self, end_token: str) -> str:
        """An existing token to pad with that is never the end token: else the model would not learn to stop.

        Raises:
            ModelError: there is no other special token.
        """
        wanted = [self.named("pad_token"), *SPARE_TOKENS, self.named("unk_token"), self.named("bos_token")]
        ends = {end_token, self.named("eos_token")}
        for token in [*wanted, *self._special]:
            if token in self._special and token not in ends:
                return str(token)
        raise ModelError(f"The tokenizer has no special token besides {end_token!r} that could pad: add a <pad> to it.")

    def for_transformers(self, end_token: str, template: str | None) -> PreTrainedTokenizerFast:
        """The same tokenizer as stock transformers takes and saves it; it writes no special token by itself."""
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        marks = {key: self.named(key) for key in ("bos_token", "unk_token") if self.named(key)}
        tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=Tokenizer.from_str(self.backend.to_str()),
            eos_token=end_token,
            pad_token=self.padding(end_token),
            padding_side="right",
            clean_up_tokenization_spaces=False,
            **marks,
        )
        tokenizer.chat_template = template if template is not None else self.chat_template
        return tokenizer


def load_tokenizer(model: str, revision: str | None = None) -> ChatTokenizer:
    """The tokenizer of a model's folder or of a repository on the Hugging Face Hub.

    Raises:
        ModelError: no such folder or repository, a gated one, or no tokenizer in it.
    """
    paths = {name: path for name in FILES if (path := locate(model, name, revision)) is not None}
    if "tokenizer.json" not in paths and "tokenizer.model" not in paths:
        where = (
            "there" if Path(model).expanduser().is_dir() else "on the Hub or, where that is out of reach, in its cache"
        )
        raise ModelError(f"{model} has no tokenizer: neither tokenizer.json nor tokenizer.model is {where}.")
    facts = read_json_object(paths["tokenizer_config.json"]) if "tokenizer_config.json" in paths else {}
    backend = (
        _from_json(paths["tokenizer.json"]) if "tokenizer.json" in paths else _from_model(paths["tokenizer.model"])
    )
    template = facts.pop("chat_template", None)
    if "chat_template.jinja" in paths:
        template = paths["chat_template.jinja"].read_text("utf-8")
    if "tokenizer.json" not in paths or not facts:
        facts = _usual_marks(backend) | facts
    return ChatTokenizer(backend, facts, template if isinstance(template, str) else None)


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a model's file.

    Raises:
        ModelError: it cannot be read, or is no object.
    """
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as fault:
        raise ModelError(f"{path} is no readable JSON object ({fault}).") from None


def locate(model: str, name: str, revision: str | None = None) -> Path | None:
    """The path of a model's file, downloaded where the model is on the Hub; None where it has no such file.

    Where the Hub is out of reach, a model whose config.json is in the cache has the files that are there too.

    Raises:
        ModelError: the model cannot be reached.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelError(f"There is no model folder {model}: give a folder, a Hub name such as owner/name, or tiny.")
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(hf_hub_download(model, name, revision=revision))
    except GatedRepoError:
        raise ModelError(
            f"{model} is gated: accept its licence on https://huggingface.co/{model} and set HF_TOKEN to your token."
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(f"There is no model {model} on the Hub, or HF_TOKEN may not read it.") from None
    except LocalEntryNotFoundError as fault:
        if isinstance(try_to_load_from_cache(model, CONFIG, revision=revision), str):
            return None
        raise ModelError(f"{model} cannot be fetched and is not in the cache ({str(fault).splitlines()[0]})") from None
    except EntryNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise ModelError(f"{model} cannot be read from the Hub ({str(fault).splitlines()[0]}).") from None


def _from_json(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return _bare(Tokenizer.from_file(str(path)))
    except Exception as fault:  # the Rust side raises nothing narrower
        raise ModelError(f"{path} is no readable tokenizer ({fault}).") from None


def _bare(tokenizer: Tokenizer) -> Tokenizer:
    """Without its own cutting and padding, and with typed special tokens left as text."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _from_model(path: Path) -> Tokenizer:
    """A SentencePiece BPE model as a `tokenizers` one.

    Raises:
        ModelError: not a SentencePiece model, or one of another kind than BPE with byte fallback.
    """
    from sentencepiece import sentencepiece_model_pb2 as proto
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    model: Any = proto.ModelProto()  # type: ignore[attr-defined]
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as fault:  # protobuf's DecodeError, by whichever implementation is installed
        raise ModelError(f"{path} is no SentencePiece model ({fault}).") from None
    trainer, rules = model.trainer_spec, model.normalizer_spec
    if trainer.model_type != trainer.BPE or rules.precompiled_charsmap or rules.remove_extra_whitespaces:
        raise ModelError(f"{path} is not a plain SentencePiece BPE model: convert it to a tokenizer.json first.")
    vocabulary = {piece.piece: number for number, piece in enumerate(model.pieces)}
    plain = {piece.piece for piece in model.pieces if piece.type in (piece.NORMAL, piece.USER_DEFINED)}
    # By score, then by id: the runs of spaces in Llama's model all have one score, far below all others.
    ranked = sorted(vocabulary, key=lambda piece: (-model.pieces[vocabulary[piece]].score, vocabulary[piece]))
    merges = [
        (piece[:cut], piece[cut:])
        for piece in ranked
        if piece in plain
        for cut in range(1, len(piece))
        if piece[:cut] in plain and piece[cut:] in plain
    ]
    bpe = models.BPE(
        vocabulary, merges, unk_token=model.pieces[trainer.unk_id].piece, fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(bpe)
    prefix = [normalizers.Prepend("▁")] if rules.add_dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if rules.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    controls = [piece.piece for piece in model.pieces if piece.type in (piece.CONTROL, piece.UNKNOWN)]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in controls])
    return _bare(tokenizer)


def _usual_marks(backend: Tokenizer) -> dict[str, Any]:
    """The marks of a tokenizer that comes without tokenizer_config.json, as Llama's family calls them."""
    usual = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return {key: token for key, token in usual.items() if backend.token_to_id(token) is not None}
