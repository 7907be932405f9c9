"""LoRA on 4-bit layers in one autograd function, for all layers that read the same input.

peft computes an adapter as a chain of two products, a scaling and an addition, and as many again in the backward pass.
Each of them reads and writes all activations, which on a fast GPU takes longer than the products. Here the scaling and
the additions happen inside the products (addmm), and layers that share an input (q, k, v; gate, up) share their adapters'
product with it in both directions and accumulate its gradient in place (docs/qlora.md shows the gain). The results equal
peft's up to rounding. For each layer

    y  = x W' + s (x A') B'        W: the dequantised base weight, A: rank x in, B: out x rank, s = alpha / rank
    dx = g W + s (g B) A           dA = s (g B)' x        dB = s g' (x A')

What the backward pass needs is saved before the product with the base weight. A checkpointed decoder layer is computed
again only up to its last saved tensor, so the product of its last linear layer is not computed again.
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


class SavedTensors(torch.autograd.Function):
    """Saves tensors for another function's backward pass. The output is empty: it only keeps the node that has them."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *tensors: Tensor) -> Tensor:
        """Save `tensors`; `anchor` requires a gradient, so that the output has a node."""
        ctx.save_for_backward(*tensors)
        return anchor.new_empty(0)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[None, ...]:
        """No gradients."""
        return (None,) * len(ctx.needs_input_grad)


class AdaptedLinears(torch.autograd.Function):
    """`y` above for each layer of a group. Weights are dequantised in both passes, so that none is kept in between."""

    @staticmethod
    def forward(
        ctx: Any,
        saved: Tensor,
        layers: list[Linear4bit],
        x: Tensor,
        inner: Tensor,
        b_each: list[Tensor],
        *adapters: Tensor,
    ) -> tuple[Tensor, ...]:
        """Compute the outputs, tokens x out for each layer.

        Args:
            saved: the output of `SavedTensors` for x, inner, A of all layers, and `b_each`.
            x: tokens x in; its type is the type of all products.
            inner: s (x A') of all layers, tokens x (layers * rank).
            b_each: B of each layer in the type of x.
            adapters: A of each layer, then B of each layer, in any floating-point type.
        """
        outputs = []
        for layer, b, part in zip(layers, b_each, inner.tensor_split(len(layers), 1), strict=True):
            y = part @ b.t()
            outputs.append(y.addmm_(x, _weight(layer, x.dtype).t()))  # the large product last: its addition is free
        ctx.saved, ctx.layers, ctx.types = saved, layers, [part.dtype for part in adapters]
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of x and of the adapters."""
        saved, ctx.saved = ctx.saved, None  # the tensors are freed at the end of this function
        x, inner, a_all, *b_each = saved.grad_fn.saved_tensors
        layers, count = ctx.layers, len(ctx.layers)
        inner_grad = torch.empty_like(inner)
        for g, b, part in zip(grads, b_each, inner_grad.tensor_split(count, 1), strict=True):
            part.addmm_(g, b, beta=0, alpha=_scale(layers[0]))  # scaled by the product itself
        da = (inner_grad.t() @ x).tensor_split(count)
        db = [g.t() @ part for g, part in zip(grads, inner.tensor_split(count, 1), strict=True)]
        dx = None
        if ctx.needs_input_grad[2]:
            dx = inner_grad @ a_all
            for layer, g in zip(layers, grads, strict=True):
                dx.addmm_(g, _weight(layer, g.dtype))
        return None, None, dx, None, None, *(part.to(dtype) for part, dtype in zip((*da, *db), ctx.types, strict=True))


def _scale(layer: Linear4bit) -> float:
    return float(layer.scaling[layer.active_adapters[0]])


def _weight(layer: Linear4bit, dtype: torch.dtype) -> Tensor:
    base: Any = layer.get_base_layer()
    state = getattr(base.weight, "quant_state", base.quant_state)  # the weight of a divided model has none of its own
    with torch.inference_mode():  # bitsandbytes' operators then skip their autograd wrappers, which are in Python
        return functional.dequantize_4bit(base.weight.data, state).to(dtype)


def fuse_adapters(model: PeftModel) -> int:
    """Give every plain adapted 4-bit layer the fused training step; returns the number of these layers.

    Layers with dropout, a bias or a variant (DoRA, …) keep peft's own step, and so do merged and disabled adapters.
    """
    fused, shared = 0, _SharedOutputs()
    for module in model.modules():
        layers = {name: part for name, part in module.named_children() if isinstance(part, Linear4bit)}
        for group in _groups({name: layer for name, layer in layers.items() if _is_plain(layer)}):
            fused += len(group)
            for layer in group:
                layer.forward = _FusedForward(layer, group, shared)
    return fused


def _groups(layers: dict[str, Any]) -> list[list[Any]]:
    """The layers of one module in groups that share their input. All adapters of a model have one rank and one scale."""
    groups = [[layers.pop(name) for name in names] for names in SHARED_INPUT if layers.keys() >= set(names)]
    return groups + [[layer] for layer in layers.values()]


def _is_plain(layer: Any) -> bool:
    names = layer.active_adapters
    if len(names) != 1 or layer.get_base_layer().bias is not None:
        return False
    name = names[0]
    no_dropout = isinstance(layer.lora_dropout[name], torch.nn.Identity)
    return no_dropout and name not in layer.lora_variant and not layer.lora_bias[name]


class _SharedOutputs:
    """Outputs that a group's first layer has computed for the others.

    The whole model has one slot, because its layers run one after the other. A slot for each group would keep the graph
    of a pass that ran out of memory alive.
    """

    def __init__(self) -> None:
        self.source: Tensor | None = None
        self.outputs: dict[Any, Tensor] = {}

    def take(self, layer: Any, group: list[Any], x: Tensor) -> Tensor:
        """The output of `layer` on `x`; computes the whole group when the slot holds another one."""
        if self.source is not x or layer not in self.outputs:
            self.source, self.outputs = None, {}  # freed before new ones are computed
            self.source, self.outputs = x, dict(zip(group, _compute_group(group, x), strict=True))
        y = self.outputs.pop(layer)
        if not self.outputs:
            self.source = None
        return y


def _compute_group(group: list[Any], x: Tensor) -> list[Tensor]:
    name = group[0].active_adapters[0]
    adapters = [getattr(layer, kind)[name].weight for kind in ("lora_A", "lora_B") for layer in group]
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    flat = x.reshape(-1, x.shape[-1])
    with torch.no_grad():
        a_all, b_each = _cast_adapters(adapters, x.dtype)
        inner = torch.addmm(x.new_empty(1), flat, a_all.t(), beta=0, alpha=_scale(group[0]))
    saved = SavedTensors.apply(adapters[0], flat, inner, a_all, *b_each)  # type: ignore[no-untyped-call]
    outputs = AdaptedLinears.apply(saved, group, flat, inner, b_each, *adapters)  # type: ignore[no-untyped-call]
    return [y.reshape(*x.shape[:-1], -1) for y in outputs]


def _cast_adapters(adapters: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """All A, one below the other, and each B. One call casts them, because launching a kernel for each takes longer."""
    first, count = adapters[0], len(adapters) // 2
    a_all = first.new_empty(count * first.shape[0], first.shape[1], dtype=dtype)
    b_each = [torch.empty_like(b, dtype=dtype) for b in adapters[count:]]
    torch._foreach_copy_([*a_all.tensor_split(count), *b_each], adapters)
    return a_all, b_each


class _FusedForward:
    """A layer's forward pass: fused when gradients are computed, peft's own otherwise."""

    def __init__(self, layer: Any, group: list[Any], shared: _SharedOutputs) -> None:
        self.layer, self.group, self.shared, self.peft_forward = layer, group, shared, type(layer).forward

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.layer.disable_adapters or self.layer.merged or not torch.is_grad_enabled():
            y: Tensor = self.peft_forward(self.layer, x, *args, **kwargs)
            return y
        return self.shared.take(self.layer, self.group, x)
