"""Hostile files that people pass on beside data: recipes, expectations, TOML, configurations and tokenizers of models, runs."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dataprep.contract import open_build
from tests.hostile.builds import NAME, build_command, copy_build, sound_store
from tests.hostile.cases import Case, Sandbox
from tests.hostile.mutation import HOSTILE_TEXTS, HOSTILE_VALUES, hostile_json, mutated
from tests.support.builds import GUANACO_TEXTS, guanaco_file
from tests.support.commands import training

Maker = Callable[[Sandbox, random.Random], Case]

_OWNED = "touch {outside}/owned"
_EXPECTATION = """[[expect]]
name = "x"
expectation = "expect_column_values_to_be_between"
column = "turns"
min_value = 1
max_value = 100
"""


def _toml_value(value: Any) -> str:
    """A TOML value, or text that is none."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return "nan"


def _toml(values: dict[str, Any], keys: tuple[str, ...], rng: random.Random) -> bytes:
    """A TOML file of `values` with hostile ones for some of `keys`, its text damaged sometimes."""
    changed = dict(values)
    for _ in range(rng.choice((1, 1, 2, 4))):
        changed[rng.choice(keys)] = rng.choice(HOSTILE_VALUES)
    lines = [f"{key} = {_toml_value(value)}" for key, value in changed.items()]
    lines += rng.choice(
        ([], [], ["a = " + "[" * 5000], ["b = " + "{c=" * 5000], ["d = " + "9" * 5000], ["[e.f]", "g = 1"])
    )
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    return mutated(content, rng) if rng.random() < 0.3 else content


def recipe(sandbox: Sandbox, rng: random.Random) -> Case:
    """A build of a hostile recipe."""
    keys = (
        "source", "format", "template", "expectations", "decontaminate", "split", "sample", "near_dup", "gate", "lang", "max_bad",
        "max_record_bytes", "columns", "roles", "system", "seed", "shard_size", "tokenizer", "min_turns", "max_chars", "unknown",
    )  # fmt: skip
    file = sandbox.input / "recipe.toml"
    file.write_bytes(_toml({"source": [guanaco_file(sandbox.input, GUANACO_TEXTS)], "gate": "off"}, keys, rng))
    return Case.of("recipe", "build", "--recipe", file, "--store", sandbox.store, "--name", NAME, "--dry-run")


def expectations(sandbox: Sandbox, rng: random.Random) -> Case:
    """A build with a hostile expectations file; those that are refused never start Great Expectations."""
    owned = _OWNED.format(outside=sandbox.root / "outside")
    command = f"@pd.io.common.os.system('{owned}') == 0"
    lines = rng.choice(
        (
            f"row_condition = {json.dumps(command)}\ncondition_parser = \"pandas\"",
            f"row_condition = {json.dumps(command)}",
            'expectation = "expect_query_results_to_match_comparison"',
            'regex = "(a+)+$"',
            f"value_set = {json.dumps([0] * 200_000)}",
            f"min_value = {_toml_value(rng.choice(HOSTILE_VALUES))}",
            f"{rng.choice(('mostly', 'column', 'severity', 'name', 'expectation'))} = {_toml_value(rng.choice(HOSTILE_VALUES))}",
            f"min_value = {{ \"$PARAMETER\" = {json.dumps(command)} }}",
            f"meta = {{ notes = {json.dumps(command)} }}",
            "min_value = " + "[" * 5000,
            "min_value = " + "9" * 5000,
        )
    )  # fmt: skip
    key = lines.partition(" =")[0]
    kept = "\n".join(line for line in _EXPECTATION.splitlines() if not line.startswith(f"{key} ="))
    file = sandbox.input / "expectations.toml"
    content = f"{kept}\n{lines}\n".encode("utf-8", "surrogatepass")
    file.write_bytes(mutated(content, rng) if rng.random() < 0.2 else content)
    rows = guanaco_file(sandbox.input, GUANACO_TEXTS)
    build = ("build", "--source", rows, "--store", sandbox.store, "--name", NAME, "--gate", "warn")
    return Case.of("expectations", *build, "--expectations", file)


_TOKENIZER_CONFIG = {
    "chat_template": "{% for m in messages %}{{ bos_token if loop.first }}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}",
    "bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>", "pad_token": None, "additional_special_tokens": ["<x>"],
    "added_tokens_decoder": {"0": {"content": "<unk>", "special": True}}, "tokenizer_class": "LlamaTokenizer",
    "model_max_length": 4096, "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]},
}  # fmt: skip


def tokenizer_config(sandbox: Sandbox, rng: random.Random) -> Case:
    """The check of a template in a hostile tokenizer_config.json, or a build with it."""
    file = sandbox.input / "tokenizer_config.json"
    file.write_bytes(hostile_json(_TOKENIZER_CONFIG, rng))
    if rng.random() < 0.5:
        return Case.of("tokenizer_config.json", "templates", "check", file)
    rows = guanaco_file(sandbox.input, GUANACO_TEXTS)
    build = (*build_command(rows, sandbox), "--near-dup", "off")
    return Case.of("tokenizer_config.json", *build, "--template", file)


def _sound_model(folder: Path) -> Path:
    """Make the folder of a tiny model, if it is not there, without weights; return it."""
    if not folder.exists():
        from training.model.tiny import train_tokenizer

        folder.mkdir(parents=True)
        sizes = {
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 2048, "torch_dtype": "float16",
            "rope_scaling": {"rope_type": "linear", "factor": 2.0}, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False, "quantization_config": None, "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(sizes))
        (folder / "tokenizer_config.json").write_text(json.dumps(_TOKENIZER_CONFIG))
        train_tokenizer(["Say apple twice. apple apple."], ["<s>", "</s>"], 300).backend.save(
            str(folder / "tokenizer.json")
        )
    return folder


def model(sandbox: Sandbox, rng: random.Random) -> Case:
    """The plan of a run, or its tokens, with a model of which one file is hostile."""
    folder = sandbox.input / "model"
    shutil.copytree(_sound_model(sandbox.root / "sound" / "model"), folder)
    name = rng.choice(("config.json", "config.json", "tokenizer_config.json", "tokenizer.json"))
    (folder / name).write_bytes(hostile_json(json.loads((folder / name).read_bytes()), rng))
    data = copy_build(sandbox)
    command = rng.choice((("plan",), ("inspect", "--json", "--rows", "0:2")))
    return Case.of_training(name, command[0], "--data", data, "--model", folder, "--device", "cpu", *command[1:])


def run_options(sandbox: Sandbox, rng: random.Random) -> Case:
    """The plan of a run with a hostile TOML file."""
    keys = (
        "lr", "lora_r", "epochs", "max_tokens", "seed", "data", "model", "preset", "out", "memory_gb", "config", "device", "schedule",
        "init_adapter", "report_to", "resume", "warmup", "revision", "tokens_per_step", "unknown", "lora_targets", "split",
    )  # fmt: skip
    data = copy_build(sandbox)
    file = sandbox.input / "run.toml"
    file.write_bytes(_toml({"device": "cpu"}, keys, rng))
    return Case.of_training("run.toml", "plan", "--data", data, "--model", "tiny", "--config", file)


MAKERS: tuple[Maker, ...] = (recipe, expectations, tokenizer_config, model, run_options)


def cases(sandbox: Sandbox, rng: random.Random, count: int, makers: tuple[Maker, ...] = MAKERS) -> Iterator[Case]:
    """`count` cases of the makers in turn."""
    for number in range(count):
        sandbox.prepare()
        case = makers[number % len(makers)](sandbox, rng)
        yield Case(f"{case.name} {number}", case.arguments, case.program)


_RUN_FILES = (
    "run.json",
    "run.json",
    "run.json",
    "adapter/adapter_config.json",
    "checksums",
    "trainer_state.json",
    "metrics.jsonl",
)


def finished_run(folder: Path) -> Path:
    """Train the tiny model for a few steps on the sound build; return the run's folder."""
    if not (folder / "run").exists():
        data = sound_store(folder) / NAME / "latest"
        training(
            "run",
            "--data",
            data,
            "--model",
            "tiny",
            "--device",
            "cpu",
            "--max-steps",
            2,
            "--save-every",
            1,
            "--out",
            folder / "run",
        )
        open_build(data)  # notes beside the build that it is verified, which it was too new for before
    return folder / "run"


def runs(sandbox: Sandbox, rng: random.Random, count: int) -> Iterator[Case]:
    """Commands on copies of a finished run of which one file is hostile."""
    finished = finished_run(sandbox.root / "sound")
    for number in range(count):
        sandbox.prepare()
        run, data = sandbox.out / "run", copy_build(sandbox)
        shutil.copytree(finished, run, symlinks=True)
        wanted = rng.choice(_RUN_FILES)
        files = sorted(path for path in run.rglob("*") if path.is_file() and wanted in str(path.relative_to(run)))
        file = rng.choice(files)
        content = file.read_bytes()
        file.write_bytes(mutated(content, rng) if file.suffix == ".jsonl" else hostile_json(json.loads(content), rng))
        commands: list[tuple[str | Path, ...]] = [
            ("generate", "--run", run, "--prompt", rng.choice(HOSTILE_TEXTS) or "Hi", "--max-new-tokens", "1"),
            ("evaluate", "--run", run, "--prompts", "1", "--max-new-tokens", "1"),
            ("merge", "--run", run, "--to", sandbox.out / "merged", "--no-check"),
            (
                "run",
                "--data",
                data,
                "--model",
                "tiny",
                "--out",
                run,
                "--resume",
                "auto",
            ),
            ("gc", "--store", sandbox.out, "--dry-run"),
        ]
        arguments = rng.choice(commands)
        make = Case.of if arguments[0] == "gc" else Case.of_training
        yield make(f"{file.name} {number}", *arguments)
