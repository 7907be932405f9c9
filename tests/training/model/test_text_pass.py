"""Layers that text does not pass through get no adapters, and a model that cannot compute text alone is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BartConfig

from tests.support.tiny_models import tiny_mistral
from training.config import RunConfig
from training.errors import ModelError
from training.model.adapters import add_adapters
from training.model.text_pass import text_logits


@pytest.mark.parametrize("targets", ["all-linear", "k_proj,q_proj"])
def test_cross_attention_to_an_absent_encoder_gets_no_adapters(targets: str) -> None:
    torch.manual_seed(0)
    config = BartConfig(vocab_size=97, d_model=32, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32)
    model: Any = add_adapters(
        AutoModelForCausalLM.from_config(config), RunConfig(data=Path(), model="bart", lora_r=4, targets=targets)
    )
    adapted = {
        path.partition(".lora_")[0].rpartition("layers.0.")[2]
        for path, _ in model.named_parameters()
        if "lora_" in path
    }
    assert {"self_attn.k_proj", "self_attn.q_proj"} <= adapted
    assert not any("encoder_attn" in path for path in adapted)


def test_a_model_that_cannot_compute_text_alone_is_refused_with_its_own_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(**_: Any) -> None:
        raise ValueError("You have to specify pixel_values\nfor an image")

    model = tiny_mistral()
    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(ModelError, match=r"text alone \(You have to specify pixel_values\): use another model"):
        text_logits(model)
