"""The runtime of a run: device, precision, attention implementation and kernels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from training.config import RunConfig
from training.errors import OptionError
from training.model import attention

if TYPE_CHECKING:
    import torch


def forked_random_state(device: torch.device) -> AbstractContextManager[None]:
    """Restore PyTorch's random states of the CPU and of one device after the block.

    Without a device, `fork_rng` initialises every GPU of the machine in every process, which takes memory on each.
    """
    import torch

    forked: AbstractContextManager[None] = torch.random.fork_rng([device] if device.type == "cuda" else [])
    return forked


@dataclass(frozen=True)
class Runtime:
    """Device and arithmetic of a run; chosen once, and the same when the run is resumed."""

    device: str  # "cpu" or "cuda:N"
    precision: str  # "bf16", "fp16" or "fp32"
    attention: str  # name in transformers' AttentionInterface
    liger: bool  # whether liger-kernel's fused kernels are used

    def as_record(self) -> dict[str, Any]:
        """The runtime as run.json holds it, without the device's number, which may differ when the run is resumed."""
        return {**asdict(self), "device": self.device.partition(":")[0]}

    @property
    def packed(self) -> bool:
        """Whether the attention keeps packed conversations apart; otherwise each conversation has a row of its own."""
        return self.attention in attention.PACKING

    @property
    def dtype(self) -> torch.dtype:
        """The PyTorch type of `precision`."""
        import torch

        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[self.precision]


def choose_runtime(config: RunConfig) -> Runtime:
    """Choose device, precision, attention and kernels for this machine.

    Raises:
        OptionError: an option asks for something that the machine lacks.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise OptionError("--device cuda: PyTorch sees no GPU on this machine; use --device cpu with --model tiny.")
    on_gpu = has_gpu and config.device != "cpu"
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    best = ("bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16") if on_gpu else "fp32"
    precision = best if config.precision == "auto" else config.precision
    if precision == "bf16" and on_gpu and best == "fp16":
        raise OptionError("--precision bf16: this GPU does not support bf16; use fp16.")
    if precision == "fp16" and not on_gpu:
        raise OptionError("--precision fp16 needs a GPU; --precision auto uses fp32 on a CPU.")
    implementation = attention.choose_attention(config.attention, device)
    return Runtime(str(device), precision, implementation, _use_liger(config.kernels, on_gpu))


def _use_liger(kernels: str, on_gpu: bool) -> bool:
    from importlib.util import find_spec

    available = on_gpu and find_spec("liger_kernel") is not None
    if kernels == "liger" and not available:
        raise OptionError("--kernels liger needs a GPU and the package liger-kernel: pip install liger-kernel.")
    return kernels != "none" and available


def runtime_of_run(config: RunConfig, recorded: Mapping[str, Any]) -> Runtime:
    """This machine's runtime for a finished run: in the run's precision, and packed only if the run was packed.

    The precision matters, because what NF4 keeps of a weight depends on the type that the weight comes in.

    Args:
        recorded: `place` of run.json.
    """
    gpu_only = {"device": "cuda", "attention": "varlen", "kernels": "liger"}  # this machine may have no GPU
    automatic: dict[str, Any] = {name: "auto" for name, value in gpu_only.items() if getattr(config, name) == value}
    runtime = choose_runtime(replace(config, precision="auto", **automatic))
    packed = recorded["attention"] in attention.PACKING
    return replace(
        runtime,
        precision=recorded["precision"],
        attention=runtime.attention if packed else recorded["attention"],
    )
