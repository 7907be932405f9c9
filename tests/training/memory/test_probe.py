"""The measured step leaves the model, the random states and bitsandbytes' lists as they were."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from bitsandbytes.functional import GlobalPageManager

from tests.support.adapted import Adapted
from training.memory import probe
from training.memory.batches import BatchConfig


def test_a_measured_step_restores_adapters_gradients_and_random_states(adapted: Adapted) -> None:
    model, windows, args = adapted

    def state() -> tuple[Any, ...]:
        weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        numpy_state: Any = np.random.get_state()
        return weights, random.getstate(), numpy_state[1].tolist(), torch.get_rng_state()

    before = state()
    probe.measure(model, args, probe.worst_batch(windows, 2), BatchConfig(2, 0, "adamw"))
    after = state()
    assert all(torch.equal(weight, after[0][name]) for name, weight in before[0].items())
    assert before[1:3] == after[1:3]
    assert torch.equal(before[3], after[3])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_measured_step_removes_its_paged_tensors_from_bitsandbytes_list(
    adapted: Adapted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU nothing is paged, so the pass adds a tensor itself."""
    model, windows, args = adapted
    manager: Any = GlobalPageManager.get_instance()
    monkeypatch.setattr(manager, "paged_tensors", [torch.zeros(1)])
    original = probe._forward_and_backward

    def with_a_paged_tensor(*arguments: Any) -> None:
        manager.paged_tensors.append(torch.zeros(2))
        original(*arguments)

    monkeypatch.setattr(probe, "_forward_and_backward", with_a_paged_tensor)
    probe.measure(model, args, probe.worst_batch(windows, 1), BatchConfig(1, 0, "adamw"), warm=1)
    assert len(manager.paged_tensors) == 1


def test_a_parameter_that_takes_no_part_is_named(adapted: Adapted) -> None:
    model, windows, args = adapted
    base: Any = model.get_base_model()
    layer = base.model.layers[0]
    layer.lora_unused = torch.nn.Parameter(torch.ones(1))
    try:
        measured = probe.measure(model, args, probe.worst_batch(windows, 1), BatchConfig(1, 0, "adamw"))
    finally:
        del layer.lora_unused
    assert [name.rpartition(".")[2] for name in measured.unused] == ["lora_unused"]
