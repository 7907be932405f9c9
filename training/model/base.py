"""The base model, held in NF4, and its LoRA adapters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.config import RunConfig
from training.errors import ModelError, NotEnoughMemory, OptionError, first_line
from training.model import attention
from training.model.adapters import prepare_trained_layers
from training.model.added_tokens import resize_for_added_tokens
from training.model.architecture import Architecture, read_architecture
from training.model.identity import read_model_config
from training.model.runtime import Runtime
from training.model.sharding import shard_base

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

# What transformers and bitsandbytes raise about files that they cannot use.
UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, NotImplementedError)


# Parts of the names of trained parameters: adapters, rows of added tokens, and layers of --modules-to-save.
TRAINED_PARTS = ("lora_", "trainable_tokens_delta", "modules_to_save.")


def load_base(
    model: str,
    revision: str | None,
    config: RunConfig,
    runtime: Runtime,
    architecture: Architecture | None = None,
    *,
    shard: bool = False,
) -> PreTrainedModel:
    """Load the base model without gradients, in NF4 (or unquantised with `--quantization none`).

    Args:
        architecture: the model's, if it has been read already.
        shard: divide the model among the processes of the run.

    Raises:
        ModelError: the model cannot be read, or lacks weights.
        OptionError: `--quantization none` for a checkpoint in 4 bits.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    from training.log import log

    if architecture is None:
        architecture = read_architecture(read_model_config(model, revision), model)
    in_4_bits = architecture.in_4_bits
    attention.register()
    nf4 = transformers.BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=runtime.dtype,
    )
    quantise = config.quantization == "nf4"
    if in_4_bits and not quantise:
        raise OptionError(f"--quantization none: the weights of {model} are in 4 bits already; omit it.")
    if runtime.liger:
        _apply_liger(architecture.model_type)
    try:
        base, loading = getattr(transformers, architecture.auto_class).from_pretrained(
            model,
            revision=revision,
            dtype=runtime.dtype,
            quantization_config=nf4 if quantise and (in_4_bits or not shard) else None,
            device_map={"": "cpu" if shard else runtime.device},
            ignore_mismatched_sizes=True,  # `_check_complete` names them
            output_loading_info=True,
        )
    except torch.OutOfMemoryError as error:
        raise NotEnoughMemory(
            f"The weights of {model} do not fit into the memory of {runtime.device} ({first_line(error)}): use a larger GPU."
        ) from None
    except SafetensorError as error:
        raise ModelError(f"The files of {model} are damaged ({first_line(error)}): download the model again.") from None
    except UNREADABLE as error:
        raise ModelError(f"The model {model} cannot be loaded ({first_line(error)}).") from None
    attention.set_attention(base, runtime.attention)
    _check_complete(model, loading)
    if unused := sorted(loading["unexpected_keys"]):
        log(
            f"The checkpoint of {model} has {_named(unused)}, which the model that its config.json describes does not use."
        )
    _check_shapes(model, base)
    if in_4_bits:
        _use_run_precision(base, runtime)
    resize_for_added_tokens(base, model, config)
    base.requires_grad_(False)
    if shard:
        shard_base(base, runtime, quantise=quantise and not in_4_bits)
    text_config = base.config.get_text_config()
    text_config.use_cache = False
    text_config.output_router_logits = False
    if hasattr(text_config, "altup_coef_clip"):
        vars(text_config)["altup_coef_clip"] = None  # Gemma 3n would clip weights in place; it accepts no None itself
    _disable_cpu_repacking(base)
    loaded: PreTrainedModel = base
    return loaded


def _check_shapes(model: str, base: torch.nn.Module) -> None:
    """Check the shapes of weights in 4 bits, which transformers does not compare with the model's.

    Raises:
        ModelError: one differs.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for path, module in base.named_modules():
        state = getattr(module.weight, "quant_state", None) if isinstance(module, Linear4bit) else None
        if state is not None and tuple(state.shape) != (module.out_features, module.in_features):
            expected = (module.out_features, module.in_features)
            raise ModelError(_wrong_shape(model, f"{path}.weight", tuple(state.shape), expected))


def _check_complete(model: str, loading: dict[str, Any]) -> None:
    """Check that the checkpoint had every weight: transformers initialises missing ones at random, with a warning only.

    Raises:
        ModelError: some are missing or have another shape.
    """
    missing, mismatched = sorted(loading["missing_keys"]), sorted(loading["mismatched_keys"])
    if missing:
        raise ModelError(f"The checkpoint of {model} lacks {_named(missing)}: download it again, or use another model.")
    if mismatched:
        name, found, expected = mismatched[0]
        raise ModelError(_wrong_shape(model, name, tuple(found), tuple(expected)))


def _wrong_shape(model: str, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    return (
        f"The checkpoint of {model} has the shape {found} for {name}, and the model {expected}: download it again, or use "
        "another model."
    )


def _named(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _apply_liger(model_type: str) -> None:
    """Apply liger's norm, rotary embedding and MLP to this kind of model; the loss stays with trl's fused head."""
    from inspect import signature

    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    apply = MODEL_TYPE_TO_APPLY_LIGER_FN.get(model_type)
    if apply is None:
        return
    wanted = {"rope": True, "rms_norm": True, "cross_entropy": False, "fused_linear_cross_entropy": False}
    supported = {name: value for name, value in wanted.items() if name in signature(apply).parameters}
    try:
        apply(**supported)
    except NotImplementedError:  # some architectures have no fused rotary embedding
        apply(**supported | {"rope": False})


def _use_run_precision(base: torch.nn.Module, runtime: Runtime) -> None:
    """Compute in the run's precision with a checkpoint in 4 bits, which transformers loads in the precision of its files.

    Tensors in float32 stay, because some architectures need them.
    """
    import torch
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    for module in base.modules():
        if isinstance(module, Linear4bit):
            weight: Any = module.weight
            module.compute_dtype = weight.quant_state.dtype = runtime.dtype
    for parameter in base.parameters():
        if not isinstance(parameter, Params4bit) and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.to(runtime.dtype)


def _disable_cpu_repacking(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on CPUs with AVX512-BF16.

    bitsandbytes 0.50 repacks permanently on the first evaluation forward (nn/modules.py, Linear4bit.forward);
    later gradients and dequantised weights are then wrong, without an error.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def load_adapted(model: str, revision: str | None, adapter: Path, config: RunConfig, runtime: Runtime) -> PeftModel:
    """Load the base model with a trained adapter on it, in float32 as it was trained."""
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(load_base(model, revision, config, runtime), str(adapter))
    return adapters_to_fp32(prepare_trained_layers(adapted)).eval()


def adapters_to_fp32(model: PeftModel) -> PeftModel:
    """Cast the adapters to float32, in place.

    peft may create them in the base's type. In float32 a resumed run is bit-equal, and fp16's gradient scaler works.
    """
    import torch

    for name, parameter in model.named_parameters():
        if parameter.requires_grad or any(part in name for part in TRAINED_PARTS):
            parameter.data = parameter.data.to(torch.float32)
    return model


def checkpoint_layers(model: torch.nn.Module, count: int) -> None:
    """Turn gradient checkpointing on for the first `count` decoder layers, and off for the others.

    A checkpointed layer keeps only its input and computes its activations again in the backward pass.
    """
    from functools import partial

    import torch
    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    decoder = attention.without_adapters(model).get_decoder()
    layers: list[Any] = [module for module in decoder.modules() if isinstance(module, GradientCheckpointingLayer)]
    uses_dropout = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    recompute = partial(checkpoint, use_reentrant=False, preserve_rng_state=uses_dropout)  # saving RNG states is slow
    for number, layer in enumerate(layers):
        layer.gradient_checkpointing = number < count
        layer._gradient_checkpointing_func = recompute
