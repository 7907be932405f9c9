"""The groups in which `--help` shows the commands and the options of `build`, and the options that people use."""

from __future__ import annotations

COMMAND_GROUPS = {
    "Make": ("build", "audit", "templates"),
    "Look": ("list", "show", "why", "duplicates", "report", "diff"),
    "Keep and share": ("verify", "export", "publish", "gc"),
    "Options": ("--help", "--version"),
}

BUILD_GROUPS = {
    "Sources": (
        "FILE",
        "--source",
        "--format",
        "--columns",
        "--roles",
        "--preference",
        "--unknown-fields",
        "--skip-unknown",
        "--assume-lang",
        "--limit",
        "--max-bad",
        "--max-record-bytes",
    ),
    "Conversations": (
        "--paths",
        "--lang",
        "--system",
        "--control-tokens",
        "--min-turns",
        "--max-turns",
        "--min-chars",
        "--max-chars",
    ),
    "Review": (
        "--accepted-only",
        "--min-reviews",
        "--min-quality",
        "--min-helpfulness",
        "--max-toxicity",
        "--max-spam",
        "--max-fails-task",
        "--max-lang-mismatch",
        "--max-pii",
        "--max-not-appropriate",
        "--max-hate-speech",
        "--max-sexual-content",
        "--max-violence",
    ),
    "Duplicates and benchmarks": ("--near-dup", "--near-dup-on", "--near-dup-siblings", "--decontaminate"),
    "Sample and split": ("--sample", "--sample-method", "--split", "--seed"),
    "Text": ("--template", "--template-date", "--tokenizer"),
    "Checks": ("--gate", "--expectations"),
    "Output": ("--name", "--store", "--recipe", "--license", "--shard-size", "--dry-run", "--force", "--json"),
    "Machine": (
        "--workers",
        "--engine",
        "--ray-address",
        "--max-memory",
        "--partition-bytes",
        "--no-cache",
        "--cache-size",
    ),
}

BUILD_USUAL = (
    "FILE",
    "--lang",
    "--system",
    "--near-dup",
    "--decontaminate",
    "--sample",
    "--split",
    "--template",
    "--tokenizer",
    "--name",
    "--recipe",
    "--dry-run",
)
