"""Generation on a GPU: with a replayed CUDA graph, with launched kernels, and as PyTorch and transformers do it by themselves.

    python tests/bench/generate.py [--models /dev/shm] [--prompts 8] [--tokens 256] [--profile]

On an H100 PyTorch's first choice for attention is cuDNN, which builds a plan for each new length of the growing cache; the
project switches it off (`training.model.attention.register`). `training generate`, `chat` and the stop check after a run also
record the forward pass of one token once and replay it (`training.after.cuda_graph`). The model has the shape of Llama 2 7B in
NF4 and random weights, with new adapters of rank 64, and never ends an answer by itself. Prompts are the first questions of
the real guanaco rows.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.qlora import made  # noqa: E402
from tests.support.training_builds import guanaco_rows, write_build  # noqa: E402

GRAPHED = "training.after.generate.graphed_decoding"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("/dev/shm"), help="folder of the model and the build")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256, help="new tokens of each answer")
    parser.add_argument("--profile", action="store_true", help="also print what 32 tokens spend their time on")
    args = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a GPU.")
    from training.versions import library_versions

    print(f"{torch.cuda.get_device_name()}; {library_versions()}", flush=True)
    answer = load(args.models)
    timed(answer, args.prompts, 16)  # compiles kernels, loads libraries
    for prompts in sorted({1, args.prompts}):
        with mock.patch(GRAPHED, lambda *_: nullcontext({})):
            torch.backends.cuda.enable_cudnn_sdp(True)
            stock = timed(answer, prompts, args.tokens)  # once: its plans are kept for the lengths that it has seen
            torch.backends.cuda.enable_cudnn_sdp(False)
            launched = timed(answer, prompts, args.tokens)
        replayed = timed(answer, prompts, args.tokens)
        print(
            f"{prompts} prompts, {args.tokens} tokens: PyTorch's choice {stock:.2f} s, without cuDNN {launched:.2f} s, "
            f"replayed {replayed:.2f} s ({1000 * replayed / args.tokens:.1f} ms a token): {stock / replayed:.1f} and "
            f"{launched / replayed:.1f} times as fast",
            flush=True,
        )
    if args.profile:
        print_profile(answer, args.prompts)


def load(models: Path) -> Any:
    """A function that answers a number of prompts with a number of tokens."""
    from training.after.generate import answers, first_question
    from training.after.prompts import prompt_ids
    from training.config import RunConfig
    from training.data.training_data import open_training_build
    from training.model.runtime import choose_runtime
    from training.model.tokenizer import load_tokenizer
    from training.run import load_with_new_adapters

    build_folder = models / "guanaco-build"
    rows = guanaco_rows()
    if not build_folder.exists():
        write_build(build_folder, rows)
    name = str(made("7b", models / "llama-2-7b-random"))
    config = RunConfig(data=build_folder, model=name)
    build = open_training_build(config)
    tokenizer = load_tokenizer(name)
    model = load_with_new_adapters(name, config, choose_runtime(config)).eval()
    template, special = (build.path / "template.jinja").read_text("utf-8"), build.manifest.template
    ids = [prompt_ids(template, first_question(row["messages"]), special, tokenizer) for row in rows[:32]]

    def answer(prompts: int, tokens: int) -> None:
        answers(model, tokenizer, ids[:prompts], special["end_token"], max_new_tokens=tokens)

    return answer


def timed(answer: Any, prompts: int, tokens: int) -> float:
    """Seconds."""
    import torch

    torch.cuda.synchronize()
    start = time.perf_counter()
    answer(prompts, tokens)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def print_profile(answer: Any, prompts: int) -> None:
    """Time of the GPU and of the CPU by operation, over 32 tokens."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        answer(prompts, 32)
        torch.cuda.synchronize()
    for order in ("self_device_time_total", "self_cpu_time_total"):
        print(trace.key_averages().table(sort_by=order, row_limit=18, max_name_column_width=60), flush=True)


if __name__ == "__main__":
    main()
