"""A model on the Hub: downloaded, gated, and read from the cache if the Hub cannot be reached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.commands import training
from tests.support.hub import Hub
from training.model.tiny import train_tokenizer

SHAPE = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 999,
}


def test_a_model_of_the_hub_is_downloaded_or_read_from_the_cache(small_build: Path, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["text"], ["<s>", "</s>"]).backend.to_str().encode()
    plan = ["plan", "--data", small_build, "--model", "org/model", "--gpu", "t4"]
    with Hub() as hub:
        hub.commit("org/model", {"config.json": json.dumps(SHAPE).encode(), "tokenizer.json": tokenizer})
        home: Any = hub.environment(tmp_path / "home")
        training(*plan, **home)  # without tokenizer.model, tokenizer_config.json and template
        hub.repositories["org/model"].gated = True
        other: Any = hub.environment(tmp_path / "other")
        done = training(*plan, check=1, **other)
        assert "org/model is gated" in done.stderr and "HF_TOKEN" in done.stderr and "Traceback" not in done.stderr
    training(*plan, **home | {"HF_HUB_OFFLINE": "1"})
    done = training(*plan, check=1, **home | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "none")})
    assert "is not in the cache" in done.stderr and "Traceback" not in done.stderr
