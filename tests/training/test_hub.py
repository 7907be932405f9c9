"""A model on the Hub: downloaded, gated, and read from the cache if the Hub cannot be reached."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.hub import Hub
from tests.support.publishing import called
from training.cli import main
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
    plan = ["plan", "--data", str(small_build), "--model", "org/model", "--gpu", "t4"]
    (home := tmp_path / "home").mkdir()
    (empty := tmp_path / "empty").mkdir()

    def plan_with(hub: Hub, home: Path, **environment: str) -> tuple[int, str]:
        """The exit code and stderr of a plan, with the cache in `home`."""
        code, _, err = called(main, "training", hub, home, *plan, **environment)
        assert "Traceback" not in err
        return code, err

    with Hub() as hub:
        hub.commit("org/model", {"config.json": json.dumps(SHAPE).encode(), "tokenizer.json": tokenizer})
        assert plan_with(hub, home)[0] == 0  # without tokenizer.model, tokenizer_config.json and template
        hub.repositories["org/model"].gated = True
        code, err = plan_with(hub, empty)
        assert code == 1 and "org/model is gated" in err and "HF_TOKEN" in err
    requests = len(hub.requests)
    assert plan_with(hub, home, HF_HUB_OFFLINE="1")[0] == 0
    code, err = plan_with(hub, empty, HF_HUB_OFFLINE="1")
    assert code == 1 and "is not in the cache" in err
    assert len(hub.requests) == requests
