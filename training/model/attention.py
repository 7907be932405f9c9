"""Attention within each conversation of a packed window, never across conversations.

The collator gives the attention function the boundaries of the conversations as `cu_seq_lens_q` (int32, conversations + 1
values, from 0 to the number of tokens) and `max_length_q`. Two implementations use them:

* **varlen**: one variable-length flash kernel (torch.nn.attention.varlen), on GPUs from sm80 on;
* **segments**: PyTorch's scaled_dot_product_attention for each conversation, everywhere else. It costs the sum of the
  squares of the conversations' lengths, not the square of the window's length.

Neither takes a mask. Without boundaries, packed conversations would attend to each other without an error, so missing
boundaries are an error here. `checks.py` verifies both implementations on the loaded model before the first step.

Features that no fused kernel computes (Gemma 2's soft cap, gpt-oss's sinks, dropout) take matrix products for each
conversation. Models that cannot be packed at all use transformers' own attention, with one conversation in each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from training.errors import OptionError, TrainingError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

VARLEN = "dataprep_varlen"
SEGMENTS = "dataprep_segments"
PACKING = (VARLEN, SEGMENTS)
STOCK = "sdpa"  # transformers' own attention, which generation uses: it pads on the left and keeps a cache
EAGER = "eager"  # the same for models that do not support SDPA


class PackingUnsupported(TrainingError):
    """The model cannot be trained on packed windows; the message is the reason."""


def register() -> None:
    """Register both implementations with transformers, and switch cuDNN's attention off.

    They have no function that makes masks. transformers makes none then, and does not look for packed conversations in the
    positions, for which each pass would wait for the GPU.

    On an H100 SDPA prefers cuDNN, which builds a plan (about 30 ms) for every new length: generation with a growing cache
    and conversations of different lengths spend most of their time on it. Flash and memory-efficient kernels do not.
    """
    import torch
    from transformers import AttentionInterface

    torch.backends.cuda.enable_cudnn_sdp(False)

    for name, function in ((VARLEN, varlen_attention), (SEGMENTS, segment_attention)):
        AttentionInterface.register(name, function)


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

    if dropout or _needs_products(kwargs) or not _same_head_size(query, value):
        return segment_attention(module, query, key, value, attention_mask, scaling, dropout, **kwargs)
    bounds, longest = _boundaries(attention_mask, kwargs)
    window = _sliding_window(kwargs, longest)
    key, value = _repeat_heads(key, query), _repeat_heads(value, query)
    kernel_scaling = query.shape[-1] ** -0.5
    if scaling is not None and scaling != kernel_scaling:
        query = query * (scaling / kernel_scaling)
    half = value.dtype if value.dtype.itemsize == 2 else _autocast_type(value)
    # squeeze rather than [0]: the gradient of an index allocates and copies a whole tensor, twice in every layer
    q, k, v = (part.squeeze(0).transpose(0, 1).to(half) for part in (query, key, value))
    tokens_before = -1 if window is None else window - 1  # that each token attends to; -1: all
    out: Any = varlen_attn(q, k, v, bounds, bounds, longest, longest, window_size=(tokens_before, 0))
    return out.to(query.dtype).unsqueeze(0), None


def _needs_products(kwargs: dict[str, Any]) -> bool:
    """Whether the scores are changed in a way that no fused kernel computes."""
    return kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None


def _same_head_size(query: Tensor, value: Tensor) -> bool:
    return query.shape[-1] == value.shape[-1]  # multi-head latent attention (DeepSeek) has smaller values


def _repeat_heads(part: Tensor, query: Tensor) -> Tensor:
    """Keys or values with as many heads as `query`."""
    groups = query.shape[1] // part.shape[1]
    return part.repeat_interleave(groups, 1) if groups > 1 else part


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

    bounds, longest = _boundaries(attention_mask, kwargs)
    window = _sliding_window(kwargs, longest)
    grouped = query.shape[1] != key.shape[1]
    cuts = bounds.tolist()
    parts = []
    for start, end in zip(cuts, cuts[1:], strict=False):
        length = end - start
        q, k, v = query[:, :, start:end], key[:, :, start:end], value[:, :, start:end]
        if _needs_products(kwargs):
            parts.append(_attention_products(module, q, k, v, scaling, dropout, window, kwargs))
            continue
        mask = _sliding_mask(length, window, query.device) if window is not None and length > window else None
        parts.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None  # as transformers' own: some layers view it


def _attention_products(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    dropout: float,
    window: int | None,
    kwargs: dict[str, Any],
) -> Tensor:
    """One conversation's attention as matrix products, with soft cap and sinks; the scores take length x length memory.

    A sink is a learnt score for each head that takes part in the softmax and has no value (gpt-oss).
    """
    import torch
    from torch.nn.functional import dropout as apply_dropout

    length = query.shape[2]
    key, value = _repeat_heads(key, query), _repeat_heads(value, query)
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    softcap, sinks = kwargs.get("softcap"), kwargs.get("s_aux")
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~_sliding_mask(length, window or length, query.device), float("-inf")).float()
    if sinks is not None:
        column = sinks.float().reshape(1, -1, 1, 1).expand(scores.shape[0], -1, length, 1)
        scores = torch.cat([scores, column], -1)
    shares = scores.softmax(-1)[..., :length].to(value.dtype)
    return apply_dropout(shares, dropout, module.training) @ value


def _sliding_mask(length: int, window: int, device: torch.device) -> Tensor:
    """The mask of a conversation longer than the window: each token attends to itself and the `window` - 1 before it."""
    import torch

    every = torch.ones(length, length, dtype=torch.bool, device=device)
    return every.tril().triu(1 - window)


def _sliding_window(kwargs: dict[str, Any], longest: int) -> int | None:
    """Tokens that each token attends to, including itself; None if no conversation is longer than that."""
    window = kwargs.get("sliding_window")
    return int(window) if window is not None and window < longest else None


def _boundaries(attention_mask: Tensor | None, kwargs: dict[str, Any]) -> tuple[Tensor, int]:
    bounds = kwargs.get("cu_seq_lens_q")
    if attention_mask is not None:  # which no mask function of ours made, and which would be ignored
        raise PackingUnsupported("its layers give attention a mask of their own")
    if bounds is None:
        raise PackingUnsupported("its layers do not pass the boundaries of packed conversations to attention")
    return bounds, int(kwargs["max_length_q"])


@contextmanager
def stock_attention(model: Any) -> Iterator[None]:
    """Use transformers' own attention, in evaluation mode, for the duration of the block."""
    base = without_adapters(model)
    before, training = base.config.get_text_config()._attn_implementation, model.training
    model.eval()
    set_attention(base, stock_name(base))
    try:
        yield
    finally:
        set_attention(base, before)
        model.train(training)


def set_attention(base: PreTrainedModel, name: str) -> None:
    """Set the implementation of the text decoder's attention; that of other parts, such as an audio encoder, stays."""
    config = base.config
    text = config.get_text_config()
    key = next((key for key in config.sub_configs if getattr(config, key, None) is text), None)
    base.set_attn_implementation(name if key is None else {"": name, key: name})


def without_adapters(model: Any) -> Any:
    """The transformers model inside a peft model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def stock_name(base: Any) -> str:
    """The name of transformers' own attention for this model (or model class)."""
    return STOCK if base._supports_sdpa else EAGER


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
