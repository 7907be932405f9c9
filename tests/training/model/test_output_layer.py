"""Log-probabilities come from trl's fused output layer where it gives the model's own logits, and from all logits elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.tiny_models import tiny_config
from training.config import RunConfig
from training.model.adapters import add_adapters
from training.model.output_layer import computes_whole_logits, fuse_output_layer

IDS = torch.tensor([[5, 9, 40, 7, 8, 60, 3]])
LABELS = torch.tensor([[-100, -100, 40, 7, -100, 60, 3]])


def adapted(name: str, **values: Any) -> Any:
    """A tiny model with adapters, whose configuration has `values` that its forward pass does not read."""
    torch.manual_seed(0)
    base: Any = AutoModelForCausalLM.from_config(tiny_config(name, 97))
    for key, value in values.items():
        setattr(base.config, key, value)
    model = add_adapters(base, RunConfig(data=Path(), model="tiny", lora_r=4))
    fuse_output_layer(model)
    return model.eval()


@pytest.mark.parametrize(
    "values, whole", [({}, False), ({"logit_scale": 0.5}, True), ({"final_logit_softcapping": 0.5}, True)]
)
def test_the_log_probabilities_are_those_of_the_models_logits(values: dict[str, float], whole: bool) -> None:
    model = adapted("llama", **values)
    assert computes_whole_logits(model) == whole
    outputs = model(input_ids=IDS, labels=LABELS, fused_lm_head=True)
    expected = model(input_ids=IDS).logits[0, :-1].log_softmax(-1)[range(6), IDS[0, 1:]]
    trained = LABELS[:, 1:] >= 0
    assert torch.equal(outputs.label_mask, trained)
    assert torch.allclose(outputs.log_probs, expected[None] * trained, atol=1e-5)
    fuse_output_layer(model)  # as trl's trainer requires
    assert torch.equal(model(input_ids=IDS, labels=LABELS, fused_lm_head=True).log_probs, outputs.log_probs)
