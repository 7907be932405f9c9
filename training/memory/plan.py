"""`training plan`: what a run will take, before it is started."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.config import RunConfig, check
from training.data import holdout as data
from training.errors import OptionError
from training.memory import estimate as memory
from training.memory.choose import load_of, pace_of, possible, room, wanted_per_step
from training.memory.estimate import GIB, Choice
from training.model import base as model
from training.run_folder import Folder

# Memory (GiB that PyTorch sees), dense 16-bit matrix rate (TFLOP/s, the makers' data sheets) and the share of it that a
# QLoRA step reaches (measured on an H200, docs/qlora.md; carried over to the others).
GPUS = {"t4": (14.6, 65, "fp16"), "l4": (22.0, 121, "bf16"), "a100": (79.0, 312, "bf16"), "h100": (79.0, 990, "bf16")}
REACHED = 0.4
FLOP_A_TOKEN = 4  # for each weight: forward 2, backward 2 more for the activations; the base's weights take no gradient


def plan(options: RunConfig, gpu: str | None) -> tuple[dict[str, Any], list[str]]:
    """Facts of the plan, and the lines that tell them.

    Raises:
        OptionError: `--gpu this` without a GPU.
        MemoryShort: nothing fits; says what would.
    """
    from tempfile import TemporaryDirectory

    from training.model.tokenizer import load_vocabulary
    from training.run import base_model

    config = check(options)
    build = data.open_data(config)
    with TemporaryDirectory(prefix="training-") as scratch:
        folder = Folder(Path(scratch))
        name = base_model(config, build, folder)
        vocabulary = load_vocabulary(name, config.revision)
        shape = model.read_shape(name, config.revision)
        prepared = data.load(config, build, vocabulary)
        place = _place(config, gpu)
        facts = _planned(config, shape, prepared, place, gpu)
        if gpu not in GPUS and place.device != "cpu":
            found = _measured(config, name, prepared, place, facts["choice"], folder)
            facts |= {"measured": found, "seconds": round(facts["tokens"] * found["seconds"] / found["tokens"], 1)}
    return facts, list(_lines(facts))


def _planned(
    config: RunConfig, shape: dict[str, Any], prepared: data.Data, place: model.Place, gpu: str | None
) -> dict[str, Any]:
    windows, packed = data.windows(prepared.train, config.max_tokens, seed=config.seed)
    per_step = wanted_per_step(config, len(windows))
    available = int(GPUS[gpu][0] * GIB) - memory.CONTEXT if gpu in GPUS else room(config, place)
    choice = possible(config, place, shape, per_step, prepared, available)[0]
    pace = pace_of(config, choice, len(windows), per_step)
    ledger = prepared.train.prepared.ledger
    tokens = pace.steps * int(prepared.train.prepared.rows.lengths.sum()) / pace.steps_an_epoch
    return {
        "gpu": gpu or place.device,
        "room_gib": round(available / GIB, 1) if available is not None else None,
        "choice": asdict(choice),
        "memory_gib": memory.estimate(shape, load_of(config, place, choice, prepared)).table(),
        "weights": memory.count_weights(shape).total,
        "adapters": memory.count_adapters(shape, config.lora_r, config.targets),
        "ledger": ledger.as_json(),
        "lost": ledger.sentences(),
        "windows": len(windows),
        "fill": round(packed.fill, 4),
        "accumulate": pace.accumulate,
        "steps": pace.steps,
        "tokens": round(tokens),
        "seconds": _seconds(shape, tokens, choice, config, gpu),
    }


def _place(config: RunConfig, gpu: str | None) -> model.Place:
    from training.model import attention

    if gpu in GPUS:
        varlen = attention.SEGMENTS if gpu == "t4" else attention.VARLEN
        return model.Place("cuda:0", GPUS[gpu][2], varlen, liger=True)
    place = model.choose_place(config)
    if gpu == "this" and place.device == "cpu":
        raise OptionError(f"--gpu this: no GPU is visible to PyTorch here; plan for one of {', '.join(GPUS)}.")
    return place


def _seconds(shape: dict[str, Any], tokens: float, choice: Choice, config: RunConfig, gpu: str | None) -> float | None:
    """Time of the training steps by the rate that such steps reach; None where no rate is known."""
    if gpu not in GPUS:
        return None
    flop = FLOP_A_TOKEN * memory.count_weights(shape).linear * tokens
    slow = choice.cost(memory.dimensions(shape).layers, config.max_tokens)
    return round(flop * slow / (GPUS[gpu][1] * 1e12 * REACHED), 1)


def _measured(
    config: RunConfig, name: str, prepared: data.Data, place: model.Place, chosen: dict[str, Any], folder: Folder
) -> dict[str, Any]:
    """One step on the worst real batch, on the GPU here."""
    from training.loop.trainer import arguments
    from training.memory.probe import settle
    from training.run import adapt

    choice = Choice(**chosen)
    adapted = adapt(name, config, place)
    windows, _ = data.windows(prepared.train, config.max_tokens, seed=config.seed)
    _, found = settle(
        adapted, [choice], windows, lambda c: arguments(config, place, c, folder, accumulate=1, steps=1), warm=1
    )
    return {
        "allocated_gib": round(found.allocated / GIB, 3),
        "reserved_gib": round(found.reserved / GIB, 3),
        "seconds": found.seconds,
        "tokens": found.tokens,
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    choice, ledger = facts["choice"], facts["ledger"]
    of = f" of {facts['room_gib']}" if facts["room_gib"] is not None else ""
    lines = [
        f"Model       {facts['weights'] / 1e9:.2f} billion weights, {facts['adapters'] / 1e6:.1f} million in the adapters",
        f"Data        {ledger['rows']} conversations, {ledger['tokens_trained']} tokens trained, "
        f"{ledger['tokens_masked']} masked",
        *(f"            {sentence}" for sentence in facts["lost"]),
        f"Windows     {facts['windows']}, {facts['fill']:.1%} full; {facts['steps']} steps, {facts['tokens']} tokens",
        f"Chosen      {choice['micro_batch']} windows in a pass, {choice['checkpoint_layers']} layers checkpointed, "
        f"{choice['optimizer']}",
        f"Memory      {facts['memory_gib']['total']:.2f} GiB{of} on {facts['gpu']}, estimated:",
        *(f"            {part:12} {size:8.2f} GiB" for part, size in facts["memory_gib"].items() if part != "total"),
    ]
    if facts.get("measured"):
        found = facts["measured"]
        lines.append(
            f"Measured    {found['allocated_gib']:.2f} GiB allocated, {found['seconds']:.2f} s for {found['tokens']} tokens"
        )
    if facts["seconds"] is not None:
        lines.append(f"Time        about {facts['seconds'] / 60:.1f} minutes of training")
    return lines
