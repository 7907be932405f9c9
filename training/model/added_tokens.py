"""Special tokens that a run adds to a model (--add-tokens): their ids, and the model's rows for them.

A token that the tokenizer has already is trained too; models often have rows for control tokens that were never trained, or
a tokenizer with more ids than the model has rows. A new row is the mean of the model's own rows, computed in float32, so
that the same base model is made again to resume, evaluate and merge. The run trains the rows of these tokens only (peft's
trainable tokens) and saves them with the adapter.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataprep.common.text import excerpt, plural
from training.config import RunConfig
from training.errors import OptionError
from training.model.tokenizer import ChatTokenizer, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from training.model.architecture import Architecture


MAX_TOKENS = 10_000
MAX_TOKEN = 200  # characters: tokenizers take minutes for a token of 100,000


def read_added_tokens(option: str | None) -> str | None:
    """--add-tokens with the content of a file in place of its name: one token a line, as run.json records it.

    Raises:
        OptionError: the file cannot be read, or there is no token, or more or longer ones than can be.
    """
    if option is None:
        return None
    path = Path(option).expanduser()
    if "\n" in option:  # as recorded
        tokens = option.splitlines()
    elif os.path.isfile(path):  # False where a list is too long for the name of a file
        try:
            tokens = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as fault:
            raise OptionError(f"--add-tokens: {path} cannot be read ({fault}).") from None
    else:
        tokens = option.split(",")
    tokens = list(dict.fromkeys(filter(None, map(str.strip, tokens))))
    if not tokens:
        raise OptionError(
            f"--add-tokens {excerpt(option)} names no token: give a file with one a line, or a list such as '<a>,<b>'."
        )
    if len(tokens) > MAX_TOKENS or max(map(len, tokens)) > MAX_TOKEN:
        raise OptionError(
            f"--add-tokens names {plural(len(tokens), 'token')}, the longest with {plural(max(map(len, tokens)), 'character')}: "
            f"at most {MAX_TOKENS:,} tokens of {MAX_TOKEN} characters can be added."
        )
    return "\n".join([*tokens, ""])


def added_tokens(config: RunConfig) -> list[str]:
    """The tokens of --add-tokens."""
    return (read_added_tokens(config.add_tokens) or "").splitlines()


def load_run_tokenizer(model: str, config: RunConfig) -> ChatTokenizer:
    """The tokenizer of a run: the base model's, with those tokens of --add-tokens as special tokens that it lacks.

    Raises:
        ModelError: the model has no tokenizer.
    """
    from tokenizers import AddedToken

    tokenizer = load_tokenizer(model, config.revision)
    new = [token for token in added_tokens(config) if token not in tokenizer.special_contents]
    tokenizer.backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in new])
    return ChatTokenizer(tokenizer.backend, tokenizer.config, tokenizer.chat_template)


def added_ids(model: str, config: RunConfig) -> tuple[int, ...]:
    """The ids of the added tokens."""
    tokens = added_tokens(config)
    if not tokens:
        return ()
    tokenizer = load_run_tokenizer(model, config)
    return tuple(tokenizer.id_of(token) for token in tokens)


def added_notes(config: RunConfig, tokenizer: ChatTokenizer) -> list[str]:
    """What a run says about --add-tokens."""
    tokens = added_tokens(config)
    if not tokens:
        return []
    named = ", ".join(f"{token} ({tokenizer.id_of(token)})" for token in tokens)
    return [f"Trained tokens: {named}. Their rows of the embeddings and the output layer are saved with the adapter."]


def with_added_rows(architecture: Architecture, tokenizer: ChatTokenizer, config: RunConfig) -> Architecture:
    """The architecture with a row for every token of --add-tokens."""
    rows = architecture.sizes.vocabulary
    needed = max((tokenizer.id_of(token) + 1 for token in added_tokens(config)), default=0)
    if needed <= rows:
        return architecture
    more = (needed - rows) * architecture.sizes.hidden * (1 if architecture.tied else 2)
    sizes = replace(architecture.sizes, vocabulary=needed, weights=architecture.sizes.weights + more)
    return replace(architecture, sizes=sizes)


def resize_for_added_tokens(base: Any, model: str, config: RunConfig) -> None:
    """Give the embeddings and the output layer of a loaded model a row for every added token, in place."""
    ids = added_ids(model, config)
    rows = int(base.get_input_embeddings().weight.shape[0])
    if not ids or max(ids) < rows:
        return
    base.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    output = base.get_output_embeddings()
    layers = {id(layer.weight): layer for layer in (base.get_input_embeddings(), output) if layer is not None}
    for layer in layers.values():  # one if they are tied
        layer.weight.data[rows:] = mean_row(layer.weight.data[:rows])


def mean_row(weight: Tensor) -> Tensor:
    """The mean of all rows, computed in float32, in the type of `weight`."""
    return weight.float().mean(0).to(weight.dtype)
