"""Concatenate windows to one row of the model's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.encode import IGNORED
from training.model.attention import boundaries

if TYPE_CHECKING:
    import torch


def collate(windows: Sequence[dict[str, Any]], device: str | torch.device = "cpu") -> dict[str, Any]:
    """Concatenate windows without padding; does what trl's padding-free collator does, several times faster.

    The GPU waits for this function at every step.

    Returns:
        `input_ids` and `labels`, 1 x tokens each, and what `attention.boundaries` returns. The label of a conversation's
        first token is ignored, because no token before it predicts it.
    """
    import torch

    lengths = [length for window in windows for length in window["seq_lengths"]]
    ids, labels = (
        np.concatenate([np.array(window[name], np.int64) for window in windows]) for name in ("input_ids", "labels")
    )
    labels[np.cumsum([0, *lengths[:-1]])] = IGNORED
    tensors = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
    return {name: tensor[None].to(device) for name, tensor in tensors.items()} | boundaries(lengths, device)
