"""`--model tiny`: a small random Llama and a tokenizer trained on the build, to run the whole path without a download."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataprep.contract import Build
from training.model.runtime import forked_random_state
from training.model.tokenizer import ChatTokenizer
from training.run_folder import write_errors

VOCABULARY = 1024
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}
TOKENIZER_ROWS = 2000  # rows that the tokenizer is trained on
INITIALIZER_RANGE = 0.08  # larger than usual, so that adapters alone can teach the model something in a few steps


def train_tokenizer(texts: Iterable[str], special: Iterable[str], size: int = VOCABULARY) -> ChatTokenizer:
    """Train a byte-level BPE tokenizer, which can encode any text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokens = [AddedToken(token, special=True, normalized=False) for token in dict.fromkeys(["<pad>", *special])]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True
    return ChatTokenizer(tokenizer, {"pad_token": "<pad>"}, None)


def tokenizer_for(table: pa.Table, template: dict[str, Any]) -> ChatTokenizer:
    """Train a tokenizer on the first rows of a build, with the special tokens of its template."""
    special = [token for token in (template.get("bos_token"), template["end_token"]) if token]
    texts = table.slice(0, TOKENIZER_ROWS)["text"].to_pylist()
    return train_tokenizer(texts, [*special, *template["special_tokens"]])


def write_model(folder: Path, build: Build, seed: int) -> None:
    """Write a random model and its tokenizer into `folder`; the same build and seed give the same bytes."""
    template = dict(build.manifest.template)
    tokenizer = tokenizer_for(build.splits["train"], template)
    with write_errors(f"The base model in {folder}", folder, "begin again"):
        _write(folder, tokenizer, template, seed)


def _write(folder: Path, tokenizer: ChatTokenizer, template: dict[str, Any], seed: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True)
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    tokens = {"pad_token": "<pad>", "eos_token": template["end_token"], "bos_token": template.get("bos_token")}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | {key: token for key, token in tokens.items() if token}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with forked_random_state(torch.device("cpu")):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=tokenizer.size,
            pad_token_id=tokenizer.id_of("<pad>"),
            bos_token_id=tokenizer.id_of(template.get("bos_token") or template["end_token"]),
            eos_token_id=tokenizer.id_of(template["end_token"]),
            initializer_range=INITIALIZER_RANGE,
            **SIZES,  # type: ignore[arg-type]
        )
        LlamaForCausalLM(config).save_pretrained(folder)
