"""The groups in which `--help` shows the options of a run, and those that each command is about."""

from __future__ import annotations

COMMAND_GROUPS = {
    "Train": ("plan", "run", "inspect"),
    "Use a run": ("evaluate", "generate", "chat", "merge", "export", "publish"),
    "Options": ("--help", "--version"),
}

RUN_GROUPS = {
    "Data and model": ("--data", "--store", "--model", "--revision", "--add-tokens", "--allow-failed-gate"),
    "What to show": ("--gpu", "--row", "--rows", "--json"),
    "Run": ("--out", "--preset", "--config", "--resume", "--seed"),
    "Windows": ("--max-tokens", "--cut", "--train-on"),
    "Schedule": (
        "--epochs",
        "--max-steps",
        "--tokens-per-step",
        "--lr",
        "--schedule",
        "--warmup",
        "--weight-decay",
        "--max-grad-norm",
    ),
    "Adapter": (
        "--lora-r",
        "--lora-alpha",
        "--lora-dropout",
        "--rslora",
        "--dora",
        "--lora-plus",
        "--targets",
        "--modules-to-save",
        "--init-adapter",
    ),
    "Machine": (
        "--device",
        "--memory-gb",
        "--shard",
        "--precision",
        "--quantization",
        "--attention",
        "--kernels",
        "--micro-batch",
        "--checkpoint-layers",
        "--optimizer",
    ),
    "Evaluation and checkpoints": (
        "--held-out",
        "--eval-every",
        "--save-every",
        "--keep",
        "--keep-best",
        "--patience",
        "--stop-prompts",
        "--log-every",
        "--report-to",
    ),
}

RUN_USUAL = (
    "--data",
    "--model",
    "--out",
    "--preset",
    "--resume",
    "--max-tokens",
    "--epochs",
    "--tokens-per-step",
    "--lr",
    "--lora-r",
    "--memory-gb",
    "--report-to",
)

# Options that a plan depends on; it accepts those of a run too, so that the same command line can be planned and run.
PLAN_USUAL = (
    "--data",
    "--model",
    "--gpu",
    "--json",
    "--preset",
    "--config",
    "--max-tokens",
    "--cut",
    "--train-on",
    "--epochs",
    "--max-steps",
    "--tokens-per-step",
    "--lora-r",
    "--targets",
    "--device",
    "--memory-gb",
    "--precision",
    "--quantization",
    "--attention",
    "--micro-batch",
    "--checkpoint-layers",
    "--optimizer",
    "--held-out",
)

INSPECT_USUAL = ("--data", "--model", "--row", "--rows", "--json", "--max-tokens", "--cut", "--train-on", "--held-out")
