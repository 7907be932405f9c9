"""One measured step on the worst real batch, which leaves no trace: what will fit is tried before the first step."""

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

from training.data.holdout import lay
from training.errors import MemoryShort
from training.memory.estimate import GIB, Choice
from training.model.base import checkpoint_layers

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from trl.trainer.sft_config import SFTConfig


@dataclass(frozen=True)
class Measured:
    """Peak memory of one step in bytes (0 on a CPU), allocated and reserved, and how long the step took, in seconds."""

    allocated: int
    reserved: int
    seconds: float
    tokens: int


def worst_batch(windows: Dataset, micro_batch: int) -> list[dict[str, Any]]:
    """The windows that take the most: of those with the most tokens, the ones with the most trained ones."""
    lengths = np.array([len(ids) for ids in windows["input_ids"]])
    trained = np.array([sum(label >= 0 for label in labels) for labels in windows["labels"]])
    order = np.lexsort((-trained, -lengths))[:micro_batch]
    return [windows[int(place)] for place in np.resize(order, micro_batch)]


def measure(
    model: PeftModel, args: SFTConfig, batch: list[dict[str, Any]], choice: Choice, *, warm: int = 0
) -> Measured:
    """Forward, backward and a step of the optimiser on `batch`, then everything as it was before.

    The optimiser's moments are made before the pass that counts: they are there in every step but the first. Kernels are
    compiled in the first pass: a time worth telling takes `warm` passes before it.
    """
    checkpoint_layers(model, choice.checkpoint_layers)
    device = next(model.parameters()).device
    inputs = lay(batch, device)
    with untouched(model):
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
        optimizer = kind(parameters, **settings)
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for _ in range(warm + 1):
            optimizer.zero_grad(set_to_none=True)
            _reset(device)
            began = time.perf_counter()
            _pass(model, args, inputs)
            optimizer.step()
        allocated, reserved = _peaks(device)
        seconds = time.perf_counter() - began
        del optimizer
    return Measured(allocated, reserved, seconds, int(inputs["input_ids"].numel()))


def _pass(model: PeftModel, args: SFTConfig, inputs: dict[str, Any]) -> None:
    half = torch.bfloat16 if args.bf16 else torch.float16
    model.train()
    with torch.autocast(inputs["input_ids"].device.type, dtype=half, enabled=args.bf16 or args.fp16):
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        loss = -outputs.log_probs.sum() / outputs.label_mask.sum().clamp(min=1)
    loss.backward()


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)


def _peaks(device: torch.device) -> tuple[int, int]:
    if device.type != "cuda":
        return 0, 0
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)


@contextmanager
def untouched(model: torch.nn.Module) -> Iterator[None]:
    """Adapters, gradients, mode and random states afterwards as before.

    So is bitsandbytes' list of paged tensors, which grows with every paged optimiser and keeps them alive.
    """
    before = {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters() if p.requires_grad}
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    training = model.training
    paged = GlobalPageManager.get_instance().paged_tensors  # type: ignore[no-untyped-call]
    known = len(paged)
    try:
        yield
    finally:
        del paged[known:]
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in before:
                    parameter.copy_(before[name])
                    parameter.grad = None
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_gpu is not None:
            torch.cuda.set_rng_state_all(on_gpu)
        model.train(training)


def settle(
    model: PeftModel,
    choices: list[Choice],
    windows: Dataset,
    arguments: Callable[[Choice], SFTConfig],
    *,
    warm: int = 0,
) -> tuple[Choice, Measured]:
    """The first of `choices` that really runs; they come fastest first and all fit by the estimate.

    Raises:
        MemoryShort: none of them does.
    """
    for choice in choices:
        try:
            return choice, measure(
                model, arguments(choice), worst_batch(windows, choice.micro_batch), choice, warm=warm
            )
        except torch.OutOfMemoryError:
            model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    smallest = choices[-1]
    raise MemoryShort(
        f"Not even {smallest.micro_batch} window(s) with {smallest.checkpoint_layers} checkpointed layers fit into the "
        f"GPU's {torch.cuda.mem_get_info()[1] / GIB:.0f} GiB: lower --max-tokens or --lora-r, or free the GPU."
    )
