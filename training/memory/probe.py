"""Measures one training step on the worst real batch, and restores the model afterwards."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from bitsandbytes.functional import GlobalPageManager
from transformers import Trainer

from training.data.collate import collate
from training.errors import ModelError, NotEnoughMemory
from training.memory.batches import BatchConfig
from training.memory.estimate import GIB
from training.model.base import checkpoint_layers

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from trl.trainer.sft_config import SFTConfig


@dataclass(frozen=True)
class Measurement:
    """Peak memory of one step in bytes (0 on a CPU), allocated and reserved, and the step's duration in seconds."""

    allocated: int
    reserved: int
    seconds: float
    tokens: int
    unused: tuple[str, ...] = ()  # trained parameters without a gradient


def worst_batch(windows: Dataset, micro_batch: int) -> list[dict[str, Any]]:
    """The windows with the most tokens, and among equals those with the most trained tokens; repeated if too few."""
    lengths = np.array([len(ids) for ids in windows["input_ids"]])
    trained = np.array([sum(label >= 0 for label in labels) for labels in windows["labels"]])
    order = np.lexsort((-trained, -lengths))[:micro_batch]
    return [windows[int(index)] for index in np.resize(order, micro_batch)]


def measure(
    model: PeftModel,
    args: SFTConfig,
    batch: list[dict[str, Any]],
    config: BatchConfig,
    *,
    packed: bool = True,
    warm: int = 0,
) -> Measurement:
    """Run forward, backward and a step of the optimizer on `batch`, then restore everything.

    The optimizer's moments are allocated before the measured pass, because every step but the first has them.

    Args:
        warm: passes before the measured one; kernels are compiled in the first pass, so a useful time needs one.
    """
    checkpoint_layers(model, config.checkpoint_layers)
    device = next(model.parameters()).device
    inputs = collate(batch, device, packed=packed)
    with restored_afterwards(model):
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(args)
        optimizer = optimizer_class(parameters, **settings)
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        # The gradients of the passes before stay in memory. Those of this pass are new, to find parameters without one.
        earlier = [torch.zeros_like(parameter) for parameter in parameters if args.gradient_accumulation_steps > 1]
        for _ in range(warm + 1):
            optimizer.zero_grad(set_to_none=True)
            _reset_peaks(device)
            start = time.perf_counter()
            _forward_and_backward(model, args, inputs)
            optimizer.step()
        unused = [
            name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
        ]
        allocated, reserved = _peaks(device)
        seconds = time.perf_counter() - start
        del optimizer, earlier
    return Measurement(allocated, reserved, seconds, int(inputs["input_ids"].numel()), tuple(unused))


def _forward_and_backward(model: PeftModel, args: SFTConfig, inputs: dict[str, Any]) -> None:
    half = torch.bfloat16 if args.bf16 else torch.float16
    model.train()
    with torch.autocast(inputs["input_ids"].device.type, dtype=half, enabled=args.bf16 or args.fp16):
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        loss = -outputs.log_probs.sum() / outputs.label_mask.sum().clamp(min=1)
    if not loss.requires_grad:
        raise ModelError("The layers of this model give adapters no gradient (Reformer): use a decoder such as Llama.")
    loss.backward()


def _reset_peaks(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)


def _peaks(device: torch.device) -> tuple[int, int]:
    if device.type != "cuda":
        return 0, 0
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)


@contextmanager
def restored_afterwards(model: torch.nn.Module) -> Iterator[None]:
    """Restore adapters, gradients, training mode and random states on exit.

    Also bitsandbytes' global list of paged tensors, which every paged optimizer extends and which keeps them alive.
    """
    adapters = {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    gpu_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    training = model.training
    paged_tensors = GlobalPageManager.get_instance().paged_tensors  # type: ignore[no-untyped-call]
    paged_before = len(paged_tensors)
    try:
        yield
    finally:
        del paged_tensors[paged_before:]
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in adapters:
                    parameter.copy_(adapters[name])
                    parameter.grad = None
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if gpu_states is not None:
            torch.cuda.set_rng_state_all(gpu_states)
        model.train(training)


def first_that_runs(
    model: PeftModel,
    batches: list[BatchConfig],
    windows: Dataset,
    arguments: Callable[[BatchConfig], SFTConfig],
    *,
    packed: bool = True,
    warm: int = 0,
) -> tuple[BatchConfig, Measurement]:
    """Measure `batches` in order and return the first that does not run out of memory.

    Raises:
        NotEnoughMemory: all of them run out of memory.
    """
    for batch in batches:
        try:
            rows = worst_batch(windows, batch.micro_batch)
            return batch, measure(model, arguments(batch), rows, batch, packed=packed, warm=warm)
        except torch.OutOfMemoryError:
            model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    smallest = batches[-1]
    raise NotEnoughMemory(
        f"Even {smallest.micro_batch} window(s) with {smallest.checkpoint_layers} checkpointed layers do not fit into the "
        f"GPU's {torch.cuda.mem_get_info()[1] / GIB:.0f} GiB: lower --max-tokens or --lora-r, or free GPU memory."
    )
