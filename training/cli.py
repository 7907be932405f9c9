"""`training`: the commands. The only place that prints results; heavy libraries are imported by the command that needs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.config import Dict

from dataprep.common.errors import UserError
from dataprep.common.text import nearest
from training.config import PRESETS, TINY, TINY_DEFAULTS, RunConfig, read_toml
from training.errors import OptionError, Stopped, TrainingError

if TYPE_CHECKING:
    from cyclopts import ArgumentCollection

app = App(
    name="training",
    help="Fine-tune Llama 2 with QLoRA on a build of dataprep: every trained token accounted for.",
    help_format="plaintext",
    version_flags=[],
)

Options = Annotated[RunConfig, Parameter(name="*")]
Run = Annotated[Path, Parameter(name="--run", help="Folder of a finished run.")]


def layers(_: App, __: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill in what no flag says: first from the TOML file, then from the preset, then (model tiny) from its defaults."""
    given = {argument.name: argument.tokens[-1].value for argument in arguments if argument.tokens}
    if not any(argument.name == "--max-tokens" for argument in arguments):
        return
    found: dict[str, Any] = read_toml(Path(given["--config"])) if "--config" in given else {}
    preset = given.get("--preset") or found.get("preset")
    if preset is not None and preset not in PRESETS:
        raise TrainingError(f"Unknown preset '{preset}'. {nearest(str(preset), PRESETS)}")
    for source, options in (
        (f"{given.get('--config')}", found),
        (f"preset {preset}", PRESETS.get(str(preset), {})),
        ("model tiny", TINY_DEFAULTS if (given.get("--model") or found.get("model")) == TINY else {}),
    ):
        flags = {name.replace("_", "-"): value for name, value in options.items()}
        Dict(flags, source=source, use_commands_as_keys=False)(app, (), arguments)


app.config = (layers,)


@app.command
def run(options: Options) -> None:
    """Train an adapter on a build."""
    from training.run import run as train

    facts = train(options)
    metrics, ledger = facts["metrics"], facts["ledger"]["train"]
    print(
        f"{facts['operational']['out']}: {facts['resolved']['steps']} steps on {metrics['trained_tokens']} trained tokens; "
        f"the data has {ledger['tokens_trained']}."
    )
    if metrics["held_out_after"] is not None:
        print(f"Held-out loss {metrics['held_out_before']:.4f} before, {metrics['held_out_after']:.4f} after.")
    if metrics.get("stopped_by_itself") is not None:
        print(f"{metrics['stopped_by_itself']:.0%} of {metrics['stop_prompts']} answers ended by themselves.")


@app.command
def plan(
    options: Options,
    *,
    gpu: Annotated[
        Literal["t4", "l4", "a100", "h100", "this"] | None,
        Parameter(help="The GPU to plan for; `this`: the one here, with one measured step."),
    ] = None,
    as_json: Annotated[bool, Parameter(name="--json", help="As one JSON object.")] = False,
) -> None:
    """Tell what a run will take: memory by part, tokens, steps and time."""
    from training.memory.plan import plan as planned

    facts, lines = planned(options, gpu)
    print(json.dumps(facts) if as_json else "\n".join(lines))


@app.command
def inspect(
    options: Options,
    *,
    row: Annotated[int | None, Parameter(help="Number of the row in the train split, from 0.")] = None,
    rows: Annotated[str | None, Parameter(help="A range of rows (0:100), or all; with --json.")] = None,
    as_json: Annotated[bool, Parameter(name="--json", help="One JSON line a row: id, input_ids, labels.")] = False,
) -> None:
    """Show the tokens of a row as they are trained: trained, masked, control; needs a tokenizer only."""
    from training.data import inspect as show

    if as_json:
        for line in show.json_lines(options, rows or (str(row) if row is not None else "all")):
            sys.stdout.write(line + "\n")
    elif rows is not None:
        raise OptionError(f"--rows {rows} needs --json; --row prints one row.")
    else:
        show.print_row(options, row or 0)


@app.command
def evaluate(
    run: Run,
    *,
    prompts: Annotated[int, Parameter(help="Held-out prompts to answer.")] = 16,
    max_new_tokens: Annotated[int, Parameter(help="Tokens of an answer, at most.")] = 256,
    as_json: Annotated[bool, Parameter(name="--json", help="As one JSON object.")] = False,
) -> None:
    """Held-out loss and perplexity before and after, and the share of answers that end by themselves."""
    from training.after.evaluate import evaluate as measured

    facts = measured(run, prompts, max_new_tokens)
    if as_json:
        print(json.dumps(facts))
        return
    for when in ("before", "after"):
        print(f"{when:6} loss {facts[when]['loss']:.4f}  perplexity {facts[when]['perplexity']:.2f}")
    print(f"{facts['stopped_by_itself']:.0%} of {facts['prompts']} answers ended by themselves.")


@app.command
def generate(
    run: Run,
    *,
    prompt: Annotated[str, Parameter(help="What to say to the model.")],
    system: Annotated[str | None, Parameter(help="System text.")] = None,
    max_new_tokens: Annotated[int, Parameter(help="Tokens of the answer, at most.")] = 256,
    temperature: Annotated[float, Parameter(help="0 takes the likeliest token each time.")] = 0.0,
    seed: Annotated[int, Parameter(help="Seed, where the temperature is above 0.")] = 0,
) -> None:
    """Answer a prompt with a trained adapter, through the build's own template."""
    from training.after.evaluate import generate as answered

    answer = answered(run, prompt, system, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    print(answer.text)
    if not answer.stopped:
        print(f"(cut after {max_new_tokens} tokens: --max-new-tokens)", file=sys.stderr)


@app.command
def merge(
    run: Run,
    *,
    to: Annotated[Path, Parameter(help="Folder to write; must be empty or new.")],
    check: Annotated[bool, Parameter(help="Compare the merged model's logits with the adapter's.")] = True,
) -> None:
    """Merge an adapter into its base model, shard by shard, into a folder that stock transformers opens."""
    from training.after.merge import merge as merged

    facts = merged(run, to, check=check)
    print(f"{to}: {facts['merged']} layers merged, {facts['shards']} shards.")
    if check:
        print(f"Largest logit difference {facts['logit_difference']:.4g}, mean KL {facts['kl']:.3g} to the adapter's.")


def main() -> None:
    """Run a command; leaves with 0 done, 1 bad input, 2 wrong usage, 4 damaged build, 130 interrupted, 143 SIGTERM."""
    _hush()
    try:
        app(exit_on_error=False, print_error=True)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as fault:
        sys.exit(_told(fault))


def _hush() -> None:
    """Keep the libraries' own bars and warnings out of the log, unless somebody asked for them."""
    import logging
    import os
    import warnings

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Windows differ in length and number of conversations: without this the allocator holds nearly twice what is in use.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("bitsandbytes", "trl", "liger_kernel"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _told(fault: Exception) -> int:
    """The exit code for `fault`, its sentence printed; a bug of ours is raised again."""
    from cyclopts import CycloptsError

    if isinstance(fault, CycloptsError):
        return 2
    if not isinstance(fault, (UserError, Stopped)):
        raise fault
    print(f"{'' if isinstance(fault, Stopped) else 'Error: '}{fault}", file=sys.stderr)
    return fault.exit_code


if __name__ == "__main__":
    main()
