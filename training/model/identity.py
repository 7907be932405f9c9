"""Which model a run uses: its config.json, and a revision that identifies its files."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

from training.errors import ModelError
from training.model.files import CONFIG, locate, read_json_object

SAMPLED = "sampled-"  # begins a folder's revision; those of older runs are a digest of names and sizes only
BLOCK = 4096  # bytes that are read ...
STRIDE = 2**20  # ... of each so many bytes
WHOLE = 64 * 2**20  # bytes: smaller files are read whole
WEIGHTS = ("*.safetensors", "*.bin")


def read_model_config(model: str, revision: str | None) -> dict[str, Any]:
    """Read the model's config.json.

    Raises:
        ModelError: the model has no config.json, or an unreadable one.
    """
    return read_json_object(_config_path(model, revision))


def _config_path(model: str, revision: str | None) -> Path:
    path = locate(model, CONFIG, revision)
    if path is None:
        raise ModelError(f"{model} has no config.json, so it is not a transformers model.")
    return path


def model_revision(model: str, revision: str | None, recorded: str | None = None) -> str:
    """Identify a model's files: the commit on the Hub, or a digest of a folder.

    The digest covers config.json, the safetensors headers (names, types, shapes) and 4 KiB of every MiB of weights, or all of
    small files, so that it takes a moment and sees any other training of the same model.

    Args:
        recorded: a revision to compare with; one from an older version is compared by that version's digest.
    """
    path = _config_path(model, revision)
    if not Path(model).expanduser().is_dir():
        return path.parent.name
    digest = hashlib.sha256(path.read_bytes())
    by_size = recorded is not None and not recorded.startswith(SAMPLED)
    for file in sorted(each for pattern in WEIGHTS[: 1 if by_size else None] for each in path.parent.glob(pattern)):
        digest.update(f"{file.name}:{file.stat().st_size}".encode())
        if not by_size:
            _update_with_samples(digest, file)
    return digest.hexdigest()[:16] if by_size else SAMPLED + digest.hexdigest()[:16]


def _update_with_samples(digest: Any, path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
            return
        if path.suffix == ".safetensors":
            length = file.read(8)
            digest.update(length)
            digest.update(file.read(min(struct.unpack("<Q", length)[0], size)))
        for start in range(file.tell(), size, STRIDE):
            file.seek(start)
            digest.update(file.read(BLOCK))
