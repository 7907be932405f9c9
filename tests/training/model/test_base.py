"""Gradients of the NF4 base with adapters: batching, checkpointing and evaluation do not change them."""

from __future__ import annotations

import torch

from tests.support.adapted import Adapted, gradients, randomise_adapters
from training.data.collate import collate
from training.memory.probe import restored_afterwards
from training.model.base import checkpoint_layers


def test_accumulated_batched_and_checkpointed_gradients_are_equal(adapted: Adapted) -> None:
    """One pass over all windows gives the same gradient as one pass for each."""
    model, windows, _ = adapted
    rows = [windows[number] for number in range(min(4, len(windows)))]
    device = torch.device("cpu")
    with restored_afterwards(model):
        randomise_adapters(model)
        whole = collate(rows, device)
        tokens = int((whole["labels"] >= 0).sum())
        batched = gradients(model, whole, tokens)
        model.zero_grad(set_to_none=True)
        for row in rows:
            accumulated = gradients(model, collate([row], device), tokens)
        model.zero_grad(set_to_none=True)
        model.train()
        checkpoint_layers(model, 1)
        checkpointed = gradients(model, whole, tokens)
        checkpoint_layers(model, 0)
    assert torch.allclose(batched, accumulated, atol=1e-5 * float(batched.abs().max()) + 1e-7)
    assert torch.allclose(batched, checkpointed, atol=1e-6)


def test_an_evaluation_pass_does_not_change_later_gradients(adapted: Adapted) -> None:
    """bitsandbytes repacks 4-bit weights on some CPUs at the first evaluation pass, unless it is switched off."""
    model, windows, _ = adapted
    inputs = collate([windows[0]], torch.device("cpu"))
    with restored_afterwards(model):
        randomise_adapters(model)
        model.train()
        before = gradients(model, inputs, 1)
        model.zero_grad(set_to_none=True)
        model.eval()
        with torch.no_grad():
            model(**inputs, use_cache=False, fused_lm_head=True)
        model.train()
        after = gradients(model, inputs, 1)
    assert torch.equal(before, after)
