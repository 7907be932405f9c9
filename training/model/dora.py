"""DoRA's forward pass in the memory of plain LoRA plus one tensor for each adapted layer.

With W the base weight (outputs x inputs), s the scale of the adapter and m the trained lengths (one for each output)

    y = c (x W' + s (x A') B') + bias        c = m / n        n: lengths of the rows of W + s B A, constant in the backward pass

peft computes n from W + s B A itself, and B A as the product with an identity matrix of inputs x inputs (0.5 GB in a layer
of Llama 2 7B); under autocast its result is float32, and so is everything that follows. Here n comes from the factors,

    n^2 = |W|^2 + 2 s sum(W A' * B) + s^2 sum(B A A' * B)        sums over the columns, |W|^2 computed once

and the result has the type of the base layer's. Equal to peft's up to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora.variants import DoraLinearVariant
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn import Module


def use_factored_norms(model: Module) -> None:
    """Compute all DoRA adapters of linear layers by this module, in place."""
    for module in model.modules():
        variants = getattr(module, "lora_variant", {})
        for adapter, variant in variants.items():
            if type(variant) is DoraLinearVariant:
                variants[adapter] = FactoredDora()


class FactoredDora(DoraLinearVariant):
    """peft's DoRA of linear layers with another forward pass."""

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        """Compute y.

        Args:
            x: tokens x inputs.
            result: tokens x outputs: the base layer's, with its bias; may be changed.
        """
        base = module.get_base_layer()
        dropout = module.lora_dropout[active_adapter]
        drops = module.training and not isinstance(dropout, torch.nn.Identity)
        if drops:
            x = dropout(x)
        undirected = base(x) if drops else result
        if base.bias is not None:
            undirected = undirected - base.bias
        low_rank = module.lora_B[active_adapter](module.lora_A[active_adapter](x))
        scale = module.scaling[active_adapter]
        factors = module.lora_magnitude_vector[active_adapter].weight / row_lengths(module, active_adapter)
        scaled: Tensor = _ScaledRows.apply(torch.add(undirected, low_rank.to(result.dtype), alpha=scale), factors)  # type: ignore[no-untyped-call]
        if drops:  # only what the adapter changes sees dropped inputs
            return result + (scaled - undirected)
        return scaled if base.bias is None else scaled + base.bias


def row_lengths(module: Any, adapter: str) -> Tensor:
    """Lengths of the rows of W + s B A, float32, one for each output."""
    layer = module.lora_magnitude_vector[adapter]
    a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
    scale = module.scaling[adapter]
    with torch.no_grad(), torch.autocast(a.device.type, enabled=False):
        weight: Tensor = dequantize_module_weight(module.get_base_layer())
        if layer.fan_in_fan_out:
            weight = weight.t()
        squares = getattr(layer, "base_squares", None)
        if squares is None or squares.device != weight.device:
            squares = torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32).square()
            layer.base_squares = squares
        a, b = a.float(), b.float()
        across = ((weight @ a.t().to(weight.dtype)).float() * b).sum(1)
        own = ((b @ (a @ a.t())) * b).sum(1)
        lengths: Tensor = (squares + 2 * scale * across + scale**2 * own).clamp_(min=0).sqrt_()
        return lengths


class _ScaledRows(torch.autograd.Function):
    """Rows times float32 factors, in the type of the rows; computed in float32 without a float32 copy."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, factors: Tensor) -> Tensor:
        ctx.save_for_backward(rows, factors)
        return torch.mul(rows, factors, out=torch.empty_like(rows))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        rows, factors = ctx.saved_tensors
        sums = (grad * rows).flatten(0, -2).sum(0, dtype=torch.float32)
        return torch.mul(grad, factors, out=torch.empty_like(grad)), sums.to(factors.dtype)
