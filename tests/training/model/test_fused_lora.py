"""The fused LoRA step gives peft's gradients, and computes layers with one input together."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from bitsandbytes import functional

from tests.support.adapted import Adapted, fused, gradients, randomise_adapters
from training.data.collate import collate
from training.memory.probe import restored_afterwards
from training.model import fused_lora
from training.model.base import checkpoint_layers


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


def test_a_checkpointed_layer_does_not_compute_its_last_product_again(
    adapted: Adapted, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, windows, _ = adapted
    inputs = collate([windows[0]], torch.device("cpu"))
    dequantised: list[tuple[int, ...]] = []
    dequantize = functional.dequantize_4bit

    def counted(weight: torch.Tensor, state: Any) -> torch.Tensor:
        dequantised.append(tuple(state.shape))
        return dequantize(weight, state)

    monkeypatch.setattr(functional, "dequantize_4bit", counted)
    with restored_afterwards(model), fused(model):
        randomise_adapters(model)
        expected = gradients(model, inputs, 1)
        kept = list(dequantised)
        model.zero_grad(set_to_none=True)
        dequantised.clear()
        checkpoint_layers(model, 2)
        actual = gradients(model, inputs, 1)
        checkpoint_layers(model, 0)
    again = Counter(dequantised) - Counter(kept)
    assert again == {(128, 128): 2 * 2, (64, 128): 2 * 2, (256, 128): 2 * 2}  # q, o; k, v; gate, up; but not down
    assert (128, 256) in kept
    assert torch.equal(actual, expected)
