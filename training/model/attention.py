"""Attention within each conversation of a packed window, never across conversations.

The collator gives the attention function the boundaries of the conversations as `cu_seq_lens_q` (int32, conversations + 1
values, from 0 to the number of tokens) and `max_length_q`. Two implementations use them:

* **varlen**: one variable-length flash kernel (torch.nn.attention.varlen), on GPUs from sm80 on;
* **segments**: PyTorch's scaled_dot_product_attention for each conversation, everywhere else. It costs the sum of the
  squares of the conversations' lengths, not the square of the window's length.

Neither takes a mask. Without boundaries, packed conversations would attend to each other without an error, so missing
boundaries are an error here. `checks.py` verifies both implementations on the loaded model before the first step.
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
STOCK = "sdpa"  # transformers' own attention, which generation uses: it pads on the left and keeps a cache


def register() -> None:
    """Register both implementations with transformers, without masks."""
    from transformers import AttentionInterface, AttentionMaskInterface

    for name, function in ((VARLEN, varlen_attention), (SEGMENTS, segment_attention)):
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def choose_attention(requested: str, device: torch.device) -> str:
    """The registered name of the implementation for `--attention` on this device.

    Raises:
        OptionError: varlen is requested and the GPU does not support it.
    """
    supported = device.type == "cuda" and _has_varlen(device)
    if requested == "varlen" and not supported:
        raise OptionError("--attention varlen needs a GPU of sm80 or newer; --attention auto works everywhere.")
    return VARLEN if supported and requested != "sdpa" else SEGMENTS


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
    """One kernel call for all conversations.

    Args:
        query: 1 x heads x tokens x head size; `key` and `value` likewise, with as many heads or fewer (grouped).

    Returns:
        1 x tokens x heads x head size.
    """
    from torch.nn.attention.varlen import varlen_attn

    bounds, longest = _boundaries(kwargs)
    window = _sliding_window(kwargs, longest)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    kernel_scaling = query.shape[-1] ** -0.5
    if scaling is not None and scaling != kernel_scaling:
        query = query * (scaling / kernel_scaling)
    half = value.dtype if value.dtype.itemsize == 2 else _autocast_type(value)
    # squeeze rather than [0]: the gradient of an index allocates and copies a whole tensor, twice in every layer
    q, k, v = (part.squeeze(0).transpose(0, 1).to(half) for part in (query, key, value))
    tokens_before = -1 if window is None else window - 1  # that each token attends to; -1: all
    out: Any = varlen_attn(q, k, v, bounds, bounds, longest, longest, window_size=(tokens_before, 0))
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
    """One SDPA call for each conversation; shapes as in `varlen_attention`."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    bounds, longest = _boundaries(kwargs)
    window = _sliding_window(kwargs, longest)
    grouped = query.shape[1] != key.shape[1]
    cuts = bounds.tolist()
    parts = []
    for start, end in zip(cuts, cuts[1:], strict=False):
        length = end - start
        mask = _sliding_mask(length, window, query.device) if window is not None and length > window else None
        q, k, v = query[:, :, start:end], key[:, :, start:end], value[:, :, start:end]
        parts.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(parts, 2).transpose(1, 2), None


def _sliding_mask(length: int, window: int, device: torch.device) -> Tensor:
    """The mask of a conversation longer than the window: each token attends to itself and the `window` - 1 before it."""
    import torch

    every = torch.ones(length, length, dtype=torch.bool, device=device)
    return every.tril().triu(1 - window)


def _sliding_window(kwargs: dict[str, Any], longest: int) -> int | None:
    """Tokens that each token attends to, including itself; None if no conversation is longer than that.

    Raises:
        TrainingError: the model's attention needs something that neither implementation computes.
    """
    for name, feature in (("softcap", "a soft cap on the attention scores"), ("s_aux", "attention sinks")):
        if kwargs.get(name) is not None:
            raise TrainingError(f"This model uses {feature}, which is not supported: choose another model.")
    window = kwargs.get("sliding_window")
    return int(window) if window is not None and window < longest else None


def _boundaries(kwargs: dict[str, Any]) -> tuple[Tensor, int]:
    bounds = kwargs.get("cu_seq_lens_q")
    if bounds is None:
        raise TrainingError(
            "Packed windows reached attention without the boundaries of their conversations, which would then attend to "
            "each other: collate windows with training.data.collate, and generate with attention 'sdpa'."
        )
    return bounds, int(kwargs["max_length_q"])


@contextmanager
def stock_attention(model: Any) -> Iterator[None]:
    """Use transformers' own attention, in evaluation mode, for the duration of the block."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    before, training = base.config._attn_implementation, model.training
    model.eval()
    base.set_attn_implementation(STOCK if base._supports_sdpa else "eager")
    try:
        yield
    finally:
        base.set_attn_implementation(before)
        model.train(training)


def boundaries(lengths: list[int], device: str | torch.device) -> dict[str, Any]:
    """The keyword arguments with which transformers' models take conversations of these lengths, laid end to end."""
    import torch

    bounds = torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])[None]
    longest = max(lengths)
    return {
        "position_ids": positions,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }
