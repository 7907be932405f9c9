"""The fused LoRA step gives peft's gradients, and computes layers with one input together."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.adapted import Adapted, fused, gradients, randomise_adapters
from training.data.collate import collate
from training.memory.probe import restored_afterwards
from training.model import fused_lora


def test_fused_gradients_are_those_of_peft(adapted: Adapted) -> None:
    model, windows, _ = adapted
    inputs = collate([windows[0]], torch.device("cpu"))
    with restored_afterwards(model):
        randomise_adapters(model)
        expected = gradients(model, inputs, 1)
        model.zero_grad(set_to_none=True)
        with fused(model) as layers:
            actual = gradients(model, inputs, 1)
    assert layers == 14
    assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_layers_with_one_input_are_computed_together(adapted: Adapted, monkeypatch: pytest.MonkeyPatch) -> None:
    model, windows, _ = adapted
    sizes = []
    compute_group = fused_lora._compute_group

    def recorded(group: list[Any], x: torch.Tensor) -> list[torch.Tensor]:
        sizes.append(len(group))
        return compute_group(group, x)

    monkeypatch.setattr(fused_lora, "_compute_group", recorded)
    with restored_afterwards(model), fused(model):
        gradients(model, collate([windows[0]]), 1)
        forwards = [module.__dict__.get("forward") for module in model.modules()]
        shared = next(forward.shared for forward in forwards if isinstance(forward, fused_lora._FusedForward))
    assert sizes == [3, 1, 2, 1] * 2  # q, k, v; o; gate, up; down
    assert shared.source is None
    assert not shared.outputs
