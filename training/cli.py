"""The command `training`: parses arguments, calls one function, prints its result.

Each command imports the modules that it needs, so that `--help` is instant.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.config import Dict

from dataprep.common.errors import UserError
from dataprep.common.interrupt import raise_on_interrupt
from dataprep.common.text import excerpt, json_text, visible
from training.config import RunConfig, default_sources
from training.errors import OptionError, Stopped
from training.quiet import quiet_libraries

if TYPE_CHECKING:
    from cyclopts import ArgumentCollection

app = App(
    name="training",
    help="Fine-tune a chat model with QLoRA on a build of dataprep.",
    help_format="plaintext",
    version_flags=[],
)

DEBUG = "DATAPREP_DEBUG"  # environment variable: show the traceback of any error

Options = Annotated[RunConfig, Parameter(name="*")]
Run = Annotated[Path, Parameter(name="--run", help="Folder of a finished run.")]


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


@app.command
def run(options: Options) -> None:
    """Train an adapter on a build."""
    from training.run import run as train

    record = train(options)
    if os.environ.get("RANK", "0") != "0":
        return  # the first process prints the result
    metrics, ledger = record["metrics"], record["ledger"]["train"]
    _print(
        f"{record['operational']['out']}: {record['resolved']['steps']} steps, {metrics['trained_tokens']} trained tokens; "
        f"one epoch has {ledger['tokens_trained']}."
    )
    if metrics["held_out_before"] is not None and metrics["held_out_after"] is not None:
        best = f", at the best step {metrics['best_step']}" if "best_step" in metrics else ""
        _print(f"Held-out loss {metrics['held_out_before']:.4f} before, {metrics['held_out_after']:.4f} after{best}.")
    if metrics.get("stopped_by_itself") is not None:
        _print(f"{metrics['stopped_by_itself']:.0%} of {metrics['stop_prompts']} answers ended with the end token.")


@app.command
def plan(
    options: Options,
    *,
    gpu: Annotated[
        Literal["t4", "l4", "a100", "h100", "this"] | None,
        Parameter(help="The GPU to plan for; `this`: the machine's own, with one measured step."),
    ] = None,
    as_json: Annotated[bool, Parameter(name="--json", help="Print one JSON object.")] = False,
) -> None:
    """Estimate memory, tokens, steps and time of a run, without starting it."""
    from training.memory.plan import plan as make_plan

    record, lines = make_plan(options, gpu)
    _print(json_text(record) if as_json else "\n".join(lines))


@app.command
def inspect(
    options: Options,
    *,
    row: Annotated[int | None, Parameter(help="Number of the row in the train split, from 0.")] = None,
    rows: Annotated[str | None, Parameter(help="Range of rows (0:100), or all; needs --json.")] = None,
    as_json: Annotated[
        bool, Parameter(name="--json", help="Print a JSON line for each row: id, input_ids, labels.")
    ] = False,
) -> None:
    """Show which tokens of a row are trained, masked or special; needs a tokenizer, but no model."""
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
    as_json: Annotated[bool, Parameter(name="--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute held-out loss and perplexity before and after training, and the share of answers that end."""
    from training.after.evaluate import evaluate as compute

    result = compute(run, prompts, max_new_tokens)
    if as_json:
        _print(json_text(result))
        return
    _print(f"before loss {result['before']['loss']:.4f}  perplexity {result['before']['perplexity']:.2f}")
    _print(f"after  loss {result['after']['loss']:.4f}  perplexity {result['after']['perplexity']:.2f}")
    _print(f"{result['stopped_by_itself']:.0%} of {result['prompts']} answers ended with the end token.")


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

    answer = answer_prompt(run, prompt, system, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
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
    """Merge an adapter into its base model, as a folder that stock transformers opens."""
    from training.after.merge import merge as merge_adapter

    result = merge_adapter(run, to, check=check)
    _print(f"{to}: {result['merged']} layers merged, {result['shards']} shards.")
    if check:
        _print(
            f"Largest logit difference {result['logit_difference']:.4g}, mean KL {result['kl']:.3g}, "
            "compared with the adapter."
        )
    _print(f"Next: vllm serve {to} --chat-template {to / 'chat_template.jinja'}; or transformers serve {to}")


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
    """Write a run as files for llama.cpp or Ollama; needs the extra gguf."""
    from training.after.export import export as export_run

    result = export_run(run, to, format, type, check)
    for file in result.files:
        _print(str(file))
    for line in [*(result.comparison.sentences() if result.comparison else []), *result.notes]:
        _print(line)


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
    as_json: Annotated[bool, Parameter(name="--json", help="Print one JSON object.")] = False,
) -> None:
    """Put a run's adapter with its card on the Hugging Face Hub, in one commit with a tag."""
    from training.after.publish import publish as publish_adapter

    published = publish_adapter(run, to, base_model=base_model, private=private, dry_run=dry_run)
    if as_json:
        _print(json_text({**vars(published), "dry_run": dry_run}))
        return
    if published.there_already:
        _print(f"{published.tag} is in {to} already: nothing was done.")
        return
    for name, size in published.files.items():
        _print(f"{name}  {size:,} bytes")
    for name in published.removed:
        _print(f"{name}  {'would be removed' if dry_run else 'removed'}")
    if dry_run:
        unasked = f" What {to} has is not known: {published.unasked}." if published.unasked else ""
        _print(f"Dry run: {len(published.files)} files would go to {to}; nothing was sent.{unasked}")
    else:
        _print(f"Published {published.tag} to {to}.")


@app.command
def chat(
    *,
    run: Annotated[Path | None, Parameter(help="Folder of a finished run.")] = None,
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

    respond = chatting.responder(run, gguf, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    chatting.chat(respond, input, _write, system)


def _write(text: str) -> None:
    """Show a piece of an answer at once."""
    print(text, end="", flush=True)


def main() -> None:
    """Run a command. Exit codes: 0 done, 1 bad input, 2 wrong usage, 4 damaged build, 130 interrupted, 143 SIGTERM."""
    raise_on_interrupt()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for terminals whose encoding lacks a character
    quiet_libraries()
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as fault:
        if os.environ.get(DEBUG):
            raise
        sys.exit(_report(fault))


def _print(text: str) -> None:
    """Print to stdout with control characters written out: names and answers are not trusted."""
    print(visible(text))


def _report(fault: Exception) -> int:
    """Print one sentence about an exception, and return the exit code."""
    from cyclopts import CycloptsError

    if isinstance(fault, CycloptsError):
        code, sentence = 2, f"Error: {fault}"
    elif isinstance(fault, Stopped):
        code, sentence = fault.exit_code, str(fault)
    elif isinstance(fault, UserError):
        code, sentence = fault.exit_code, f"Error: {fault}"
    elif isinstance(fault, OSError) and fault.strerror:
        code, sentence = 1, f"Error: {fault.filename or 'A file'}: {fault.strerror}."
    else:
        code, sentence = 1, f"Error: {_bug_sentence(fault)}"
    print(visible(sentence), file=sys.stderr)
    return code


def _bug_sentence(fault: Exception) -> str:
    command = excerpt(" ".join(["training", *sys.argv[1:]]), 200)
    return (
        f"Unexpected {type(fault).__name__} ({excerpt(str(fault), 200)}) in `{command}`: this is a bug. "
        f"Run it again with {DEBUG}=1 and report the traceback."
    )


if __name__ == "__main__":
    main()
