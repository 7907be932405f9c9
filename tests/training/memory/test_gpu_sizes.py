"""Which sizes of GPUs a run fits."""

from __future__ import annotations

from pathlib import Path

from tests.support.shapes import llama_2_7b_sizes
from training.config import RunConfig
from training.memory.estimate import GIB
from training.memory.gpu_sizes import fit_lines, fit_sentence, fits_by_size, usable_bytes

CONFIG = RunConfig(data=Path("."), model="m")
SIZES = llama_2_7b_sizes()


def test_the_driver_and_cuda_keep_part_of_a_gpu() -> None:
    assert 22.5 * GIB < usable_bytes(24) < 23 * GIB


def test_a_model_that_fits_no_gpu_fits_when_it_is_divided() -> None:
    config = RunConfig(data=Path("."), model="m", quantization="none")
    whole = fits_by_size(config, SIZES, None, None, 8)
    halves = fits_by_size(config, SIZES, None, None, 8, shards=2)
    assert whole["12"] is None and halves["12"] is not None


def test_the_sentence_names_the_smallest_size_or_the_way_out() -> None:
    assert "a GPU of 8 GB or more" in fit_sentence(fits_by_size(CONFIG, SIZES, None, None, 8))
    assert "--shard" in fit_sentence({"8": None, "80": None})


def test_sizes_with_the_same_configuration_share_a_line() -> None:
    batch = {"micro_batch": 2, "checkpoint_layers": 0, "optimizer": "adamw"}
    first, second = fit_lines({"8": None, "12": batch, "16": batch})
    assert first.startswith("On a GPU of 8 GB: does not fit") and "--shard" in first
    assert second.split(": ") == ["            12, 16 GB", "2 rows in a pass, 0 layers checkpointed, adamw"]
