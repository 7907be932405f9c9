"""The choice of the batch configuration by speed and memory."""

from __future__ import annotations

import pytest

from tests.support.shapes import llama_2_7b_sizes
from training.errors import NotEnoughMemory
from training.memory.batches import BatchConfig, candidate_batches, fitting_batches
from training.memory.estimate import GIB, MemoryInputs, estimate_memory

SIZES = llama_2_7b_sizes()


def need(batch: BatchConfig) -> int:
    tokens = batch.micro_batch * 2048
    inputs = MemoryInputs(
        tokens, int(tokens * 0.85), batch.checkpoint_layers, batch.optimizer, 64, "all-linear", True, 2, True, False
    )
    return estimate_memory(SIZES, inputs).total


def test_more_memory_gives_a_larger_batch_with_fewer_checkpointed_layers() -> None:
    def chosen(gib: float) -> BatchConfig:
        return fitting_batches(candidate_batches(32, 8, 2048, {}, on_gpu=True), need, int(gib * GIB))[0]

    assert chosen(139) == BatchConfig(8, 0, "adamw")
    assert chosen(44) == BatchConfig(4, 0, "adamw")
    assert chosen(15).checkpoint_layers > 16
    assert chosen(7).optimizer == "paged_adamw_8bit"
    with pytest.raises(NotEnoughMemory, match="lower --max-tokens"):
        chosen(4)


def test_options_of_the_user_are_kept() -> None:
    fixed = {"micro_batch": 3, "checkpoint_layers": 5, "optimizer": "adamw"}
    assert candidate_batches(32, 8, 2048, fixed, on_gpu=True) == [BatchConfig(3, 5, "adamw")]
