"""The base model, held in NF4, and its LoRA adapters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataprep.common.text import nearest
from training.config import RunConfig
from training.errors import ModelError, OptionError
from training.model import attention
from training.model.runtime import Runtime
from training.model.sizes import read_model_config

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def load_base(model: str, revision: str | None, config: RunConfig, runtime: Runtime) -> PreTrainedModel:
    """Load the base model without gradients, in NF4 (or unquantised with `--quantization none`).

    Raises:
        ModelError: the model cannot be read.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    attention.register()
    nf4 = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=runtime.dtype,
    )
    if runtime.liger:
        _apply_liger(str(read_model_config(model, revision).get("model_type")))
    try:
        base = AutoModelForCausalLM.from_pretrained(
            model,
            revision=revision,
            dtype=runtime.dtype,
            quantization_config=nf4 if config.quantization == "nf4" else None,
            device_map={"": runtime.device},
            attn_implementation=runtime.attention,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"The model {model} cannot be loaded ({str(error).splitlines()[0]}).") from None
    base.requires_grad_(False)
    base.config.use_cache = False
    _disable_cpu_repacking(base)
    return base


def _apply_liger(model_type: str) -> None:
    """Apply liger's norm, rotary embedding and MLP to this kind of model; the loss stays with trl's fused head."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    apply = MODEL_TYPE_TO_APPLY_LIGER_FN.get(model_type)
    if apply is not None:
        apply(rope=True, rms_norm=True, cross_entropy=False, fused_linear_cross_entropy=False)


def _disable_cpu_repacking(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on CPUs with AVX512-BF16.

    bitsandbytes 0.50 repacks permanently on the first evaluation forward (nn/modules.py, Linear4bit.forward);
    later gradients and dequantised weights are then wrong, without an error.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def add_adapters(base: PreTrainedModel, config: RunConfig) -> PeftModel:
    """Put fresh LoRA adapters on `base`. B is zero, so that the outputs do not change yet; the caller sets the seed.

    Raises:
        OptionError: `--targets` names a layer that the model lacks, or the output layer.
    """
    from peft import LoraConfig, get_peft_model

    targets = config.targets if config.targets == "all-linear" else [name.strip() for name in config.targets.split(",")]
    if "lm_head" in targets:
        raise OptionError(
            "--targets lm_head: the output layer cannot have an adapter, because the loss is fused with it; remove it."
        )
    if config.targets != "all-linear":
        _check_targets(targets, base)
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(base, lora)
    except ValueError as error:
        raise OptionError(
            f"--targets {config.targets} does not fit this model ({str(error).splitlines()[0]})."
        ) from None


def _check_targets(targets: Sequence[str], base: torch.nn.Module) -> None:
    """Check that the model has every target: peft ignores missing ones silently as long as it finds one of them."""
    import torch

    modules = dict(base.named_modules())
    linear = {name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, torch.nn.Linear)}
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in modules if name):
            raise OptionError(
                f"--targets names '{target}', which the model lacks. {nearest(target, linear - {'lm_head'})}"
            )


def load_adapted(model: str, revision: str | None, adapter: Path, config: RunConfig, runtime: Runtime) -> PeftModel:
    """Load the base model with a trained adapter on it, in float32 as it was trained."""
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(load_base(model, revision, config, runtime), str(adapter))
    return adapters_to_fp32(adapted).eval()


def adapters_to_fp32(model: PeftModel) -> PeftModel:
    """Cast the adapters to float32, in place.

    trl casts the adapters of a quantised model to bf16, but a checkpoint restores them in fp32, so that a resumed run
    would differ. In float32 a resumed run is bit-equal, and fp16's gradient scaler works.
    """
    import torch

    for name, parameter in model.named_parameters():
        if parameter.requires_grad or "lora_" in name:
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

    layers: list[Any] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    uses_dropout = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    recompute = partial(checkpoint, use_reentrant=False, preserve_rng_state=uses_dropout)  # saving RNG states is slow
    for number, layer in enumerate(layers):
        layer.gradient_checkpointing = number < count
        layer._gradient_checkpointing_func = recompute
