"""Divide the base model among the processes of a run (`--shard`), for a model that no single GPU holds.

Each decoder layer is a group of PyTorch's FSDP2: every process holds an equal part of its weights, and the layer is gathered
when it is computed, forward and backward, and freed afterwards. The base has no gradients, so this is all that FSDP2 does
here. Embeddings, the output layer and the adapters are replicated, and DDP averages the adapters' gradients. Adapters,
optimizer and checkpoints are therefore those of any other run: a run can be resumed with or without `--shard`.

Weights are loaded into the CPU's memory, where safetensors maps the files instead of reading them, and each layer is moved
to the GPU, quantised and divided before the next one. No process ever holds the whole model on its GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.nn import Module
    from torch.nn.parallel import DistributedDataParallel

    from training.model.runtime import Runtime


def shard_base(base: Any, runtime: Runtime, *, quantise: bool) -> None:
    """Divide the decoder layers of a transformers model, which is on the CPU, and move everything else to the device.

    Args:
        quantise: hold linear layers in NF4; False also for a checkpoint that is quantised already.
    """
    from torch.distributed import get_world_size
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(runtime.device.partition(":")[0], (get_world_size(),))
    decoder, output = base.get_decoder(), base.get_output_embeddings()
    for layer in decoder_layers(decoder):
        _move(layer, runtime, quantise=quantise)
        fully_shard(layer, mesh=mesh)
    _move(base, runtime, quantise=quantise, output=output)
    linears: list[Any] = [module for module in base.modules() if _is_4_bit(module)]
    for linear in linears:  # peft reads these when it adds adapters
        linear.weight.quant_type = linear.quant_state.quant_type
        linear.weight.compress_statistics = linear.quant_state.nested
    fully_shard(decoder, mesh=mesh, ignored_params=set(decoder.parameters()))  # the root, which only orders the layers
    if quantise:
        base.is_loaded_in_4bit = True  # for peft and trl


def decoder_layers(decoder: Module) -> list[Module]:
    """The layers of a text decoder, in order."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in decoder.modules() if isinstance(module, GradientCheckpointingLayer)]


def _is_4_bit(module: Module) -> bool:
    from bitsandbytes.nn.modules import Linear4bit

    return isinstance(module, Linear4bit)


def _move(part: Module, runtime: Runtime, *, quantise: bool, output: Module | None = None) -> None:
    """Move a part of the model to the device, and quantise its linear layers as transformers does.

    The weights of 4-bit layers become plain parameters. FSDP2 divides those like any other, and bitsandbytes finds what it
    needs to dequantise them in the layer's `quant_state`. Their bytes are stored as a floating-point type, because FSDP2
    makes parameters that could have gradients (until PyTorch 2.13), and as float32, because peft gives adapters the type of
    the weight.

    Args:
        output: the output layer, which stays in 16 bits.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    storage = torch.float32
    if quantise:
        for name, module in list(part.named_modules()):
            if type(module) in (torch.nn.Linear, Conv1D) and module is not output:
                part.set_submodule(name, _in_4_bits(module, runtime))
    for module in part.modules():
        if _is_4_bit(module) and hasattr(module.weight, "quant_state"):
            weight: Any = module.weight.to(runtime.device)
            module.quant_state = weight.quant_state
            module.weight = torch.nn.Parameter(weight.data.view(-1).view(storage).view(-1, 1), requires_grad=False)
    part.to(runtime.device)


def _in_4_bits(linear: Any, runtime: Runtime) -> Module:
    """A 4-bit layer that quantises the weight of `linear` as soon as it is moved; transformers' settings."""
    import torch
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    weight = linear.weight if isinstance(linear, torch.nn.Linear) else linear.weight.t()  # Conv1D holds the transpose
    outputs, inputs = weight.shape
    settings: Any = {"compress_statistics": True, "quant_type": "nf4"}
    with torch.device("meta"):
        layer = Linear4bit(  # type: ignore[no-untyped-call]
            inputs, outputs, linear.bias is not None, compute_dtype=runtime.dtype, **settings
        )
    layer.weight = Params4bit(weight.data, requires_grad=False, module=layer, **settings)
    if linear.bias is not None:
        layer.bias = linear.bias
    return layer


def data_parallel(model: Module, device: torch.device) -> DistributedDataParallel:
    """Average the adapters' gradients over the processes; the divided base has none."""
    from torch.nn.parallel import DistributedDataParallel

    # The adapters are equal already, because every process initialises them from the run's seed or loads the same file.
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        broadcast_buffers=False,
        init_sync=False,
        gradient_as_bucket_view=True,
    )


def held_bytes(model: Module) -> tuple[int, int]:
    """Bytes of the model's parameters that this process holds, and of all."""
    from torch.distributed.tensor import DTensor

    total = held = 0
    for parameter in model.parameters():
        total += parameter.nbytes
        held += parameter.to_local().nbytes if isinstance(parameter, DTensor) else parameter.nbytes
    return held, total
