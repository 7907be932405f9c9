"""A model's tokenizer, read so that it gives the ids that the model was trained with.

transformers rebuilds a Llama tokenizer from its class and ignores tokenizer.json's own normaliser, so that pieces after a
`<s>` lose their `▁`. Therefore tokenizer.json is read by the library that defines it (`tokenizers`), and a lone
SentencePiece `tokenizer.model` is converted by `sentencepiece_model.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataprep.common.text import excerpt
from training.errors import ModelError
from training.model.files import locate, read_json_object
from training.model.sentencepiece_model import read_sentencepiece

if TYPE_CHECKING:
    from tokenizers import AddedToken, Encoding, Tokenizer
    from transformers import PreTrainedTokenizerFast

FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja")

# Reserved tokens that models carry without using them; any of them can be the padding token.
PADDING_CANDIDATES = (
    "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|endoftext|>", "<unk>",
)  # fmt: skip


@dataclass(frozen=True)
class ChatTokenizer:
    """A tokenizer with its special tokens and chat template. `config` is tokenizer_config.json, `{}` if missing."""

    backend: Tokenizer
    config: dict[str, Any]
    chat_template: str | None

    @cached_property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def sha256(self) -> str:
        """Digest of the tokenizer as `tokenizers` serialises it: the same for the same ids, whatever file it came from."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()

    def special_token(self, key: str) -> str | None:
        """The token that tokenizer_config.json has for `key` (`bos_token`, `eos_token`, …)."""
        token = self.config.get(key)
        return token.get("content") if isinstance(token, dict) else token

    def id_of(self, token: str) -> int:
        """The id of a special token.

        Raises:
            ModelError: the tokenizer has no such special token.
        """
        number = self._special.get(token)
        if number is None:
            available = ", ".join(sorted(self._special)[:12])
            raise ModelError(
                f"The build's template writes the special token {token!r}, which the model's tokenizer lacks "
                f"(it has {available}): rebuild with a template of this model, use a model made for that template, or add the "
                "token with --add-tokens."
            )
        return number

    def encode_whole(self, texts: list[str]) -> list[Encoding]:
        """Encode rendered texts as serving does: special tokens in the text become their ids."""
        self.backend.encode_special_tokens = False
        try:
            encodings: list[Encoding] = self.backend.encode_batch(texts, add_special_tokens=False)
        finally:
            self.backend.encode_special_tokens = True
        return encodings

    @cached_property
    def special_contents(self) -> frozenset[str]:
        """The texts that serving encodes as special tokens."""
        added = self.backend.get_added_tokens_decoder().values()
        return frozenset(token.content for token in added if token.special)

    @cached_property
    def stripping(self) -> dict[int, AddedToken]:
        """Added tokens that absorb the white space before (`lstrip`) or after them (`rstrip`), by id."""
        added = self.backend.get_added_tokens_decoder().items()
        return {number: token for number, token in added if token.lstrip or token.rstrip}

    def _is_token(self, token: str | None) -> bool:
        return bool(token) and self.backend.token_to_id(str(token)) is not None

    @cached_property
    def _special(self) -> dict[str, int]:
        return {token.content: number for number, token in self.backend.get_added_tokens_decoder().items()}

    def padding_token(self, end_token: str, template_tokens: Collection[str] = ()) -> str | None:
        """An existing special token to pad with, or None if there is none.

        Never the end token, which the model would not learn to write, nor another token that the template writes.
        """
        configured = [self.special_token("pad_token"), *PADDING_CANDIDATES, self.special_token("unk_token")]
        own_ends = [self.special_token("eos_token"), self.special_token("bos_token")]
        used = {end_token, *template_tokens}
        for token in [*configured, *own_ends, *self._special]:
            if token in self._special and token not in used:
                return str(token)
        return None

    def padding_id(self, end_token: str, template_tokens: Collection[str] = ()) -> int:
        """The id to pad prompts with; that of the end token if there is no padding token, because padding is masked."""
        return self.id_of(self.padding_token(end_token, template_tokens) or end_token)

    def for_transformers(
        self,
        end_token: str,
        template: str | None,
        template_tokens: Collection[str] = (),
        bos_token: str | None = None,
    ) -> PreTrainedTokenizerFast:
        """The same tokenizer as a transformers object, which can be saved; it adds no special token by itself.

        Args:
            template: the chat template; None for the model's own.
            template_tokens: special tokens that the template writes, which are not used for padding.
            bos_token: the template's, which it may write by this name; None or "" for the model's own.
        """
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        named = {
            "bos_token": [bos_token, self.special_token("bos_token")],
            "unk_token": [self.special_token("unk_token")],
        }
        special = {
            name: token for name, tokens in named.items() if (token := next(filter(self._is_token, tokens), None))
        }
        tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=Tokenizer.from_str(self.backend.to_str()),
            eos_token=end_token,
            pad_token=self.padding_token(end_token, template_tokens),
            padding_side="right",
            clean_up_tokenization_spaces=False,
            **special,
        )
        tokenizer.chat_template = template if template is not None else self.chat_template
        return tokenizer


def written_tokens(template: str, manifest: Mapping[str, Any], texts: Iterable[str]) -> list[str]:
    """The special tokens that a chat template writes: those in its source, by name or as text, and those in rendered texts.

    A template's list of special tokens also has those that a text may not hold, such as a padding token.

    Args:
        template: Jinja.
        manifest: the build's entry of the template.
        texts: some that the template rendered.
    """
    source = re.sub(r"\{#.*?#\}", "", template, flags=re.DOTALL)
    named = {manifest.get(name) for name in ("bos_token", "eos_token") if name in source}
    sources = [source, *texts]
    return [token for token in manifest["special_tokens"] if token in named or any(token in text for text in sources)]


def self_contained(template: str, manifest: Mapping[str, Any]) -> str:
    """A chat template that writes the same text with a tokenizer whose eos_token is the template's end token."""
    eos_token = manifest.get("eos_token")
    if not eos_token or eos_token == manifest["end_token"] or "eos_token" not in template:
        return template
    return f"{{%- set eos_token = {json.dumps(eos_token, ensure_ascii=False)} -%}}" + template


def load_tokenizer(model: str, revision: str | None = None) -> ChatTokenizer:
    """Load the tokenizer of a model folder or of a model on the Hugging Face Hub.

    Raises:
        ModelError: the model does not exist, is gated, or has no tokenizer.
    """
    paths = {name: path for name in FILES if (path := locate(model, name, revision)) is not None}
    if "tokenizer.json" in paths:
        backend = _read_tokenizer_json(paths["tokenizer.json"])
    elif "tokenizer.model" in paths:
        backend = read_sentencepiece(paths["tokenizer.model"])
    else:
        where = "its folder" if Path(model).expanduser().is_dir() else "the Hub repository or the local cache"
        raise ModelError(f"{model} has no tokenizer: there is no tokenizer.json or tokenizer.model in {where}.")
    config = read_json_object(paths["tokenizer_config.json"]) if "tokenizer_config.json" in paths else {}
    template = config.pop("chat_template", None)
    if "chat_template.jinja" in paths:
        template = paths["chat_template.jinja"].read_text("utf-8")
    if "tokenizer.json" not in paths or not config:
        config = _default_special_tokens(backend) | config
    return ChatTokenizer(_plain(backend), config, template if isinstance(template, str) else None)


def _read_tokenizer_json(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises Exception itself
        raise ModelError(f"{path} is not a readable tokenizer ({excerpt(str(error))}).") from None


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    """Switch truncation and padding off, and encode special tokens in the text as plain text."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _default_special_tokens(backend: Tokenizer) -> dict[str, Any]:
    """The special tokens of a tokenizer without tokenizer_config.json, by the names of the Llama family."""
    defaults = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return {key: token for key, token in defaults.items() if backend.token_to_id(token) is not None}
