"""RunConfig: every option of a run once, with its type, default and one sentence; and the named presets.

Flags, TOML files, presets and help all come from this dataclass. `None` means that the run chooses by itself, and says
in run.json what it chose.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from dataprep.common.text import nearest
from training.errors import OptionError

TINY = "tiny"  # the model that is made on the spot

MOST_SEED = 2**32 - 1  # NumPy's

Preset = Literal["notebook", "t4", "l4", "a100", "h100"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What a run is made of."""

    data: Path
    """Folder of the build to train on (data/builds/NAME/latest)."""
    model: str
    """Folder or Hub name of the base model, or `tiny` for a small random one that needs no download."""
    revision: str | None = None
    """Commit, branch or tag of a model on the Hub."""
    out: Path | None = None
    """Folder of the run; left out: runs/ and the names of build and model."""
    preset: Preset | None = None
    """A named set of defaults; flags and the TOML file go before it."""
    config: Path | None = None
    """TOML file of options; flags go before it."""
    resume: str = "never"
    """`auto` goes on from the newest whole checkpoint in --out, or begins if there is none; `never` wants an empty --out."""
    allow_failed_gate: bool = False
    """Train on a build whose quality gate failed; run.json records it."""

    max_tokens: int = 2048
    """Size of the window, in tokens: conversations are packed into windows of it and cut to it."""
    cut: Literal["newest", "drop"] = "newest"
    """Of a conversation longer than the window, leave off its newest turns, or drop it whole."""
    train_on: Literal["all-answers", "last-answer", "everything"] = "all-answers"
    """What the loss is taken over."""
    held_out: int = 200
    """Rows, at most, that the held-out loss is taken over, of the test split or (without one) in whole trees; 0 takes none."""

    epochs: float = 1.0
    """Passes over the data; `tiny` ends after 60 steps at the latest, and left alone takes as many passes as fit into them."""
    max_steps: int | None = None
    """Steps of the optimiser after which the run ends, whatever --epochs says."""
    tokens_per_step: int = 16384
    """Effective batch, in tokens of the window over all GPUs: what one step of the optimiser sees."""
    lr: float = 2e-4
    """Highest learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = 0.03
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """Decay of the adapters' weights, as AdamW has it."""
    max_grad_norm: float = 0.3
    """Gradients are scaled down to this norm."""
    seed: int = 42
    """Seed of the adapters, the order of the windows and the dropout."""

    lora_r: int = 64
    """Rank of the adapters."""
    lora_alpha: int = 16
    """Adapters are scaled by alpha over rank."""
    lora_dropout: float = 0.0
    """Share of the adapters' inputs that is dropped; above 0 it costs memory and time."""
    targets: str = "all-linear"
    """Layers with an adapter: all-linear, or names with commas (q_proj,v_proj)."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Arithmetic; auto: bf16 where the GPU has it, fp16 on older ones, fp32 on a CPU."""
    quantization: Literal["nf4", "none"] = "nf4"
    """How the base model is held: 4-bit NF4 with double quantisation, or as it is."""
    attention: Literal["auto", "varlen", "sdpa"] = "auto"
    """Attention within each conversation: one variable-length kernel (sm80 and newer), or SDPA one by one."""
    kernels: Literal["auto", "liger", "none"] = "auto"
    """Fused kernels for norms, rotary embedding and the MLP: liger-kernel where it is installed, on GPUs only."""
    micro_batch: int | None = None
    """Windows in one forward pass; left out: as many as fit and pay."""
    checkpoint_layers: int | None = None
    """Layers whose activations are computed again in the backward pass; left out: as few as memory asks for."""
    optimizer: Literal["adamw", "paged_adamw_8bit", "paged_adamw_32bit"] | None = None
    """Optimiser; left out: adamw, or paged_adamw_8bit where memory asks for it."""
    memory_gb: float | None = None
    """GPU memory to stay within, in GiB; left out: all that is free."""

    eval_every: int | None = None
    """Steps between held-out losses; left out: about ten in a run."""
    save_every: int | None = None
    """Steps between checkpoints; left out: about ten in a run."""
    keep: int = 2
    """Checkpoints kept, the newest ones; at least 2."""
    log_every: int = 1
    """Steps between lines of metrics.jsonl."""
    report_to: Literal["none", "tensorboard"] = "none"
    """Another place for the metrics: TensorBoard's events in the run's folder, tensorboard/."""
    stop_prompts: int = 8
    """Held-out prompts answered after training, to see whether the answers stop by themselves; 0 asks none."""


# QLoRA (Dettmers et al. 2023, appendix B) is the default; presets say where a GPU or a habit wants something else.
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
    "t4": {"max_tokens": 1024, "lora_r": 16, "lora_alpha": 32, "tokens_per_step": 8192, "precision": "fp16"},
    "l4": {"lora_r": 32, "lora_alpha": 32, "tokens_per_step": 16384},
    "a100": {"lora_r": 64, "lora_alpha": 16, "tokens_per_step": 16384},
    "h100": {"lora_r": 64, "lora_alpha": 16, "tokens_per_step": 32768},
}

# `--model tiny` ends by itself, about a minute on two cores, whatever the passes over the data that are asked for (by itself
# it takes as many as these steps have room for); it is so small that it wants a higher rate.
TINY_STEPS = 60
TINY_DEFAULTS: dict[str, Any] = {"epochs": 1e3, "tokens_per_step": 2048, "lr": 5e-3, "lora_r": 16, "held_out": 32}

NOTEBOOK_FAULTS = (
    "notebook: pads with the end token, so that the model never learns to stop; here nothing is padded.",
    "notebook: text with a typed <s> gets a second one from the tokenizer; here ids are Meta's.",
    "notebook: trains on the user's turns too; here on the answers (--train-on).",
    "notebook: cuts at 1,024 tokens without a word; here between turns, and the ledger tells.",
)

# Options that say where and how a run is kept, not what it computes: they may differ when it is resumed.
OPERATIONAL = frozenset(
    [
        "data",
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
    ]
)


def names() -> list[str]:
    """The options' names, as TOML files and presets write them."""
    return [field.name for field in fields(RunConfig)]


def read_toml(path: Path) -> dict[str, Any]:
    """Options from a TOML file; `-` and `_` in names are the same.

    Raises:
        OptionError: no such file, no TOML, or a name that is no option (the nearest is named).
    """
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as fault:
        raise OptionError(f"{path} cannot be read ({fault.strerror}).") from None
    except ValueError as fault:
        raise OptionError(f"{path} is no valid TOML ({fault}).") from None
    options = {name.replace("-", "_"): value for name, value in found.items()}
    known = set(names()) - {"config"}
    for name in options.keys() - known:
        raise OptionError(f"Unknown option '{name}' in {path}. {nearest(name, known)}")
    return options


def at_least(low: float, **options: float | None) -> None:
    """Raises:
    OptionError: one of `options` is set and below `low`; names the flag.
    """
    for name, value in options.items():
        if value is not None and not low <= value < math.inf:
            raise OptionError(f"--{name.replace('_', '-')} is {value} and must be a number of at least {low}.")


def check_seed(seed: int) -> None:
    """Raises:
    OptionError: NumPy takes no such seed.
    """
    if not 0 <= seed <= MOST_SEED:
        raise OptionError(f"--seed is {seed} and must be between 0 and {MOST_SEED}.")


def check(config: RunConfig) -> RunConfig:
    """`config`, if its values make sense.

    Raises:
        OptionError: names the flag and the values that work.
    """
    least = {
        "max_tokens": 16, "epochs": 1e-6, "tokens_per_step": 1, "lora_r": 1, "lora_alpha": 1, "keep": 2, "log_every": 1,
        "held_out": 0, "max_steps": 1, "micro_batch": 1, "checkpoint_layers": 0, "eval_every": 1, "save_every": 1,
        "lr": 0, "warmup": 0, "weight_decay": 0, "max_grad_norm": 1e-9, "lora_dropout": 0, "stop_prompts": 0,
        "memory_gb": 0.1,
    }  # fmt: skip
    values = asdict(config)
    for name, low in least.items():
        at_least(low, **{name: values[name]})
    check_seed(config.seed)
    if config.lora_dropout >= 1 or config.warmup > 1:
        raise OptionError("--lora-dropout must be below 1 and --warmup at most 1: both are shares.")
    if config.resume not in ("auto", "never"):
        raise OptionError(f"--resume is '{config.resume}'. {nearest(config.resume, ('auto', 'never'))}")
    if config.tokens_per_step < config.max_tokens:
        raise OptionError(
            f"--tokens-per-step ({config.tokens_per_step}) is less than one window: raise it, "
            f"or lower --max-tokens ({config.max_tokens})."
        )
    if config.attention == "varlen" and config.device == "cpu":
        raise OptionError("--attention varlen needs a GPU (sm80 or newer): leave it at auto.")
    if config.report_to == "tensorboard" and find_spec("tensorboard") is None:
        raise OptionError("--report-to tensorboard needs the package tensorboard: pip install tensorboard.")
    return config


def as_json(config: RunConfig) -> dict[str, Any]:
    """Every option, as run.json writes it."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}


def from_json(options: dict[str, Any]) -> RunConfig:
    """The options of a run.json; ones that this version does not know are left out."""
    known = {name: value for name, value in options.items() if name in names()}
    for name in ("data", "out", "config"):
        known[name] = Path(known[name]) if known.get(name) is not None else None
    return RunConfig(**known)
