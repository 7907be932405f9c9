"""QLoRA on one and two GPUs, each configuration in a process of its own, on the same conversations:

    a           the public notebook's: SFTTrainer on text, batch 4, 1,024 tokens, q and v, paged_adamw_32bit
    b           trl's fastest: best-fit packing, 2,048 tokens, liger, all linear layers, the fastest of batch 1, 2 and 4
    c           `training run` with its defaults
    d           the same within 15 GB
    e           unsloth at its fastest, if it is installed: with its checkpointing, and without at batch 4 and 8
    f           a 70B-shaped NF4 checkpoint within 48 GB, rank 16
    7b-8gb      7B on a GPU of 8 GB        13b-12gb    13B on a GPU of 12 GB
    two         7B on two GPUs, the same tokens a GPU as c
    shard       7B divided among two GPUs, the same tokens a step as c
    shard-70b   the 70B-shaped checkpoint divided among two GPUs, within 24 GiB each, rank 8, 1,024 tokens

    python tests/bench/qlora.py [--only c d …] [--seconds 120] [--out FILE] [--unsloth FOLDER]

The models have the shapes of Llama 2 and random weights (made in --models, /dev/shm by default); conversations and tokenizer
come from ../shared/real, so that nothing is downloaded. The first steps are not timed. Only real tokens count, not padding.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.peers import ROWS, STEPS, WARM_STEPS, run_trl, run_unsloth  # noqa: E402
from tests.bench.random_models import SHAPES, write_model  # noqa: E402
from tests.support.training_builds import guanaco_rows, write_build  # noqa: E402

LINEAR_WEIGHTS = 6.6e9  # of 7B
FLOP_PER_TOKEN = 4 * LINEAR_WEIGHTS  # forward, and backward to the activations; the base has no weight gradients
RESULT_PREFIX = "RESULT "


@dataclass(frozen=True)
class Configuration:
    """What is measured: a model, the options of one or more attempts (the fastest counts), and a number of processes."""

    model: str = "7b"
    attempts: Sequence[dict[str, Any]] = field(default_factory=lambda: [{}])
    processes: int = 1


FEW_STEPS = {"tokens_per_step": 4096, "max_steps": 5}  # of a model whose steps take long
CONFIGURATIONS = {
    "a": Configuration(attempts=[{"batch": 4}]),
    "b": Configuration(attempts=[{"batch": batch} for batch in (1, 2, 4)]),
    "c": Configuration(),
    "d": Configuration(attempts=[{"memory_gb": 15.0}]),
    "e": Configuration(attempts=[{"batch": 4, "checkpointing": True}, {"batch": 4}, {"batch": 8}]),
    "f": Configuration("70b", [{"memory_gb": 48.0, "lora_r": 16, **FEW_STEPS}]),
    "7b-8gb": Configuration(attempts=[{"memory_gb": 7.1}]),  # what CUDA and the driver leave of 8 GB
    "13b-12gb": Configuration("13b", [{"memory_gb": 11.0, "max_steps": 6}]),
    "two": Configuration(attempts=[{"tokens_per_step": 32768}], processes=2),
    "shard": Configuration(attempts=[{"shard": True, "tokens_per_step": 16384}], processes=2),
    "shard-70b": Configuration(
        "70b", [{"shard": True, "memory_gb": 24.0, "lora_r": 8, "max_tokens": 1024, **FEW_STEPS}], processes=2
    ),
}


def matrix_rate() -> float:
    """Measure TFLOP/s of a bf16 product of two 8,192 x 8,192 matrices."""
    import torch

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start_time = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - start_time) / 1e12


def run_training(model: str, build: str, options: dict[str, Any]) -> dict[str, Any]:
    """`training run` with a build and a model."""
    start_time = time.perf_counter()
    import torch

    runs = import_module("training.run")
    from training.config import RunConfig
    from training.loop import trainer as trainers

    before: dict[str, float] = {}  # the end of loading, and the first step
    load_base = getattr(runs, "load_base")  # noqa: B009

    def timed(*args: Any, **kwargs: Any) -> Any:
        load_start = time.perf_counter()
        base = load_base(*args, **kwargs)
        torch.cuda.synchronize()
        before["loading_s"] = time.perf_counter() - load_start
        before["loading_gib"] = torch.cuda.max_memory_reserved() / 2**30
        return base

    setattr(runs, "load_base", timed)  # noqa: B010
    step = trainers.QloraTrainer.training_step

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "to_first_step_s" not in before:
            torch.cuda.reset_peak_memory_stats()
            before["to_first_step_s"] = time.perf_counter() - start_time
        return step(self, *args, **kwargs)

    trainers.QloraTrainer.training_step = counted  # type: ignore[method-assign]
    out = Path(options.pop("out", tempfile.mkdtemp())) / "run"
    config = {"held_out": 0, "max_steps": STEPS, "save_every": 10_000, "stop_prompts": 0} | options
    record = runs.run(RunConfig(data=Path(build), model=model, out=out, **config))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    warm = min(WARM_STEPS, len(lines) - 2)
    return {
        "tokens_per_s": statistics.harmonic_mean([line["tokens_per_s"] for line in lines[warm:]]),
        "reserved_gib": torch.cuda.max_memory_reserved() / 2**30,
        "allocated_gib": torch.cuda.max_memory_allocated() / 2**30,
        "settings": json.dumps(record["resolved"]),
        "memory": {key: value for key, value in record["memory"].items() if key != "fits"},
        "runtime": record["place"],
        "packing": record["packing"],
        "self_test": record["self_test"],
        "losses": [line["loss"] for line in lines],
        **before,
    }


def run_in_process(
    name: str, model: Path, build: Path, settings: dict[str, Any], arguments: Any
) -> dict[str, Any] | None:
    """Run one attempt in a process of its own, or in several under torchrun; None if it fails."""
    processes = CONFIGURATIONS[name].processes
    starter = [sys.executable]
    if processes > 1:
        starter += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        settings = settings | {"out": tempfile.mkdtemp()}
    command = [*starter, __file__, "--child", name, "--model", str(model), "--build", str(build)]
    command += ["--settings", json.dumps(settings)]
    # As training.cli sets it; for trl it only lowers the reserved memory.
    environment = os.environ | {"TQDM_DISABLE": "1", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    if name == "e" and arguments.unsloth:
        environment["PYTHONPATH"] = f"{arguments.unsloth}:{environment.get('PYTHONPATH', '')}"
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        output, errors = child.communicate(timeout=arguments.seconds)
        fault = "failed"
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # torchrun's processes too
        output, errors = child.communicate()
        fault = f"took more than {arguments.seconds:.0f} s"
    except SystemExit:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    for line in output.splitlines():
        if line.startswith(RESULT_PREFIX):
            return dict(json.loads(line.removeprefix(RESULT_PREFIX)))
    print(f"({name}) {fault} with {settings}:\n{output[-1500:]}\n{errors[-3000:]}", flush=True)
    return None


def versions() -> str:
    from training.versions import library_versions

    return ", ".join(f"{name} {number}" for name, number in library_versions().items())


def run_child(name: str, model: str, build: str, settings: dict[str, Any]) -> None:
    """Measure one attempt in this process, and print the result."""
    if name in ("a", "b"):
        result = run_trl(name, model, **settings)
    elif name == "e":
        result = run_unsloth(model, **settings)
    else:
        result = run_training(model, build, settings)
    if os.environ.get("RANK", "0") == "0":
        print(RESULT_PREFIX + json.dumps(result), flush=True)


def made(name: str, folder: Path) -> Path:
    """The folder of a model, which is made if it is missing."""
    if not (folder / "tokenizer_config.json").exists():  # the last file to be written
        start_time = time.perf_counter()
        write_model(name, folder)
        print(f"{name} made in {time.perf_counter() - start_time:.0f} s", flush=True)
    return folder


def report(name: str, measured: dict[str, Any], rate: float) -> None:
    """Print one measured attempt."""
    line = f"({name}) {measured['tokens_per_s']:8,.0f} tokens/s  "
    if CONFIGURATIONS[name].model == "7b":
        share = measured["tokens_per_s"] * FLOP_PER_TOKEN / (rate * 1e12 * CONFIGURATIONS[name].processes)
        line += f"{share:5.2f} of the matrix rate  "
    print(
        f"{line}{measured['reserved_gib']:6.1f} GiB reserved, {measured['allocated_gib']:.1f} allocated  {measured['settings']}",
        flush=True,
    )
    for key in ("memory", "loading_s", "loading_gib", "to_first_step_s", "self_test", "packing", "losses"):
        if key in measured:
            print(f"      {key}: {measured[key]}", flush=True)


def compare(results: dict[str, Any]) -> None:
    """Print the ratios that issues and docs name, and the losses of one GPU beside those of two."""
    speed = {name: result["tokens_per_s"] for name, result in results.items() if name in CONFIGURATIONS}
    for numerator, denominator in (("c", "b"), ("c", "a"), ("d", "b"), ("c", "e"), ("two", "c"), ("shard", "c")):
        if numerator in speed and denominator in speed:
            print(f"({numerator}) over ({denominator}): {speed[numerator] / speed[denominator]:.2f}", flush=True)
    if "c" in results and "shard" in results:
        pairs = zip(results["c"]["losses"], results["shard"]["losses"], strict=True)
        print(f"losses of (c) and (shard) differ by at most {max(abs(a - b) / a for a, b in pairs):.2%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["a", "b", "c", "d"], choices=CONFIGURATIONS)
    parser.add_argument("--models", type=Path, default=Path("/dev/shm"), help="folder of the models and the build")
    parser.add_argument("--seconds", type=float, default=600, help="time limit of each attempt")
    parser.add_argument("--unsloth", help="folder with unsloth and the versions that it needs, for PYTHONPATH")
    parser.add_argument("--results", type=Path, nargs="*", default=[], help="results of earlier calls, to compare with")
    parser.add_argument("--make", nargs="*", default=[], choices=SHAPES, help="only make these models")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child")
    parser.add_argument("--model")
    parser.add_argument("--build")
    parser.add_argument("--settings", default="{}")
    args = parser.parse_args()
    if args.child:
        run_child(args.child, args.model, args.build, json.loads(args.settings))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the attempt's processes are ended too
    import torch

    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a GPU.")
    for name in args.make:
        made(name, args.models / f"llama-2-{name}-random")
    build = args.models / "guanaco-build"
    if not build.exists():
        write_build(build, guanaco_rows()[:ROWS])
    if args.make:
        return
    rate = matrix_rate()
    torch.cuda.empty_cache()
    print(f"{torch.cuda.get_device_name()}, bf16 products {rate:.0f} TFLOP/s; {versions()}", flush=True)
    results: dict[str, Any] = {"matrix_tflops": rate, "device": torch.cuda.get_device_name(), "versions": versions()}
    for path in args.results:
        results |= json.loads(path.read_text()) if path.exists() else {}
    for name in args.only:
        configuration = CONFIGURATIONS[name]
        model = made(configuration.model, args.models / f"llama-2-{configuration.model}-random")
        torch.cuda.empty_cache()
        for settings in configuration.attempts:
            measured = run_in_process(name, model, build, settings, args)
            if measured is None:
                continue
            best = results.get(name)
            if best is None or measured["tokens_per_s"] > best["tokens_per_s"]:
                results[name] = measured
            report(name, measured, rate)
            if args.out:
                args.out.write_text(json.dumps(results, indent=1))
    compare(results)


if __name__ == "__main__":
    main()
