"""A tiny NF4 model with adapters, its windows and trl's arguments, for the tests of `training.model` and `.memory`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from torch import Tensor
    from trl.trainer.sft_config import SFTConfig


class Adapted(NamedTuple):
    """The model, its training windows, and trl's arguments for it."""

    model: PeftModel
    windows: Dataset
    arguments: SFTConfig


def adapted_tiny_model(build_folder: Path, scratch: Path) -> Adapted:
    """Load the model `tiny` for a build, as a run on a CPU does."""
    from training.config import RunConfig
    from training.data.training_data import load_training_data, open_training_build
    from training.data.windows import window_dataset
    from training.loop.arguments import trainer_arguments
    from training.memory.batches import BatchConfig
    from training.model.runtime import choose_runtime
    from training.model.tokenizer import load_tokenizer
    from training.run import base_model_name, load_with_new_adapters
    from training.run_folder import RunFolder

    config = RunConfig(data=build_folder, model="tiny", device="cpu", held_out=0)
    build = open_training_build(config)
    folder = RunFolder(scratch)
    name = base_model_name(config, build, folder)
    runtime = choose_runtime(config)
    prepared = load_training_data(config, build, load_tokenizer(name))
    windows, _ = window_dataset(prepared.train.labelled, 512, seed=0)
    batch = BatchConfig(1, 0, "adamw")
    args = trainer_arguments(config, runtime, batch, folder, accumulate=1, steps=1)
    return Adapted(load_with_new_adapters(name, config, runtime), windows, args)


def gradients(model: PeftModel, inputs: dict[str, Any], tokens: int) -> Tensor:
    """All gradients after one more backward pass of the loss per token, as one vector."""
    import torch

    outputs = model(**inputs, use_cache=False, fused_lm_head=True)
    (-outputs.log_probs.sum() / tokens).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()


def randomise_adapters(model: PeftModel) -> None:
    """Make the adapters change the outputs: B is zero at first."""
    import torch

    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=0.02)


@contextmanager
def fused(model: PeftModel) -> Iterator[int]:
    """`fuse_adapters` for the duration of the block; gives the number of fused layers."""
    from training.model.fused_lora import fuse_adapters

    count = fuse_adapters(model)
    try:
        yield count
    finally:
        for module in model.modules():
            if "lora_A" in module._modules:
                module.__dict__.pop("forward", None)
