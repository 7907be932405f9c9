"""`training publish`: put the adapter of a finished run on the Hugging Face Hub, in one commit with a tag."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from dataprep.common.hub import check_repository
from dataprep.common.hub_repository import CARD, Publication, Published, publish_to_hub
from training.after.card import model_card, public_model_name
from training.after.finished_run import read_finished_run
from training.checksums import CHECKSUMS_FILE, encode_checksums
from training.model.files import read_json_object
from training.run_folder import RunFolder
from training.run_record import RunRecord

ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def publish(
    path: Path, to: str, *, base_model: str | None = None, private: bool = False, dry_run: bool = False
) -> Published:
    """Publish the adapter of the finished run in `path` to the model `to` (org/name) on the Hub.

    Args:
        path: folder of the run.
        to: org/name.
        base_model: the base model's id on the Hub, for a run whose base was a folder.
        private: create a private repository, and refuse a public one.
        dry_run: write nothing, and return what would be sent.

    Raises:
        RunError: the run is not finished, or its adapter is damaged.
        PublishError: the Hub refuses or cannot be reached; nothing was changed there.
    """
    folder, record = read_finished_run(path)
    check_repository(to)
    if base_model is not None:
        check_repository(base_model)
    contents = _contents(folder, record, base_model)
    publication = Publication(
        kind="model",
        tag=adapter_version(folder.adapter),
        title=f"Adapter trained on {record['provenance']['build']} {record['provenance']['version']}",
        sizes=lambda: {name: _size(content) for name, content in contents.items()},
        write=lambda target: _write(contents, target),
        marker=CHECKSUMS_FILE,
        published_by_us=_published_with,
    )
    return publish_to_hub(publication, to, private=private, dry_run=dry_run)


def adapter_version(adapter: Path) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of the adapter's weights."""
    with (adapter / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _contents(folder: RunFolder, record: RunRecord, base_model: str | None) -> dict[str, bytes | Path]:
    """Path and content of each published file.

    The card and the adapter's configuration name the base model without its folder, so their checksums are others.
    """
    files = sorted(path for path in folder.adapter.rglob("*") if path.is_file())
    contents: dict[str, bytes | Path] = {path.relative_to(folder.adapter).as_posix(): path for path in files}
    settings = read_json_object(folder.adapter / ADAPTER_CONFIG)
    settings["base_model_name_or_path"] = base_model or public_model_name(record)
    contents[ADAPTER_CONFIG] = (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode()
    contents[CARD] = model_card(record, base_model).encode()
    contents.pop(CHECKSUMS_FILE, None)
    return {**contents, CHECKSUMS_FILE: encode_checksums(contents)}


def _size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _write(contents: Mapping[str, bytes | Path], target: Path) -> dict[str, int]:
    for name, content in contents.items():
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, file)
        else:
            file.write_bytes(content)
    return {name: _size(content) for name, content in contents.items()}


def _published_with(checksums: Path) -> Callable[[str], bool] | None:
    """Tell the files that the checksums of a published adapter name from others; None: they are no checksums."""
    try:
        names = msgspec.json.decode(checksums.read_bytes(), type=dict[str, dict[str, int | str]])
    except (OSError, ValueError, RecursionError):
        return None
    return names.__contains__ if WEIGHTS in names else None
