"""Write manifest.json, the last file of a build."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dataprep.common.checksums import entry_of
from dataprep.common.errors import BuildError
from dataprep.common.files import sync
from dataprep.common.lookup import latest_version
from dataprep.common.text import json_text
from dataprep.contract import MANIFEST, read_manifest


def write_manifest(folder: Path, parts: Mapping[str, Any]) -> None:
    """Write the manifest of the build in `folder`: its `parts`, `splits` among them, and an entry for each other file."""
    shards = {shard["file"] for split in parts["splits"].values() for shard in split["shards"]}
    others = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {}
    for file in others:
        if file not in shards:
            sync(folder / file)
            files[file] = entry_of(folder / file)
    write_json(folder / MANIFEST, {**parts, "files": files})
    sync(folder / MANIFEST)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file as people read it: indented, readable Unicode, one newline at the end."""
    path.write_text(json_text(value, indent=2) + "\n", encoding="utf-8")


def parent_of(store: Path, name: str, version: str) -> str | None:
    """Return the version before `version`: the latest, or for a version that is rebuilt, its manifest's parent."""
    folder = store / name / version
    if not folder.is_dir():
        return latest_version(store, name)
    with suppress(BuildError):
        return read_manifest(folder).data.get("parent")
    return None
