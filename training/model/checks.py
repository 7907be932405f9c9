"""Checks of attention on the loaded model, before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.errors import TrainingError
from training.model.attention import boundaries, stock_attention

if TYPE_CHECKING:
    import torch
    from torch import Tensor

COMPARED_TOKENS = 256  # at most, whose logits are compared


def check_leaks(model: torch.nn.Module, windows: Any, *, bound: float = 0.0) -> float:
    """Check that changing one packed conversation does not change the logits of another.

    Takes the first of `windows` (columns input_ids, seq_lengths) with at least two conversations and replaces the ids of
    the first one. Returns the largest difference in the last one's logits, or 0.0 if no window has two conversations.

    Raises:
        TrainingError: the difference exceeds `bound`: attention leaks across conversations.
    """
    import torch

    lengths = windows["seq_lengths"]
    number = next((index for index, parts in enumerate(lengths) if len(parts) > 1), None)
    if number is None:
        return 0.0
    parts = [int(length) for length in lengths[number]]
    device = next(model.parameters()).device
    ids = torch.tensor(windows[number]["input_ids"], device=device)
    changed = ids.clone()
    changed[: parts[0]] = ids[: parts[0]].flip(0)
    if torch.equal(ids, changed):
        changed[: parts[0]] = (ids[: parts[0]] + 1) % 3
    before, after = (_last_logits(model, tokens, parts) for tokens in (ids, changed))
    difference = float((before - after).abs().max())
    if not difference <= bound:
        raise TrainingError(
            f"Attention leaks across packed conversations: changing one changed its neighbour's logits by "
            f"{difference:.3g} (bound {bound:.3g}); try --attention sdpa, and report this."
        )
    return difference


def check_against_stock(model: torch.nn.Module, windows: Any, *, bound: float) -> float:
    """Check that the longest conversation, alone, gets the logits that transformers' own attention gives it.

    Returns the root mean square of the difference, relative to the standard deviation of the stock logits.

    Raises:
        TrainingError: it exceeds `bound`: the model's attention does something that is not implemented here.
    """
    import torch

    lengths = windows["seq_lengths"]
    number = max(range(len(lengths)), key=lambda index: max(lengths[index]))
    part = max(range(len(lengths[number])), key=lambda index: int(lengths[number][index]))
    start, length = int(sum(lengths[number][:part])), int(lengths[number][part])
    device = next(model.parameters()).device
    ids = torch.tensor(windows[number]["input_ids"][start : start + length], device=device)
    ours = _last_logits(model, ids, [length])
    with stock_attention(model):
        stock = _last_logits(model, ids, None)
    difference = float((ours - stock).square().mean().sqrt() / stock.std())
    if not difference <= bound:
        raise TrainingError(
            f"This model's attention is not supported: its logits differ from transformers' own by {difference:.1%} of "
            f"their standard deviation (bound {bound:.1%}); choose another model, and report this."
        )
    return difference


def _last_logits(model: torch.nn.Module, ids: Tensor, parts: list[int] | None) -> Tensor:
    """Logits of the last conversation's tokens, float32; `parts` None: of a single conversation without boundaries."""
    import torch

    keep = min(len(ids) if parts is None else parts[-1], COMPARED_TOKENS)
    packed = {} if parts is None else boundaries(parts, ids.device)
    training = model.training
    model.eval()
    with torch.no_grad():
        out = model(input_ids=ids[None], use_cache=False, logits_to_keep=keep, **packed)
    model.train(training)
    logits: Tensor = out.logits[0].float()
    return logits
