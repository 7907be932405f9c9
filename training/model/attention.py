"""Attention within each conversation of a packed window, never across.

`collate` hands the boundaries of the conversations to the attention function as `cu_seq_lens_q`
(int32, conversations + 1, from 0 to all tokens) and `max_length_q`. Two ways to use them:

* **varlen**: one variable-length flash kernel (torch.nn.attention.varlen), on GPUs from sm80 on;
* **sdpa**: PyTorch's scaled_dot_product_attention for each conversation, everywhere else. Its cost is the sum of the
  conversations' squares, not the window's square.

Neither gets a mask. Without boundaries packed conversations would see each other in silence: that is an error here.
A sliding window (Mistral's) is kept; what neither can compute (Gemma 2's soft cap, gpt-oss's sinks) is an error too, and
what is not known here is found by `check_against_stock`, which compares with transformers' own attention before the first step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from training.errors import OptionError, TrainingError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VARLEN = "dataprep_varlen"
SEGMENTS = "dataprep_segments"
PLAIN = "sdpa"  # what generation takes: it pads on the left and keeps a cache


def register() -> None:
    """Make both ways known to transformers, with masks switched off for them."""
    from transformers import AttentionInterface, AttentionMaskInterface

    for name, function in ((VARLEN, varlen_attention), (SEGMENTS, segment_attention)):
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def choose_attention(wanted: str, device: torch.device) -> str:
    """The registered name for `--attention`, given the device.

    Raises:
        OptionError: varlen was asked for and the GPU lacks it.
    """
    able = device.type == "cuda" and _has_varlen(device)
    if wanted == "varlen" and not able:
        raise OptionError("--attention varlen needs a GPU of sm80 or newer: leave it at auto.")
    return VARLEN if able and wanted != "sdpa" else SEGMENTS


def _has_varlen(device: torch.device) -> bool:
    import torch

    try:
        from torch.nn.attention import varlen  # noqa: F401
    except ImportError:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def varlen_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """One kernel over all conversations.

    Args:
        query: 1 x heads x tokens x head size; `key` and `value` likewise, with as many heads or fewer (grouped).

    Returns:
        1 x tokens x heads x head size.
    """
    from torch.nn.attention.varlen import varlen_attn

    bounds, longest = _boundaries(kwargs)
    window = _window(kwargs, longest)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    usual = query.shape[-1] ** -0.5  # what the kernel scales by
    if scaling is not None and scaling != usual:
        query = query * (scaling / usual)
    half = value.dtype if value.dtype.itemsize == 2 else _autocast_type(value)
    # squeeze and not [0]: the gradient of an index is a whole tensor of zeros and a copy, twice, in every layer
    q, k, v = (part.squeeze(0).transpose(0, 1).to(half) for part in (query, key, value))
    back = -1 if window is None else window - 1  # tokens before its own that each one sees; -1: all
    out: Any = varlen_attn(q, k, v, bounds, bounds, longest, longest, window_size=(back, 0))
    return out.to(query.dtype).unsqueeze(0), None


def _autocast_type(value: Tensor) -> torch.dtype:
    import torch

    return torch.get_autocast_dtype(value.device.type)


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Each conversation by itself; shapes as in `varlen_attention`."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    bounds, longest = _boundaries(kwargs)
    window = _window(kwargs, longest)
    grouped = query.shape[1] != key.shape[1]
    cuts = bounds.tolist()
    parts = []
    for a, b in zip(cuts, cuts[1:], strict=False):
        mask = _band(b - a, window, query.device) if window is not None and b - a > window else None
        q, k, v = query[:, :, a:b], key[:, :, a:b], value[:, :, a:b]
        parts.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(parts, 2).transpose(1, 2), None


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """The mask of a conversation longer than the window: each token sees itself and the `window` - 1 before it."""
    import torch

    whole = torch.ones(length, length, dtype=torch.bool, device=device)
    return whole.tril().triu(1 - window)


def _window(kwargs: dict[str, Any], longest: int) -> int | None:
    """How many tokens each one sees, itself included; None where that is all of every conversation.

    Raises:
        TrainingError: the model asks for something that neither way can compute.
    """
    for name, what in (("softcap", "a soft cap on its scores"), ("s_aux", "sinks")):
        if kwargs.get(name) is not None:
            raise TrainingError(f"This model's attention has {what}, which is not computed here: choose another model.")
    window = kwargs.get("sliding_window")
    return int(window) if window is not None and window < longest else None


def _boundaries(kwargs: dict[str, Any]) -> tuple[Tensor, int]:
    bounds = kwargs.get("cu_seq_lens_q")
    if bounds is None:
        raise TrainingError(
            "Packed windows reached attention without the boundaries of their conversations, which would see each other: "
            "collate them with training.data.collate, and generate with attention 'sdpa'."
        )
    return bounds, int(kwargs["max_length_q"])


def check_leaks(model: torch.nn.Module, windows: Any, *, bound: float = 0.0) -> float:
    """Change one packed neighbour and see that the other's logits stay the same.

    Takes the first window of `windows` (columns input_ids, seq_lengths) that holds two conversations, and replaces the
    ids of the first one; returns the largest difference in the last one's logits (0.0 where no window holds two).

    Raises:
        TrainingError: it is more than `bound`: attention leaks across conversations.
    """
    import torch

    lengths = windows["seq_lengths"]
    number = next((place for place, parts in enumerate(lengths) if len(parts) > 1), None)
    if number is None:
        return 0.0
    parts = [int(length) for length in lengths[number]]
    device = next(model.parameters()).device
    ids = torch.tensor(windows[number]["input_ids"], device=device)
    other = ids.clone()
    other[: parts[0]] = ids[: parts[0]].flip(0)
    if torch.equal(ids, other):
        other[: parts[0]] = (ids[: parts[0]] + 1) % 3
    first, second = (_last_logits(model, tokens, parts) for tokens in (ids, other))
    difference = float((first - second).abs().max())
    if not difference <= bound:
        raise TrainingError(
            f"Attention leaks across packed conversations: changing one moved its neighbour's logits by {difference:.3g} "
            f"(bound {bound:.3g}); try --attention sdpa, and report this."
        )
    return difference


def check_against_stock(model: torch.nn.Module, windows: Any, *, bound: float) -> float:
    """See that the longest conversation, alone, gets the logits that transformers' own attention gives it.

    Returns the mean difference of its last logits (root of the mean square) as a share of their spread.

    Raises:
        TrainingError: it is more than `bound`: the model's attention does something that is not computed here.
    """
    import torch

    lengths = windows["seq_lengths"]
    number = max(range(len(lengths)), key=lambda place: max(lengths[place]))
    place = max(range(len(lengths[number])), key=lambda part: int(lengths[number][part]))
    start, length = int(sum(lengths[number][:place])), int(lengths[number][place])
    ids = torch.tensor(windows[number]["input_ids"][start : start + length], device=next(model.parameters()).device)
    ours = _last_logits(model, ids, [length])
    with stock_attention(model):
        stock = _last_logits(model, ids, None)
    difference = float((ours - stock).square().mean().sqrt() / stock.std())
    if not difference <= bound:
        raise TrainingError(
            f"This model's attention is not what is computed here: its logits are off by {difference:.1%} of their spread "
            f"(bound {bound:.1%}); choose another model, and report this."
        )
    return difference


@contextmanager
def stock_attention(model: Any) -> Iterator[None]:
    """transformers' own attention and evaluation mode; afterwards as before."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    before, training = base.config._attn_implementation, model.training
    model.eval()
    base.set_attn_implementation(PLAIN if base._supports_sdpa else "eager")
    try:
        yield
    finally:
        base.set_attn_implementation(before)
        model.train(training)


def boundaries(parts: list[int], device: str | torch.device) -> dict[str, Any]:
    """Where the conversations of these lengths begin when they are laid end to end, as transformers' models take it."""
    import torch

    bounds = torch.tensor([0, *parts], device=device).cumsum(0).to(torch.int32)
    position = torch.cat([torch.arange(length, device=device) for length in parts])[None]
    longest = max(parts)
    return {
        "position_ids": position,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def _last_logits(model: torch.nn.Module, ids: Tensor, parts: list[int] | None) -> Tensor:
    """Logits of the last conversation's tokens (at most 256 of them), in float32; `parts` None: of one, by stock means."""
    import torch

    keep = min(len(ids) if parts is None else parts[-1], 256)
    laid = {} if parts is None else boundaries(parts, ids.device)
    training = model.training
    model.eval()
    with torch.no_grad():
        out = model(input_ids=ids[None], use_cache=False, logits_to_keep=keep, **laid)
    model.train(training)
    logits: Tensor = out.logits[0].float()
    return logits
