"""The 4-bit base model and its adapters."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.config import RunConfig
from training.errors import ModelError, OptionError, nearest
from training.model import attention
from training.model.tokenizer import CONFIG, Vocabulary, locate, read_facts

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

LARGE = 2_000_000_000  # weights; a model over this does not train on a CPU in a time anybody waits for


@dataclass(frozen=True)
class Place:
    """Where and in what arithmetic a run computes: chosen once, the same on resume."""

    device: str  # cpu or cuda:N
    precision: str  # bf16, fp16 or fp32
    attention: str  # the name that transformers knows it by
    liger: bool

    @property
    def dtype(self) -> torch.dtype:
        import torch

        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[self.precision]


def choose_place(config: RunConfig) -> Place:
    """Device, arithmetic, attention and kernels for this machine.

    Raises:
        OptionError: something was asked for that the machine lacks.
    """
    import torch

    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise OptionError("--device cuda: no GPU is visible to PyTorch here; take --device cpu with --model tiny.")
    on_gpu = cuda and config.device != "cpu"
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    best = ("bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16") if on_gpu else "fp32"
    precision = best if config.precision == "auto" else config.precision
    if precision == "bf16" and on_gpu and best == "fp16":
        raise OptionError("--precision bf16: this GPU computes no bf16; take fp16.")
    if precision == "fp16" and not on_gpu:
        raise OptionError("--precision fp16 needs a GPU: leave it at auto, which is fp32 on a CPU.")
    return Place(str(device), precision, attention.choose(config.attention, device), _liger(config.kernels, on_gpu))


def _liger(kernels: str, on_gpu: bool) -> bool:
    from importlib.util import find_spec

    there = find_spec("liger_kernel") is not None
    if kernels == "liger" and not (there and on_gpu):
        raise OptionError("--kernels liger needs a GPU and the package liger-kernel: pip install liger-kernel.")
    return kernels != "none" and there and on_gpu


def read_shape(model: str, revision: str | None) -> dict[str, Any]:
    """The model's config.json.

    Raises:
        ModelError: it has none, or one that cannot be read.
    """
    return read_facts(_config_of(model, revision))


def _config_of(model: str, revision: str | None) -> Path:
    path = locate(model, CONFIG, revision)
    if path is None:
        raise ModelError(f"{model} has no config.json: it is no model of transformers.")
    return path


def revision_of(model: str, revision: str | None) -> str:
    """The commit of a model on the Hub; of a folder, a digest of its config.json and its files' sizes."""
    path = _config_of(model, revision)
    if not Path(model).expanduser().is_dir():
        return path.parent.name
    digest = hashlib.sha256(path.read_bytes())
    for file in sorted(path.parent.glob("*.safetensors")):
        digest.update(f"{file.name}:{file.stat().st_size}".encode())
    return digest.hexdigest()[:16]


def check_fit(shape: dict[str, Any], vocabulary: Vocabulary, place: Place, name: str) -> None:
    """The tokenizer's ids exist in the model, and the model is not hopelessly large for this machine.

    Raises:
        ModelError: says what is off.
    """
    from training.memory.estimate import count_weights

    if vocabulary.size > int(shape.get("vocab_size", 0)):
        raise ModelError(
            f"The tokenizer of {name} knows {vocabulary.size} ids and the model {shape.get('vocab_size')}: they do not "
            "belong together (embeddings are never resized here)."
        )
    weights = count_weights(shape).total
    if place.device == "cpu" and weights > LARGE:
        raise ModelError(
            f"{name} has {weights / 1e9:.1f} billion weights and there is no GPU here: QLoRA on it takes one with about "
            f"{max(6.0, weights * 1.1 / 2**30):.0f} GB; to try the whole path without one, take --model tiny."
        )


def load_base(model: str, revision: str | None, config: RunConfig, place: Place) -> PreTrainedModel:
    """The base model, held in NF4 (or as it is with `--quantization none`), without gradients.

    Raises:
        ModelError: it cannot be read.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    attention.register()
    nf4 = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=place.dtype,
    )
    if place.liger:
        _fuse(str(read_shape(model, revision).get("model_type")))
    try:
        base = AutoModelForCausalLM.from_pretrained(
            model,
            revision=revision,
            dtype=place.dtype,
            quantization_config=nf4 if config.quantization == "nf4" else None,
            device_map={"": place.device},
            attn_implementation=place.attention,
        )
    except (OSError, ValueError, SafetensorError) as fault:
        raise ModelError(f"The model {model} cannot be loaded ({str(fault).splitlines()[0]}).") from None
    base.requires_grad_(False)
    base.config.use_cache = False
    _spare_cpu_repacking(base)
    return base


def _fuse(model_type: str) -> None:
    """Liger's norm, rotary embedding and MLP for this kind of model; its loss stays off: trl's head does that."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as KNOWN

    apply = KNOWN.get(model_type)
    if apply is not None:
        apply(rope=True, rms_norm=True, cross_entropy=False, fused_linear_cross_entropy=False)


def _spare_cpu_repacking(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on CPUs with AVX512-BF16.

    It does so for good on the first evaluation forward, after which gradients and dequantised weights are wrong,
    without an error (bitsandbytes 0.50, nn/modules.py, Linear4bit.forward).
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def add_adapters(base: PreTrainedModel, config: RunConfig) -> PeftModel:
    """`base` with fresh LoRA adapters (B is zero, so that nothing changes at first), seeded by the caller.

    Raises:
        OptionError: `--targets` names a layer that the model lacks, or the output layer.
    """
    from peft import LoraConfig, get_peft_model

    targets = config.targets if config.targets == "all-linear" else [name.strip() for name in config.targets.split(",")]
    if "lm_head" in targets:
        raise OptionError("--targets lm_head: the loss is fused with the output layer, which takes no adapter.")
    if config.targets != "all-linear":
        _insist_on(targets, base)
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(base, lora)
    except ValueError as fault:
        raise OptionError(
            f"--targets {config.targets} does not fit this model ({str(fault).splitlines()[0]})."
        ) from None


def _insist_on(targets: Sequence[str], base: torch.nn.Module) -> None:
    """Each target is a layer: peft leaves out in silence what it does not find, as long as it finds one."""
    import torch

    modules = dict(base.named_modules())
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in modules if name):
            linear = {
                name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, torch.nn.Linear)
            }
            raise OptionError(
                f"--targets names '{target}', which the model lacks. {nearest(target, linear - {'lm_head'})}"
            )


def load_adapted(model: str, revision: str | None, adapter: Path, config: RunConfig, place: Place) -> PeftModel:
    """The base model with a trained adapter on it, in fp32 as it was trained."""
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(load_base(model, revision, config, place), str(adapter))
    return in_fp32(adapted).eval()


def in_fp32(model: PeftModel) -> PeftModel:
    """Adapters in float32.

    trl casts those of a quantised model to bf16, and a resumed run brings them back in fp32: not the same run. In fp32
    a resumed run is bit-equal, and fp16's gradient scaler works.
    """
    import torch

    for name, parameter in model.named_parameters():
        if parameter.requires_grad or "lora_" in name:
            parameter.data = parameter.data.to(torch.float32)
    return model


def checkpoint_layers(model: torch.nn.Module, count: int) -> None:
    """Compute the activations of the first `count` decoder layers again in the backward pass; keep those of the others."""
    from functools import partial

    import torch
    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    random = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=random)  # keeping random states costs time
    for number, layer in enumerate(layers):
        layer.gradient_checkpointing = number < count
        layer._gradient_checkpointing_func = again
