"""Which sizes of GPUs a run fits."""

from __future__ import annotations

from pathlib import Path

from tests.support.shapes import llama_2_7b_sizes
from training.config import RunConfig
from training.memory.estimate import GIB
from training.memory.gpu_sizes import fit_lines, fit_sentence, fits_by_size, gpus_to_divide, usable_bytes

CONFIG = RunConfig(data=Path("."), model="m")
SIZES = llama_2_7b_sizes()


def test_the_driver_and_cuda_keep_part_of_a_gpu() -> None:
    assert 22.5 * GIB < usable_bytes(24) < 23 * GIB


def test_a_model_that_fits_no_gpu_fits_when_it_is_divided() -> None:
    config = RunConfig(data=Path("."), model="m", quantization="none")
    whole = fits_by_size(config, SIZES, None, None, 8)
    halves = fits_by_size(config, SIZES, None, None, 8, shards=2)
    assert whole["12"] is None and halves["12"] is not None


def test_the_fewest_gpus_that_hold_a_divided_model_are_named() -> None:
    config = RunConfig(data=Path("."), model="m", quantization="none")
    fits = fits_by_size(config, SIZES, None, None, 8)
    gpus = gpus_to_divide(fits, config, SIZES, None, None, 8)
    assert gpus == {"8": 4, "12": 2, "16": 2}
    assert fits_by_size(config, SIZES, None, None, 4, shards=2)["8"] is None


def test_the_sentence_names_the_smallest_size_or_the_way_out() -> None:
    assert "a GPU of 8 GB or more" in fit_sentence(fits_by_size(CONFIG, SIZES, None, None, 8))
    assert "--shard" in fit_sentence({"8": None, "80": None})


def test_sizes_with_the_same_configuration_share_a_line() -> None:
    batch = {"micro_batch": 2, "checkpoint_layers": 0, "optimizer": "adamw"}
    first, *others, second = fit_lines({"4": None, "8": None, "12": batch, "16": batch}, {"4": None, "8": 2})
    assert first == "On a GPU of 4 GB: does not fit; lower --max-tokens or --lora-r"
    assert others == [
        "            8 GB: does not fit; lower --max-tokens or --lora-r, or divide the model among 2 of them with --shard"
    ]
    assert second.split(": ") == ["            12, 16 GB", "2 rows in a pass, 0 layers checkpointed, adamw"]
