"""One forward pass over a few tokens of text, in transformers' own way: its logits, and the layers that it calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.errors import ModelError, first_line
from training.model.attention import stock_attention
from training.model.runtime import forked_random_state

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

TOKENS = 16


def some_tokens(base: Any) -> Tensor:
    """A few different ids of the model: 1 x tokens."""
    import torch

    weight: Tensor = base.get_input_embeddings().weight
    return torch.remainder(torch.arange(TOKENS, device=weight.device) * 7 + 3, weight.shape[0])[None]


def text_logits(base: Any, *, training: bool = False) -> Tensor:
    """The logits of `some_tokens` by the model's own forward pass: 1 x tokens x vocabulary.

    Args:
        training: compute them in training mode, in which some architectures need more inputs.

    Raises:
        ModelError: the model cannot compute text alone.
    """
    import torch

    ids = some_tokens(base)
    with stock_attention(base), torch.no_grad(), forked_random_state(ids.device):
        try:
            base.train(training)
            logits: Tensor = base(input_ids=ids, use_cache=False).logits
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # each architecture has its own
            raise ModelError(
                f"transformers cannot compute {base.config._name_or_path or 'the model'} on text alone ({first_line(error)}): "
                "use another model, or --quantization none if the model reads weights that NF4 packs."
            ) from None
    return logits


def linear_layers(base: Any, decoder: Any) -> dict[str, Module]:
    """The decoder's linear layers, by their path within the model."""
    import torch
    from transformers.pytorch_utils import Conv1D

    inside = {id(module) for module in decoder.modules()}
    return {
        path: module
        for path, module in base.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and id(module) in inside
    }


def unused_layers(base: Any, decoder: Any) -> set[str]:
    """Paths within the model of the decoder's linear layers that text does not pass through.

    Examples are the vision encoder inside a decoder, cross-attention to an encoder, and layers whose weight the model reads
    without calling them: an adapter there would never be trained.

    Raises:
        ModelError: the model cannot compute text alone.
    """
    layers = linear_layers(base, decoder)
    called: set[int] = set()
    hooks = [module.register_forward_pre_hook(lambda layer, _: called.add(id(layer))) for module in layers.values()]
    try:
        for training in (False, True):
            text_logits(base, training=training)
    finally:
        for hook in hooks:
            hook.remove()
    return {path for path, module in layers.items() if id(module) not in called}
