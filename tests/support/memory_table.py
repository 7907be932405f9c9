"""The table of GPU sizes in docs/qlora.md, computed by the estimate: `python -m tests.support.memory_table` writes it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.config import RunConfig
from training.memory.batches import BatchConfig, memory_inputs
from training.memory.estimate import GIB, estimate_memory
from training.memory.gpu_sizes import GPU_SIZES, fits_by_size
from training.model import attention
from training.model.architecture import read_architecture
from training.model.runtime import Runtime
from training.model.sizes import ModelSizes

PAGE = Path(__file__).parents[2] / "docs" / "qlora.md"
BEGIN, END = "<!-- memory: made by `python -m tests.support.memory_table` -->", "<!-- end of memory -->"

# hidden, MLP, layers, heads, key and value heads, vocabulary
SHAPES = {
    "1B (Llama 3.2)": (2048, 8192, 16, 32, 8, 128256),
    "3B (Llama 3.2)": (3072, 8192, 28, 24, 8, 128256),
    "7B (Llama 2)": (4096, 11008, 32, 32, 32, 32000),
    "13B (Llama 2)": (5120, 13824, 40, 40, 40, 32000),
    "34B (Code Llama)": (8192, 22016, 48, 64, 8, 32000),
    "70B (Llama 2)": (8192, 28672, 80, 64, 8, 32000),
}
TIED = ("1B (Llama 3.2)", "3B (Llama 3.2)")  # the output layer is the input embeddings
DEFAULTS = RunConfig(data=Path(), model="m")
SMALLER = {"r 16": {"lora_r": 16}, "r 16, 512 tokens": {"lora_r": 16, "max_tokens": 512}}
GPU = Runtime("cuda:0", "bf16", attention.VARLEN, liger=True)
WINDOWS = 8  # in a step, the largest default


def model_config(name: str) -> dict[str, Any]:
    """The config.json of a model of `SHAPES`."""
    keys = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
    )
    return dict(zip(keys, SHAPES[name], strict=True)) | {"model_type": "llama", "tie_word_embeddings": name in TIED}


def least_memory(sizes: ModelSizes, config: RunConfig) -> float:
    """GiB that the smallest batch configuration needs by the estimate."""
    batch = BatchConfig(1, sizes.layers, "paged_adamw_8bit")
    return estimate_memory(sizes, memory_inputs(config, GPU, sizes, batch, None, accumulates=True)).total / GIB


def cells(sizes: ModelSizes, shards: int) -> list[str]:
    """What fits on each size of a GPU: windows in a pass, the share of layers that are recomputed, options to lower."""
    texts = ["–"] * len(GPU_SIZES)
    for note, options in [("", {}), *SMALLER.items()]:
        if "–" not in texts:
            break
        fits = fits_by_size(replace(DEFAULTS, **options), sizes, None, None, WINDOWS, shards)  # type: ignore[arg-type]
        for column, batch in enumerate(fits.values()):
            if batch is not None and texts[column] == "–":
                paged = " p" if batch["optimizer"] != "adamw" else ""
                texts[column] = f"{batch['micro_batch']} · {batch['checkpoint_layers'] / sizes.layers:.0%}{paged}"
                texts[column] += f"<br>{note}" if note else ""
    return texts


def table() -> str:
    """Markdown: a row for each model, and for the largest one divided among two GPUs; a column for each size of a GPU."""
    lines = [
        f"| model | least GiB | {' | '.join(f'{size} GB' for size in GPU_SIZES)} |",
        f"|---|---:|{'---|' * len(GPU_SIZES)}",
    ]
    for name in SHAPES:
        sizes = read_architecture(model_config(name), name).sizes
        least = f"{least_memory(sizes, replace(DEFAULTS, lora_r=16, max_tokens=512)):.1f}"
        for shards in (1, 2):
            if shards == 1 or name.startswith(("34B", "70B")):
                title = name if shards == 1 else f"{name} on two GPUs with `--shard`"
                lines.append(f"| {title} | {least if shards == 1 else ''} | {' | '.join(cells(sizes, shards))} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """`text` with the table between its two marks."""
    return re.sub(
        f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: f"{BEGIN}\n{table()}\n{END}", text, flags=re.DOTALL
    )


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")
