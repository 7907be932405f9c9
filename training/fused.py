"""LoRA on a 4-bit layer in one autograd step.

peft computes an adapter as a chain: two products, a scaling, an addition, and as many again backwards, each of which reads and
writes all activations; on a fast GPU that takes longer than the products. Here the scaling and the additions happen inside
the products (addmm), forwards and backwards (docs/qlora.md has the gain). The numbers are peft's, to rounding:

    y  = x W' + s (x A') B'        W: the dequantised base weight, A: rank x in, B: out x rank, s = alpha / rank
    dx = g W + s (g B) A           dA = s (g B)' x        dB = s g' (x A')
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes import functional
from peft.tuners.lora.bnb import Linear4bit
from torch import Tensor

if TYPE_CHECKING:
    from peft import PeftModel


class AdaptedLinear(torch.autograd.Function):
    """`y` above; the weight is dequantised twice, so that nothing of its size is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, state: Any, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """x: tokens x in; a, b in any float type; all products in x's. Returns tokens x out."""
        low, high = a.to(x.dtype), b.to(x.dtype)
        y = x @ functional.dequantize_4bit(packed, state).to(x.dtype).t()
        inner = x @ low.t()
        y.addmm_(inner, high.t(), alpha=scale)
        ctx.save_for_backward(x, inner, low, high, packed)
        ctx.state, ctx.scale, ctx.types = state, scale, (a.dtype, b.dtype)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, a and b."""
        x, inner, low, high, packed = ctx.saved_tensors
        g = grads[0]
        inner_grad = (g @ high).mul_(ctx.scale)
        da = inner_grad.t() @ x
        db = (g.t() @ inner).mul_(ctx.scale)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = g @ functional.dequantize_4bit(packed, ctx.state).to(g.dtype)
            dx.addmm_(inner_grad, low)
        return dx, None, None, da.to(ctx.types[0]), db.to(ctx.types[1]), None


def fuse_adapters(model: PeftModel) -> int:
    """Give every plain adapted 4-bit layer the fused step while training; returns how many there are.

    A layer with dropout, a bias or another variant (DoRA, …) keeps peft's way, and so does any that is merged or switched off.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, Linear4bit) and _plain(module)]
    for layer in layers:
        layer.forward = _Forward(layer)
    return len(layers)


def _plain(layer: Any) -> bool:
    names = layer.active_adapters
    if len(names) != 1 or layer.get_base_layer().bias is not None:
        return False
    name = names[0]
    dropout = isinstance(layer.lora_dropout[name], torch.nn.Identity)
    return dropout and name not in layer.lora_variant and not layer.lora_bias[name]


class _Forward:
    """A layer's forward pass: fused where gradients are wanted, peft's own otherwise."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.name, self.plain = layer, layer.active_adapters[0], type(layer).forward

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self.layer
        if layer.disable_adapters or layer.merged or not torch.is_grad_enabled():
            plain: Tensor = self.plain(layer, x, *args, **kwargs)
            return plain
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        weight = layer.get_base_layer().weight
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = AdaptedLinear.apply(  # type: ignore[no-untyped-call]
                x.reshape(-1, x.shape[-1]),
                weight.data,
                weight.quant_state,
                layer.lora_A[self.name].weight,
                layer.lora_B[self.name].weight,
                layer.scaling[self.name],
            )
        return y.reshape(*x.shape[:-1], -1)
