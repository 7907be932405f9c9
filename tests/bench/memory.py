"""Measured peak memory of one training step beside the estimate, for several configurations of a 7B model on one GPU.

    python tests/bench/memory.py [--models /dev/shm] [--dora] [--modules-to-save embed_tokens,lm_head] [--batches 1:0 2:32 …]

Each batch is windows of 2,048 tokens in a pass and layers that are checkpointed. The estimate is the one that `training plan`
and every run choose their batch by (training/memory/estimate.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.qlora import made  # noqa: E402
from tests.support.training_builds import guanaco_rows, write_build  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("/dev/shm"), help="folder of the model and the build")
    parser.add_argument("--dora", action="store_true")
    parser.add_argument("--modules-to-save")
    parser.add_argument("--batches", nargs="+", default=["1:0", "1:32", "2:0", "2:16", "2:32", "4:32"])
    args = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a GPU.")
    from training.config import RunConfig
    from training.data.training_data import load_training_data, open_training_build
    from training.loop.arguments import trainer_arguments
    from training.memory.batches import BatchConfig, memory_inputs
    from training.memory.estimate import GIB, estimate_memory
    from training.memory.layout import packed, windows_for
    from training.memory.probe import measure, worst_batch
    from training.model.architecture import read_architecture
    from training.model.identity import read_model_config
    from training.model.runtime import choose_runtime
    from training.model.tokenizer import load_tokenizer
    from training.run import load_with_new_adapters
    from training.run_folder import RunFolder

    build_folder = args.models / "guanaco-build"
    if not build_folder.exists():
        write_build(build_folder, guanaco_rows())
    name = str(made("7b", args.models / "llama-2-7b-random"))
    config = RunConfig(data=build_folder, model=name, held_out=0, dora=args.dora, modules_to_save=args.modules_to_save)
    runtime = choose_runtime(config)
    prepared = load_training_data(config, open_training_build(config), load_tokenizer(name))
    sizes = read_architecture(read_model_config(name, None), name).sizes
    windows, _ = windows_for(packed(config), config, prepared.train.labelled)
    model = load_with_new_adapters(name, config, runtime)
    print(f"{torch.cuda.get_device_name()}, loaded: {torch.cuda.memory_allocated() / GIB:.2f} GiB", flush=True)
    for text in args.batches:
        micro_batch, layers = map(int, text.split(":"))
        batch = BatchConfig(micro_batch, layers, "adamw")
        arguments = trainer_arguments(
            config, runtime, batch, RunFolder(Path(tempfile.mkdtemp())), accumulate=1, steps=1
        )
        estimate = estimate_memory(sizes, memory_inputs(config, runtime, sizes, batch, prepared))
        try:
            measured = measure(model, arguments, worst_batch(windows, micro_batch), batch, warm=1)
        except torch.OutOfMemoryError:
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            print(f"{text}: estimated {estimate.total / GIB:.2f}, out of memory", flush=True)
            continue
        print(
            f"{text}: estimated {estimate.total / GIB:.2f} GiB, measured {measured.allocated / GIB:.2f} (reserved "
            f"{measured.reserved / GIB:.2f}), {measured.tokens / measured.seconds:,.0f} tokens/s; {estimate.in_gib()}",
            flush=True,
        )


if __name__ == "__main__":
    main()
