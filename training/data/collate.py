"""Put windows together as the model's input: concatenated to one row, or padded to rows of one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.encode import IGNORED
from training.model.attention import boundaries

if TYPE_CHECKING:
    import torch


def collate(
    windows: Sequence[dict[str, Any]], device: str | torch.device = "cpu", *, packed: bool = True
) -> dict[str, Any]:
    """Concatenate windows without padding; does what trl's padding-free collator does, several times faster.

    The GPU waits for this function at every step. Without `packed`, each window holds one conversation and becomes a row.

    Returns:
        `input_ids` and `labels`, 1 x tokens each, and what `attention.boundaries` returns. The label of a conversation's
        first token is ignored, because no token before it predicts it. Without `packed`: rows x tokens, and
        `attention_mask` if the rows differ in length.
    """
    import torch

    if not packed:
        return _padded(windows, device)
    lengths = [length for window in windows for length in window["seq_lengths"]]
    ids, labels = (
        np.concatenate([np.array(window[name], np.int64) for window in windows]) for name in ("input_ids", "labels")
    )
    labels[np.cumsum([0, *lengths[:-1]])] = IGNORED
    tensors = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
    return {name: tensor[None].to(device) for name, tensor in tensors.items()} | boundaries(lengths, device)


def _padded(windows: Sequence[dict[str, Any]], device: str | torch.device) -> dict[str, Any]:
    """One row for each window, padded on the right, where no token of a causal model attends to the padding."""
    import torch

    lengths = [len(window["input_ids"]) for window in windows]
    shape = (len(windows), max(lengths))
    ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
    for row, (window, length) in enumerate(zip(windows, lengths, strict=True)):
        if len(window["seq_lengths"]) != 1:
            raise AssertionError("A packed window cannot be a row of its own.")
        ids[row, :length], labels[row, :length] = window["input_ids"], window["labels"]
    labels[:, 0] = IGNORED
    tensors = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
    if min(lengths) < shape[1]:
        mask = np.arange(shape[1]) < np.array(lengths)[:, None]
        tensors["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
    return {name: tensor.to(device) for name, tensor in tensors.items()}
