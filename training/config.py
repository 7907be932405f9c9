"""RunConfig: every option of a run once, with its type, default and description; and the named presets.

Flags, TOML files, presets and help come from this dataclass. `None` means that the run chooses the value; run.json records
the choice.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from dataprep.common.lookup import DEFAULT_STORE
from dataprep.common.text import excerpt, nearest
from training.errors import OptionError

TINY = "tiny"  # --model tiny: a small random model, created for the run

MAX_SEED = 2**32 - 1  # NumPy's limit
MAX_RANK, MAX_MICRO_BATCH = 2**16, 2**16  # larger ones are typing errors that would exhaust the memory

Preset = Literal["notebook", "t4", "l4", "a100", "h100"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The options of a run."""

    data: Path
    """The build to train on: its path, its name, or name@version."""
    store: Path = DEFAULT_STORE
    """Folder of builds."""
    model: str
    """Folder or Hub name of the base model, or `tiny` for a small random model that needs no download."""
    revision: str | None = None
    """Commit, branch or tag of a model on the Hub."""
    add_tokens: str | None = None
    """Special tokens to add to the tokenizer and the model: a file with one a line, or a list separated by commas."""
    out: Path | None = None
    """Folder of the run; default: runs/NAME-VERSION-MODEL."""
    preset: Preset | None = None
    """Named set of defaults; flags and the TOML file override it."""
    config: Path | None = None
    """TOML file with options; flags override it."""
    resume: str = "never"
    """`auto` continues from the newest checkpoint in --out, or starts if there is none; `never` needs an empty --out."""
    allow_failed_gate: bool = False
    """Train on a build whose quality gate failed; run.json records this."""

    max_tokens: int = 2048
    """Tokens in a window: conversations are packed into windows of this size, and longer ones are truncated to it."""
    cut: Literal["newest", "drop"] = "newest"
    """What to cut of a conversation longer than the window: its newest turns, or `drop` the conversation."""
    train_on: Literal["all-answers", "last-answer", "everything"] = "all-answers"
    """The tokens that the loss is computed on."""
    held_out: int = 200
    """Maximum rows for the held-out loss, from the test split or, without one, as whole trees of the train split; 0: none."""

    epochs: float = 1.0
    """Passes over the data. `--model tiny` stops after at most 60 steps, and by default makes as many passes as fit."""
    max_steps: int | None = None
    """Steps of the optimizer in the run; overrides --epochs."""
    tokens_per_step: int | None = None
    """Effective batch size: tokens of the windows in one step of the optimizer, over all GPUs; default: as many as leave the
    run at least 128 steps, between one window and 16,384 tokens (with --max-steps, 16,384)."""
    lr: float = 2e-4
    """Highest learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate decays after the warm-up."""
    warmup: float = 0.03
    """Share of the steps in which the learning rate rises from 0, 0 to 1."""
    weight_decay: float = 0.0
    """AdamW's weight decay of the adapters."""
    max_grad_norm: float = 0.3
    """Gradients are clipped to this norm."""
    seed: int = 42
    """Seed of the adapters' initial weights, the order of the windows and the dropout."""

    lora_r: int = 64
    """Rank of the adapters."""
    lora_alpha: int = 16
    """The adapters' output is scaled by alpha divided by rank."""
    lora_dropout: float = 0.0
    """Dropout of the adapters' inputs, 0 to 1; a value above 0 costs memory and time."""
    init_adapter: Path | None = None
    """Folder of a run or an adapter to continue from, on this build; its rank, alpha and layers must be those given here."""
    rslora: bool = False
    """Rank-stabilised LoRA: scale the adapters' output by alpha divided by the square root of the rank."""
    dora: bool = False
    """Weight-decomposed LoRA (DoRA): also train the length of each row of a weight; takes more memory and time."""
    lora_plus: float | None = None
    """LoRA+: learning rate of B as a multiple of that of A; its authors recommend 16. Default: the same for both."""
    targets: str = "all-linear"
    """Layers with an adapter: all-linear, names separated by commas (q_proj,v_proj), or a regular expression over paths."""
    modules_to_save: str | None = None
    """Layers to train whole and save with the adapter: the embeddings, the output layer, or both (embed_tokens,lm_head)."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Precision; auto: bf16 on GPUs that support it, fp16 on older GPUs, fp32 on a CPU."""
    quantization: Literal["nf4", "none"] = "nf4"
    """Quantisation of the base model: 4-bit NF4 with double quantisation, or none."""
    attention: Literal["auto", "varlen", "sdpa"] = "auto"
    """Attention within each conversation: one variable-length kernel (sm80 and newer), or SDPA for each conversation."""
    kernels: Literal["auto", "liger", "none"] = "auto"
    """Fused kernels for norms, rotary embedding and the MLP; auto: liger-kernel, if installed, on a GPU."""
    micro_batch: int | None = None
    """Windows in one forward pass; default: the fastest number that fits into memory."""
    checkpoint_layers: int | None = None
    """Layers whose activations are recomputed in the backward pass; default: the minimum that fits into memory."""
    optimizer: Literal["adamw", "paged_adamw_8bit", "paged_adamw_32bit"] | None = None
    """Optimizer; default: adamw, or paged_adamw_8bit if memory is short."""
    memory_gb: float | None = None
    """Limit of GPU memory, in GiB; default: all free memory."""
    shard: bool = False
    """Divide the base model among the processes that torchrun starts, for a model that no single GPU holds."""

    eval_every: int | None = None
    """Steps between held-out losses; default: a tenth of the run."""
    save_every: int | None = None
    """Steps between checkpoints; default: a tenth of the run."""
    keep: int = 2
    """Number of checkpoints to keep, the newest ones; at least 2."""
    keep_best: bool = False
    """Make the adapter of the lowest held-out loss the result; a checkpoint is written at each evaluation."""
    patience: int | None = None
    """Evaluations in a row without a lower held-out loss after which the run ends; needs --keep-best."""
    log_every: int = 1
    """Steps between lines of metrics.jsonl."""
    report_to: Literal["none", "tensorboard", "wandb", "mlflow", "trackio"] = "none"
    """Also report the metrics to a tracker; tensorboard writes to tensorboard/ in the run's folder. See docs/trackers.md."""
    stop_prompts: int = 8
    """Held-out prompts to answer after training, to see whether the answers end with the end token; 0: none, as for tiny."""


# The defaults are those of QLoRA (Dettmers et al. 2023, appendix B); a preset has what a GPU, or the public notebook, changes.
PRESETS: dict[str, dict[str, Any]] = {
    "notebook": {
        "lora_r": 64,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "targets": "q_proj,v_proj",
        "lr": 2e-4,
        "schedule": "cosine",
        "warmup": 0.03,
        "optimizer": "paged_adamw_32bit",
        "max_grad_norm": 0.3,
        "max_tokens": 1024,
        "tokens_per_step": 4096,
        "micro_batch": 4,
        "epochs": 1.0,
    },
    "t4": {"max_tokens": 1024, "lora_r": 16, "lora_alpha": 32, "precision": "fp16"},
    "l4": {"lora_r": 32, "lora_alpha": 32},
    "a100": {"lora_r": 64, "lora_alpha": 16},
    "h100": {"lora_r": 64, "lora_alpha": 16},
}

# `--model tiny` stops after these steps, about a minute on two cores, even if --epochs asks for more. Its small size needs a
# higher learning rate.
TINY_STEPS = 60
TINY_DEFAULTS: dict[str, Any] = {
    "epochs": 1e3,
    "tokens_per_step": 2048,
    "lr": 5e-3,
    "lora_r": 16,
    "held_out": 32,
    "stop_prompts": 0,
}

NOTEBOOK_FAULTS = (
    "notebook: it pads with the end token, so the model never learns to stop; here nothing is padded.",
    "notebook: text that contains <s> gets a second one from the tokenizer; here the ids follow Meta's rule.",
    "notebook: it trains on the user's turns too; here only on the answers (--train-on).",
    "notebook: it cuts at 1,024 tokens silently; here rows are cut between turns, and the ledger counts what was cut.",
)

# Options that do not change what a run computes: they may differ when it is resumed.
OPERATIONAL = frozenset(
    [
        "data",
        "store",
        "out",
        "resume",
        "config",
        "preset",
        "keep",
        "log_every",
        "report_to",
        "save_every",
        "eval_every",
        "stop_prompts",
        "memory_gb",
        "shard",
    ]
)


PATHS = ("data", "store", "out", "config", "init_adapter")  # options that are paths


def names() -> list[str]:
    """Names of the options, as TOML files and presets write them."""
    return [field.name for field in fields(RunConfig)]


def read_toml(path: Path) -> dict[str, Any]:
    """Read options from a TOML file; `-` and `_` in names are the same.

    Raises:
        OptionError: the file is missing or not TOML, a name is not an option, or a value has the wrong type.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as fault:
        raise OptionError(f"{path} cannot be read ({fault.strerror}).") from None
    except (ValueError, RecursionError) as fault:
        raise OptionError(f"{path} is not valid TOML ({excerpt(str(fault))}).") from None
    options = {name.replace("-", "_"): value for name, value in content.items()}
    known = set(names()) - {"config"}
    types = {field.name: field.type for field in fields(RunConfig)}
    for name, value in options.items():
        if name not in known:
            raise OptionError(f"Unknown option '{excerpt(name, 60)}' in {path}. {nearest(name, known)}")
        if not isinstance(value, str | int | float) or isinstance(value, bool) != (types[name] == "bool"):
            raise OptionError(f"{name} in {path} has the wrong type ({type(value).__name__}): see training run --help.")
    return options


def default_sources(config: Path | None, preset: str | None, model: str | None) -> list[tuple[str, dict[str, Any]]]:
    """The sources of options that a caller does not state, in order of precedence: each a name and its options.

    Args:
        config: a TOML file; it may name the preset and the model.
        preset: the preset, if it is stated.
        model: the model, if it is stated.

    Raises:
        OptionError: the file cannot be read, or the preset is unknown.
    """
    from_file = read_toml(config) if config is not None else {}
    preset = preset or from_file.get("preset")
    if preset is not None and preset not in PRESETS:
        raise OptionError(f"Unknown preset '{preset}'. {nearest(str(preset), PRESETS)}")
    tiny = (model or from_file.get("model")) == TINY
    return [
        (str(config), from_file),
        (f"preset {preset}", PRESETS.get(str(preset), {})),
        ("model tiny", TINY_DEFAULTS if tiny else {}),
    ]


def with_defaults(stated: Mapping[str, Any]) -> RunConfig:
    """The options of a run: the stated ones, then those of `default_sources`, then the defaults of `RunConfig`.

    Raises:
        OptionError: an unknown name.
    """
    for name in stated.keys() - set(names()):
        raise OptionError(f"Unknown option '{name}'. {nearest(name, names())}")
    options: dict[str, Any] = {}
    sources = default_sources(stated.get("config"), stated.get("preset"), stated.get("model"))
    for _, defaults in reversed([("stated", dict(stated)), *sources]):
        options |= defaults
    for name in PATHS:
        if options.get(name) is not None:
            options[name] = Path(options[name])
    return RunConfig(**options)


def at_least(low: float, **options: float | None) -> None:
    """Check that each option that is set is a finite number of at least `low`.

    Raises:
        OptionError: names the flag of the first that is not.
    """
    for name, value in options.items():
        if value is not None and not low <= value < math.inf:
            raise OptionError(f"--{name.replace('_', '-')} is {value}: give a number of at least {low}.")


def check_seed(seed: int) -> None:
    """Check that NumPy accepts the seed.

    Raises:
        OptionError: it does not.
    """
    if not 0 <= seed <= MAX_SEED:
        raise OptionError(f"--seed is {seed}: give a number between 0 and {MAX_SEED}.")


def check(config: RunConfig) -> RunConfig:
    """Return `config` if its values are valid.

    Raises:
        OptionError: names the first flag with an invalid value, and valid values.
    """
    minimum = {
        "max_tokens": 16, "epochs": 1e-6, "tokens_per_step": 1, "lora_r": 1, "lora_alpha": 1, "keep": 2, "log_every": 1,
        "held_out": 0, "max_steps": 1, "micro_batch": 1, "checkpoint_layers": 0, "eval_every": 1, "save_every": 1,
        "lr": 0, "warmup": 0, "weight_decay": 0, "max_grad_norm": 1e-9, "lora_dropout": 0, "stop_prompts": 0,
        "memory_gb": 0.1, "patience": 1, "lora_plus": 1e-3,
    }  # fmt: skip
    values = asdict(config)
    for name, low in minimum.items():
        at_least(low, **{name: values[name]})
    for name, high in {"lora_r": MAX_RANK, "micro_batch": MAX_MICRO_BATCH}.items():
        if (values[name] or 0) > high:
            raise OptionError(f"--{name.replace('_', '-')} is {values[name]}: give a number of at most {high}.")
    check_seed(config.seed)
    if config.lora_dropout >= 1 or config.warmup > 1:
        raise OptionError("--lora-dropout must be less than 1 and --warmup at most 1: both are shares.")
    if config.resume not in ("auto", "never"):
        raise OptionError(f"--resume is '{config.resume}'. {nearest(config.resume, ('auto', 'never'))}")
    if config.tokens_per_step is not None and config.tokens_per_step < config.max_tokens:
        raise OptionError(
            f"--tokens-per-step ({config.tokens_per_step}) is less than one window: raise it, "
            f"or lower --max-tokens ({config.max_tokens})."
        )
    if config.patience is not None and not config.keep_best:
        raise OptionError(
            "--patience needs --keep-best: without it the result would be the last adapter, not the best."
        )
    if config.shard and config.dora:
        raise OptionError("--dora needs the whole weights of a layer, which --shard divides: use one of them.")
    if config.keep_best and config.held_out == 0:
        raise OptionError("--keep-best needs held-out rows: raise --held-out.")
    if config.attention == "varlen" and config.device == "cpu":
        raise OptionError("--attention varlen needs a GPU (sm80 or newer): use --attention auto.")
    if config.report_to != "none" and find_spec(config.report_to) is None:
        raise OptionError(
            f"--report-to {config.report_to} needs the package {config.report_to}: pip install {config.report_to}, or "
            "pip install 'dataprep-training[trackers]' for all trackers."
        )
    return config


def as_record(config: RunConfig) -> dict[str, Any]:
    """Every option, as run.json holds it."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}


def from_record(options: dict[str, Any]) -> RunConfig:
    """The options of a run.json; options that this version does not know are ignored."""
    known = {name: value for name, value in options.items() if name in names()}
    for name in PATHS:
        if known.get(name) is not None:
            known[name] = Path(known[name])
    return RunConfig(**known)
