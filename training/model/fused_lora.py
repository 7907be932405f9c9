"""LoRA on 4-bit layers in one autograd step, for all layers that read the same input together.

peft computes an adapter as a chain: two products, a scaling, an addition, and as many again backwards, each of which reads and
writes all activations; on a fast GPU that takes longer than the products. Here the scaling and the additions happen inside
the products (addmm), and layers that share an input (q, k, v; gate, up) share their adapters' product with it, forwards
and backwards, and sum up its gradient in place (docs/qlora.md has the gain). The numbers are peft's, to rounding; for each layer

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

# Layers of one module that transformers' decoders call one after the other on the same tensor.
SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class AdaptedLinears(torch.autograd.Function):
    """`y` above for each of some layers; weights are dequantised twice, so that nothing of their size is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: list[Any], *adapters: Tensor) -> tuple[Tensor, ...]:
        """x: tokens x in; adapters: A of each layer, then B of each, in any float type; all products in x's.

        Returns tokens x out for each layer.
        """
        count = len(layers)
        low = torch.cat([a.to(x.dtype) for a in adapters[:count]])
        high = [b.to(x.dtype) for b in adapters[count:]]
        inner = x @ low.t()
        outputs = []
        for layer, b, part in zip(layers, high, inner.tensor_split(count, 1), strict=True):
            y = part.mul_(_scale(layer)) @ b.t()
            outputs.append(y.addmm_(x, _weight(layer, x.dtype).t()))  # the large product last: it adds at no cost
        ctx.save_for_backward(x, inner, low, *high)
        ctx.layers, ctx.types = layers, [part.dtype for part in adapters]
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and of the adapters."""
        x, inner, low, *high = ctx.saved_tensors
        layers, count = ctx.layers, len(ctx.layers)
        inner_grad = torch.empty_like(inner)
        for layer, g, b, part in zip(layers, grads, high, inner_grad.tensor_split(count, 1), strict=True):
            torch.mm(g, b, out=part).mul_(_scale(layer))
        da = (inner_grad.t() @ x).tensor_split(count)
        db = [g.t() @ part for g, part in zip(grads, inner.tensor_split(count, 1), strict=True)]
        dx = None
        if ctx.needs_input_grad[0]:
            dx = inner_grad @ low
            for layer, g in zip(layers, grads, strict=True):
                dx.addmm_(g, _weight(layer, g.dtype))
        return dx, None, *(part.to(kind) for part, kind in zip((*da, *db), ctx.types, strict=True))


def _scale(layer: Linear4bit) -> float:
    return float(layer.scaling[layer.active_adapters[0]])


def _weight(layer: Linear4bit, kind: torch.dtype) -> Tensor:
    held: Any = layer.get_base_layer().weight
    return functional.dequantize_4bit(held.data, held.quant_state).to(kind)


def fuse_adapters(model: PeftModel) -> int:
    """Give every plain adapted 4-bit layer the fused step while training; returns how many there are.

    A layer with dropout, a bias or another variant (DoRA, …) keeps peft's way, and so does any that is merged or switched off.
    """
    fused, pending = 0, _Pending()
    for module in model.modules():
        layers = {name: part for name, part in module.named_children() if isinstance(part, Linear4bit) and _plain(part)}
        for group in _groups(layers):
            fused += len(group)
            for layer in group:
                layer.forward = _Forward(layer, group, pending)
    return fused


def _groups(layers: dict[str, Any]) -> list[list[Any]]:
    """The layers of one module, those that share their input together."""
    groups = [[layers.pop(name) for name in names] for names in SHARED_INPUT if layers.keys() >= set(names)]
    return groups + [[layer] for layer in layers.values()]


def _plain(layer: Any) -> bool:
    names = layer.active_adapters
    if len(names) != 1 or layer.get_base_layer().bias is not None:
        return False
    name = names[0]
    dropout = isinstance(layer.lora_dropout[name], torch.nn.Identity)
    return dropout and name not in layer.lora_variant and not layer.lora_bias[name]


class _Pending:
    """What a group's first layer has computed for the others: one slot for the model, as its layers run one by one.

    (A slot for each group would hold on to the graph of a pass that ran out of memory.)
    """

    def __init__(self) -> None:
        self.source: Tensor | None = None
        self.outputs: dict[Any, Tensor] = {}

    def take(self, layer: Any, group: list[Any], x: Tensor) -> Tensor:
        if self.source is not x or layer not in self.outputs:
            self.source, self.outputs = None, {}  # before others are made
            self.source, self.outputs = x, dict(zip(group, _together(group, x), strict=True))
        y = self.outputs.pop(layer)
        if not self.outputs:
            self.source = None
        return y


def _together(group: list[Any], x: Tensor) -> list[Tensor]:
    name = group[0].active_adapters[0]
    adapters = [
        part[name].weight for kind in ("lora_A", "lora_B") for part in (getattr(layer, kind) for layer in group)
    ]
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    with torch.autocast(x.device.type, enabled=False):
        flat = AdaptedLinears.apply(x.reshape(-1, x.shape[-1]), group, *adapters)  # type: ignore[no-untyped-call]
    return [y.reshape(*x.shape[:-1], -1) for y in flat]


class _Forward:
    """A layer's forward pass: fused where gradients are wanted, peft's own otherwise."""

    def __init__(self, layer: Any, group: list[Any], pending: _Pending) -> None:
        self.layer, self.group, self.pending, self.plain = layer, group, pending, type(layer).forward

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.layer.disable_adapters or self.layer.merged or not torch.is_grad_enabled():
            plain: Tensor = self.plain(self.layer, x, *args, **kwargs)
            return plain
        return self.pending.take(self.layer, self.group, x)
