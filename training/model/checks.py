"""Checks of attention and packing on the loaded model, before the first step."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from training.errors import MODEL_FAULTS, ModelError, first_line
from training.model.attention import PackingUnsupported, boundaries, stock_attention, without_adapters

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHECKED_CONVERSATIONS = 4  # that are packed for the leak check
CHECKED_TOKENS = 64  # of each of them; a leak shows most in the first tokens of a conversation
COMPARED_TOKENS = 256  # of the longest conversation, at most, whose logits are compared with transformers' own


def check_leaks(model: torch.nn.Module, windows: Any, *, bound: float) -> float:
    """Check that changing one packed conversation does not change the logits of any other.

    Packs the first conversations of `windows` (columns input_ids, seq_lengths), changes each of them in turn, and
    compares the logits of all others: the one before, the one after, and those further away.

    Returns:
        The largest root mean square of the differences in one conversation's logits, relative to the logits' standard
        deviation; 0.0 if there is only one conversation.

    Raises:
        PackingUnsupported: it exceeds `bound`, or the model cannot take packed conversations at all.
    """
    import torch

    conversations = _first_conversations(windows)
    if len(conversations) < 2:
        return 0.0
    lengths = [len(conversation) for conversation in conversations]
    original = _logits(model, np.concatenate(conversations), lengths)
    scale, worst = original.std(), 0.0
    for changed in range(len(conversations)):
        packed = [_changed(part) if index == changed else part for index, part in enumerate(conversations)]
        difference = _logits(model, np.concatenate(packed), lengths) - original
        moved = torch.split(difference, lengths)
        others = [part for index, part in enumerate(moved) if index != changed]
        largest = torch.stack([part.square().mean().sqrt() for part in others]).max() / scale
        worst = max(worst, float(largest))
        if not largest <= bound:
            raise PackingUnsupported(
                f"a change of one packed conversation changes another one's logits by {float(largest):.2g} of their "
                f"standard deviation (bound {bound:.2g})"
            )
    return worst


def _first_conversations(windows: Any) -> list[np.ndarray]:
    """The first ids of the first conversations with more than one token."""
    conversations: list[np.ndarray] = []
    for window in windows:
        ids = np.array(window["input_ids"], np.int64)
        parts = np.split(ids, np.cumsum(window["seq_lengths"])[:-1])
        conversations += [part[:CHECKED_TOKENS] for part in parts if len(part) > 1]
        if len(conversations) >= CHECKED_CONVERSATIONS:
            break
    return conversations[:CHECKED_CONVERSATIONS]


def _changed(ids: np.ndarray) -> np.ndarray:
    """Other ids of the same conversation: in reverse order or, if that is the same, shifted by one place."""
    backwards = ids[::-1]
    if not np.array_equal(backwards, ids):
        return backwards
    return np.where(ids > 0, ids - 1, ids + 1)


def check_causal(model: torch.nn.Module, windows: Any, *, name: str, bound: float) -> None:
    """Check that a token's logits are finite and do not depend on the tokens after it, as they do in an encoder.

    Changes the last token of the first conversation of `windows`, and compares the logits of the tokens before it.

    Args:
        bound: of the root mean square of the differences, relative to the logits' standard deviation.

    Raises:
        ModelError: they are not finite; or they do depend on them, so that the model would learn to copy the next token.
    """
    import torch

    conversations = _first_conversations(windows)
    if not conversations:
        return
    ids = conversations[0]
    changed = np.concatenate([ids[:-1], _changed(ids[-1:])])
    with stock_attention(model):
        original, other = (_logits(model, each, None)[:-1] for each in (ids, changed))
    if not torch.isfinite(original).all():
        raise ModelError(
            f"The logits of {name} are not finite: its weights hold NaN or infinity, or overflow in 16 bits; download the model "
            "again, or use --precision bf16 or fp32."
        )
    moved = float((other - original).square().mean().sqrt() / original.std())
    if moved > bound:
        raise ModelError(
            f"In {name} a token's logits change with the tokens after it, by {moved:.2g} of their standard deviation: it reads "
            "them as an encoder does, so it cannot be trained to answer; use a decoder such as Llama."
        )


def check_against_stock(model: torch.nn.Module, windows: Any, *, bound: float) -> float:
    """Check that the longest conversation, alone, gets the logits that transformers' own attention gives it.

    Returns:
        The root mean square of the differences, relative to the standard deviation of the stock logits.

    Raises:
        PackingUnsupported: it exceeds `bound`: the model's attention does something that is not implemented here.
    """
    lengths = windows["seq_lengths"]
    number = max(range(len(lengths)), key=lambda index: max(lengths[index]))
    part = max(range(len(lengths[number])), key=lambda index: int(lengths[number][index]))
    start, length = int(sum(lengths[number][:part])), int(lengths[number][part])
    ids = np.array(windows[number]["input_ids"][start : start + length], np.int64)
    ours = _logits(model, ids, [length], keep=COMPARED_TOKENS)
    with stock_attention(model):
        stock = _logits(model, ids, None, keep=COMPARED_TOKENS)
    difference = float((ours - stock).square().mean().sqrt() / stock.std())
    if not difference <= bound:
        raise PackingUnsupported(
            f"its logits with packed attention differ from transformers' own by {difference:.1%} of their standard "
            f"deviation (bound {bound:.1%})"
        )
    return difference


def _logits(model: torch.nn.Module, ids: np.ndarray, lengths: list[int] | None, *, keep: int = 0) -> Tensor:
    """Logits of the last `keep` tokens (0: of all), tokens x vocabulary, float32.

    Args:
        lengths: of the conversations in `ids`; None: one conversation, given without boundaries.

    Raises:
        PackingUnsupported: the model raises an error on packed conversations.
    """
    import torch

    device = next(model.parameters()).device
    tensor = torch.from_numpy(np.ascontiguousarray(ids))[None].to(device)
    arguments = {} if lengths is None else boundaries(lengths, device)
    if keep and "logits_to_keep" in signature(without_adapters(model).forward).parameters:
        arguments["logits_to_keep"] = keep  # the whole logits of a long conversation can take gigabytes
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits: Tensor = model(input_ids=tensor, use_cache=False, **arguments).logits[0, -keep:].float()
    except torch.OutOfMemoryError:
        raise
    except MODEL_FAULTS as error:
        if lengths is None:
            raise
        raise PackingUnsupported(f"transformers refuses packed conversations ({first_line(error)})") from None
    finally:
        model.train(training)
    return logits
