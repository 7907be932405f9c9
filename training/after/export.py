"""`training export`: a finished run as files for llama.cpp and Ollama."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training.after import gguf_check
from training.after.card import public_model_name
from training.after.finished_run import FinishedRun, open_finished_run, open_run_build
from training.after.generate import first_question
from training.after.gguf import GgufType, convert_adapter, convert_model, require_converter
from training.after.gguf_check import AGREEING, PROMPTS, Comparison, Prompt, can_check
from training.after.merge import merge
from training.after.ollama import go_template, modelfile
from training.after.prompts import prompt_ids, render
from training.after.publish import adapter_version
from training.errors import ModelError, OptionError, RunError
from training.run_folder import PARTIAL, commit_folder, write_errors

Format = Literal["gguf", "gguf-lora", "ollama"]


@dataclass(frozen=True)
class ExportResult:
    """The exported files, the result of the check (None: it was not made), what the user must know, and next commands.

    `next` has pairs of what a command does and the command.
    """

    files: list[Path]
    comparison: Comparison | None
    notes: list[str]
    next: list[tuple[str, str]]


def export(path: Path, to: Path, format: Format, kind: GgufType, check: bool | None) -> ExportResult:
    """Write the run in `path` to the folder `to`.

    Args:
        path: folder of a finished run.
        to: a new or empty folder.
        format: `gguf`: the adapter merged into its base, for llama.cpp; `gguf-lora`: the adapter alone, for a base that is
            a GGUF file already; `ollama`: the merged model with a Modelfile.
        kind: type of the weights.
        check: compare with transformers; None: if llama-cpp-python is installed.

    Raises:
        OptionError: the converter is missing, or the options contradict each other.
        RunError: `to` is not empty or cannot be written, or the run is not finished.
        ModelError: llama.cpp cannot represent the model, or the check found other ids or answers that do not stop.
    """
    require_converter()
    if format == "gguf-lora" and kind == "q8_0":
        raise OptionError("--format gguf-lora takes --type f16 or bf16: llama.cpp does not quantise adapters.")
    if format == "gguf-lora" and check:
        raise OptionError("--check compares a merged model: pass --format gguf or ollama.")
    run = open_finished_run(path)
    checked = format != "gguf-lora" and (can_check() if check is None else check)
    prompts = _prompts(run) if checked else []
    with _new_folder(to) as folder:
        if format == "gguf-lora":
            file = folder / f"adapter-{kind}.gguf"
            convert_adapter(_base_folder(run), run.folder.adapter, file, kind, _adapter_metadata(run))
            return ExportResult([to / file.name], None, [], _serve_adapter(to / file.name))
        file = folder / f"model-{kind}.gguf"
        merged = folder / "merged"
        merge(path, merged, check=False)
        convert_model(merged, file, kind, _metadata(run))
        comparison = gguf_check.compare(merged, file, prompts, _end_ids(run)) if prompts else None
        if comparison is not None:
            _refuse_differences(comparison)
        shutil.rmtree(merged)
        notes, steps = [], _serve_model(to / file.name, kind)
        if format == "ollama":
            notes = _write_modelfile(run, folder, file.name)
            steps = [("create the model in Ollama", f"ollama create NAME -f {_quoted(to / 'Modelfile')}")]
    if comparison is not None and comparison.equal_answers < AGREEING * comparison.prompts:
        notes.append(
            "Fewer than 95 % of the answers are equal: the first difference above shows whether it is rounding."
        )
    return ExportResult([to / child.name for child in sorted(to.iterdir())], comparison, notes, steps)


@contextmanager
def _new_folder(to: Path) -> Iterator[Path]:
    """A folder beside `to` that becomes `to` when everything in it is written, and disappears otherwise."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RunError(f"{to} is not an empty folder: choose another --to.")
    partial = to.with_name(to.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with write_errors(str(to), partial, "export again"):
            partial.mkdir(parents=True)
            yield partial
            if to.exists():
                to.rmdir()
            commit_folder(partial, to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _prompts(run: FinishedRun) -> list[Prompt]:
    """The first questions of some rows of the run's build, rendered, with the ids that the run trains for them."""
    build = open_run_build(run)
    template = (build.path / "template.jinja").read_text("utf-8")
    special = build.manifest.template
    rows = build.splits["train"].slice(0, PROMPTS)["messages"].to_pylist()
    questions = [first_question(row) for row in rows]
    return [
        Prompt(render(template, question, special, answer=True), prompt_ids(template, question, special, run.tokenizer))
        for question in questions
    ]


def _end_ids(run: FinishedRun) -> list[int]:
    return [run.tokenizer.id_of(run.record["template"]["end_token"])]


def _refuse_differences(comparison: Comparison) -> None:
    """Refuse a file with other ids or with answers that do not stop.

    Raises:
        ModelError: says which, with the counts.
    """
    lines = comparison.sentences()
    if comparison.equal_ids < comparison.prompts:
        raise ModelError(
            f"llama.cpp reads the prompts as other ids than the run trained: {lines[0]} Nothing was exported."
        )
    if comparison.stopping_too < comparison.stopping:
        raise ModelError(f"Answers that stop in transformers go on in llama.cpp: {lines[2]} Nothing was exported.")


def _metadata(run: FinishedRun) -> dict[str, Any]:
    """`general.*` entries of a GGUF header: the build, template, base and adapter by name and version, without local paths."""
    data, base = run.record["provenance"], public_model_name(run.record)
    adapter = adapter_version(run.folder.adapter)
    return {
        "general.name": f"{data['build']} on {base}",
        "general.version": adapter,
        "general.finetune": data["build"],
        "general.description": (
            f"LoRA adapter {adapter} merged into {base} ({run.config.quantization}), trained on the build "
            f"{data['build']}@{data['version']} in the chat format of the template {data['template']}"
        ),
        "general.datasets": [{"name": data["build"], "version": data["version"]}],
        "general.base_models": [{"name": base}],
    }


def _adapter_metadata(run: FinishedRun) -> dict[str, str]:
    return {key: value for key, value in _metadata(run).items() if isinstance(value, str)}


def _base_folder(run: FinishedRun) -> Path:
    from training.model.files import locate

    config = locate(run.base_model, "config.json", run.config.revision)
    if config is None:
        raise ModelError(f"{run.base_model} has no config.json: restore the base model of the run.")
    return config.parent


def _write_modelfile(run: FinishedRun, folder: Path, gguf: str) -> list[str]:
    """Write the Modelfile; returns what the user must know about it."""
    template = (run.folder.adapter / "chat_template.jinja").read_text("utf-8")
    translated = go_template(template)
    system = open_run_build(run).manifest.recipe.get("system")
    text = modelfile(gguf, translated, [run.record["template"]["end_token"]], system)
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    if translated is not None:
        return []
    return [
        "The Modelfile has no TEMPLATE, because the build's template is not one of the bundled ones and Ollama cannot "
        "run Jinja. "
        "Ollama will look for a known template that resembles the one in the GGUF file, and send prompts without any "
        "chat format if it finds none: write a TEMPLATE yourself, or serve the GGUF file with llama-server --jinja."
    ]


def _serve_model(file: Path, kind: GgufType) -> list[tuple[str, str]]:
    smaller = _quoted(file.with_name("model-Q4_K_M.gguf"))
    steps = [("serve it", f"llama-server --jinja --model {_quoted(file)}")]
    return steps if kind == "q8_0" else [*steps, ("quantise it", f"llama-quantize {_quoted(file)} {smaller} Q4_K_M")]


def _serve_adapter(file: Path) -> list[tuple[str, str]]:
    return [("serve it on its base", f"llama-server --jinja --model BASE.gguf --lora {_quoted(file)}")]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
