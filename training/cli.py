"""The command `training`: parses arguments, calls one function, prints its result.

Each command imports the modules that it needs, so that `--help` is instant.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.config import Dict

from dataprep.common.command_line import HELP_FLAGS, completion_note, run_program
from dataprep.common.help_text import GroupedHelp
from dataprep.common.interrupt import raise_on_interrupt
from dataprep.common.text import fit, json_text, next_steps, plural, size_text, visible
from training.config import TINY, RunConfig, default_sources
from training.errors import OptionError
from training.option_groups import COMMAND_GROUPS, INSPECT_USUAL, PLAN_USUAL, RUN_GROUPS, RUN_USUAL
from training.quiet import quiet_libraries
from training.run_lookup import locate_run, run_names, short_name

if TYPE_CHECKING:
    from cyclopts import ArgumentCollection

    from training.run_record import RunRecord


def installed_version() -> str:
    """Return the version of the installed distribution, which holds both programs."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dataprep-training")
    except PackageNotFoundError:
        return "not installed"


app = App(
    name="training",
    help="Fine-tune a chat model with QLoRA on a build of dataprep.",
    help_format="plaintext",
    help_formatter=GroupedHelp(groups=COMMAND_GROUPS, note=completion_note("training")),
    help_flags=HELP_FLAGS,
    version=installed_version,
    suppress_keyboard_interrupt=False,
)

TINY_NOTICE = "tiny is a small random model, for trying the commands: it cannot answer."

Options = Annotated[RunConfig, Parameter(name="*")]
Run = Annotated[
    str, Parameter(name="--run", help="A run: its name in runs/, or its folder.", completer=lambda _: run_names())
]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON object on stdout.")]


def set_defaults(_: App, __: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Set the options that no flag gives: from the TOML file, then the preset, then the defaults of the model tiny."""
    given = {argument.name: argument.tokens[-1].value for argument in arguments if argument.tokens}
    if not any(argument.name == "--max-tokens" for argument in arguments):
        return  # a command without the options of a run
    config = Path(given["--config"]) if "--config" in given else None
    for source, options in default_sources(config, given.get("--preset"), given.get("--model")):
        flags = {name.replace("_", "-"): value for name, value in options.items()}
        Dict(flags, source=source, use_commands_as_keys=False)(app, (), arguments)


app.config = (set_defaults,)


def run_help(command: str, usual: tuple[str, ...], rest: str = "more options") -> GroupedHelp:
    """Return the help of a command with the options of a run."""
    return GroupedHelp(f"training {command}", RUN_GROUPS, usual, rest)


@app.command(help_formatter=run_help("run", RUN_USUAL))
def run(options: Options) -> None:
    """Train an adapter on a build."""
    from training.run import run as train

    record = train(options)
    if os.environ.get("RANK", "0") != "0":
        return  # the first process prints the result
    for line in _result(record):
        _print(fit(line, sys.stdout))
    print(next_steps(_after_run(record)), file=sys.stderr)


def _result(record: RunRecord) -> list[str]:
    """Return what a finished run has trained, as sentences."""
    metrics, ledger = record["metrics"], record["ledger"]["train"]
    steps = plural(record["resolved"]["steps"], "step")
    lines = [
        f"{record['operational']['out']}: {steps}, {plural(metrics['trained_tokens'], 'trained token')}; "
        f"one epoch has {ledger['tokens_trained']:,}."
    ]
    if metrics["held_out_before"] is not None and metrics["held_out_after"] is not None:
        best = f", at the best step {metrics['best_step']}" if "best_step" in metrics else ""
        lines.append(
            f"Held-out loss {metrics['held_out_before']:.4f} before, {metrics['held_out_after']:.4f} after{best}."
        )
    if record["options"]["model"] == TINY:
        lines.append(TINY_NOTICE)
    elif metrics.get("stopped_by_itself") is not None:
        lines.append(_stopped(metrics["stopped_by_itself"], metrics["stop_prompts"]))
    return lines


def _stopped(share: float, prompts: int) -> str:
    return f"{round(share * prompts)} of {plural(prompts, 'answer')} ended with the end token."


def _after_run(record: RunRecord) -> list[tuple[str, str]]:
    """Return what to run after a run: what each command does, and the command."""
    run = shlex.quote(short_name(Path(record["operational"]["out"])))
    chat = [] if record["options"]["model"] == TINY else [("talk to it", f"training chat --run {run}")]
    evaluation = [("evaluate it", f"training evaluate --run {run}")] if record["ledger"]["test"] else []
    return [*chat, *evaluation, ("merge it", f"training merge --run {run} --to merged")]


@app.command(help_formatter=run_help("plan", PLAN_USUAL, "options of training run, which do not change a plan"))
def plan(
    options: Options,
    *,
    gpu: Annotated[
        Literal["t4", "l4", "a100", "h100", "this"] | None,
        Parameter(help="The GPU to plan for; `this`: the machine's own, with one measured step."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate a run without starting it: memory, tokens, steps and time."""
    from training.memory.plan import plan as make_plan

    record, lines = make_plan(options, gpu)
    _print(json_text(record) if as_json else fit("\n".join(lines), sys.stdout, indent=12))


@app.command(help_formatter=run_help("inspect", INSPECT_USUAL, "options of training run, which change no row"))
def inspect(
    options: Options,
    *,
    row: Annotated[int | None, Parameter(help="Number of the row in the train split, from 0.")] = None,
    rows: Annotated[str | None, Parameter(help="Range of rows (0:100), or all; needs --json.")] = None,
    as_json: Annotated[
        bool, Parameter(name="--json", help="Print a JSON line for each row: id, input_ids, labels.")
    ] = False,
) -> None:
    """Show which tokens of a row are trained: the others are masked or special. Needs a tokenizer, but no model."""
    from training.data.inspect import json_lines, print_row

    if as_json:
        for line in json_lines(options, rows or (str(row) if row is not None else "all")):
            sys.stdout.write(line + "\n")
    elif rows is not None:
        raise OptionError(f"--rows {rows} needs --json; --row prints one row.")
    else:
        print_row(options, row or 0)


@app.command
def evaluate(
    run: Run,
    *,
    prompts: Annotated[int, Parameter(help="Number of held-out prompts to answer.")] = 16,
    max_new_tokens: Annotated[int, Parameter(help="Maximum tokens of an answer.")] = 256,
    as_json: Json = False,
) -> None:
    """Evaluate a run: held-out loss and perplexity before and after training, and the share of answers that end."""
    from training.after.evaluate import evaluate as compute
    from training.run_folder import RunFolder

    folder = locate_run(run)
    result = compute(folder, prompts, max_new_tokens)
    if as_json:
        _print(json_text(result))
        return
    _print(f"before loss {result['before']['loss']:.4f}  perplexity {result['before']['perplexity']:.2f}")
    _print(f"after  loss {result['after']['loss']:.4f}  perplexity {result['after']['perplexity']:.2f}")
    is_tiny = RunFolder(folder).read()["options"]["model"] == TINY
    if is_tiny:
        _print(TINY_NOTICE)
    elif result["stopped_by_itself"] is not None:
        _print(_stopped(result["stopped_by_itself"], result["prompts"]))


@app.command
def generate(
    run: Run,
    *,
    prompt: Annotated[str, Parameter(help="The user's message.")],
    system: Annotated[str | None, Parameter(help="System text.")] = None,
    max_new_tokens: Annotated[int, Parameter(help="Maximum tokens of the answer.")] = 256,
    temperature: Annotated[float, Parameter(help="Sampling temperature; 0 chooses the most likely tokens.")] = 0.0,
    seed: Annotated[int, Parameter(help="Seed of the sampling.")] = 0,
) -> None:
    """Answer a prompt with a trained adapter and the build's template."""
    from training.after.generate import generate as answer_prompt

    answer = answer_prompt(
        locate_run(run), prompt, system, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
    )
    _print(answer.text)
    if not answer.stopped:
        print(f"(The answer was cut after {max_new_tokens} tokens; see --max-new-tokens.)", file=sys.stderr)


@app.command
def merge(
    run: Run,
    *,
    to: Annotated[Path, Parameter(help="Folder to write; must be empty or not exist.")],
    check: Annotated[
        bool,
        Parameter(help="Compare the logits with the adapter's, and write nothing if they differ."),
    ] = True,
) -> None:
    """Merge an adapter into its base model: the result is a folder that stock transformers opens."""
    from training.after.merge import merge as merge_adapter

    result = merge_adapter(locate_run(run), to, check=check)
    _print(f"{to}: {plural(result['merged'], 'layer')} merged, {plural(result['shards'], 'shard')}.")
    if check:
        _print(
            f"Largest logit difference {result['logit_difference']:.4g}, mean KL {result['kl']:.3g}, "
            "compared with the adapter."
        )
    folder, template = (shlex.quote(str(path)) for path in (to, to / "chat_template.jinja"))
    steps = [("serve it", f"vllm serve {folder} --chat-template {template}"), ("or", f"transformers serve {folder}")]
    print(next_steps(steps), file=sys.stderr)


@app.command
def export(
    run: Run,
    *,
    to: Annotated[Path, Parameter(help="Folder to write; must be empty or not exist.")],
    format: Annotated[
        Literal["gguf", "gguf-lora", "ollama"],
        Parameter(
            help="gguf: the merged model; gguf-lora: the adapter alone; ollama: the merged model and a Modelfile."
        ),
    ] = "gguf",
    type: Annotated[Literal["f16", "bf16", "q8_0"], Parameter(help="Type of the weights.")] = "f16",
    check: Annotated[
        bool | None,
        Parameter(help="Compare ids and answers with transformers; default: if llama-cpp-python is installed."),
    ] = None,
) -> None:
    """Write a run for llama.cpp or Ollama: needs the extra gguf."""
    from training.after.export import export as export_run

    result = export_run(locate_run(run), to, format, type, check)
    for file in result.files:
        _print(str(file))
    for line in [*(result.comparison.sentences() if result.comparison else []), *result.notes]:
        _print(line)
    print(next_steps(result.next), file=sys.stderr)


@app.command
def publish(
    run: Run,
    *,
    to: Annotated[str, Parameter(help="A model on the Hugging Face Hub: org/name.")],
    base_model: Annotated[
        str | None, Parameter(help="The base model's name on the Hub, if the run was trained on a folder.")
    ] = None,
    private: Annotated[bool, Parameter(negative="", help="Create a private repository.")] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="List what would be sent; write and send nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Put a run's adapter with its card on the Hugging Face Hub, in one commit with a tag."""
    from training.after.publish import publish as publish_adapter

    published = publish_adapter(locate_run(run), to, base_model=base_model, private=private, dry_run=dry_run)
    if as_json:
        _print(json_text({**vars(published), "dry_run": dry_run}))
        return
    if published.there_already:
        _print(f"{published.tag} is in {to} already: nothing was done.")
        return
    for name, size in published.files.items():
        _print(f"{name}  {size_text(size)}")
    for name in published.removed:
        _print(f"{name}  {'would be removed' if dry_run else 'removed'}")
    if dry_run:
        unasked = f" What {to} has is not known: {published.unasked}." if published.unasked else ""
        _print(f"Dry run: {plural(len(published.files), 'file')} would go to {to}; nothing was sent.{unasked}")
    else:
        _print(f"Published {published.tag} to {to}.")


@app.command
def chat(
    *,
    run: Run | None = None,
    gguf: Annotated[
        Path | None, Parameter(help="A GGUF file with a chat template; needs the extra gguf-check.")
    ] = None,
    system: Annotated[str | None, Parameter(help="System text.")] = None,
    max_new_tokens: Annotated[int, Parameter(help="Maximum tokens of an answer.")] = 512,
    temperature: Annotated[float, Parameter(help="Sampling temperature; 0 chooses the most likely tokens.")] = 0.0,
    seed: Annotated[int, Parameter(help="Seed of the sampling.")] = 0,
) -> None:
    """Chat in the terminal with a run's model or with a GGUF file."""
    from training.after import chat as chatting

    folder = locate_run(run) if run is not None else None
    respond = chatting.responder(folder, gguf, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    chatting.chat(respond, input, _write, system)


def _write(text: str) -> None:
    """Show a piece of an answer at once."""
    print(text, end="", flush=True)


def main() -> None:
    """Run a command. Exit codes: 0 done, 1 bad input, 2 wrong usage, 4 damaged build, 130 interrupted, 143 SIGTERM."""
    raise_on_interrupt()
    quiet_libraries()
    try:
        run_program(app, "training", sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)


def _print(text: str) -> None:
    """Print to stdout with control characters written out: names and answers are not trusted."""
    print(visible(text))


if __name__ == "__main__":
    main()
