"""List the versions of a store, and remove old ones."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dataprep.common.errors import BuildError, StoreError
from dataprep.common.jsonfile import InvalidJson, read_json
from dataprep.common.lookup import latest_version, names, versions
from dataprep.contract import read_manifest
from dataprep.engine.cache import CACHE_FOLDER, DEFAULT_CACHE_BYTES, Cache
from dataprep.store.commit import remove_versions

RUN = "run.json"  # in a training run's folder; it names the version that the run was trained on
RUNS = "runs"  # the default folder of runs: beside the store, or in the working directory
_PROVENANCE_KEYS = ("provenance", "bond")  # `bond` in runs of dataprep 0.1


def listing(store: Path) -> list[dict[str, Any]]:
    """Describe every version in a store, by name and then by age.

    Returns: for each `name, version, latest, created, parent, rows, splits, bytes, template, gate, path`; for a version
        whose manifest cannot be read only `name, version, latest, path` and `problem`; for a name whose folder cannot
        be read only `name, path` and `problem`.
    """
    described = []
    for name in names(store):
        try:
            described += sorted(_describe_name(store, name), key=lambda d: (d.get("created", ""), d["version"]))
        except StoreError as fault:
            described.append({"name": name, "path": str(store / name), "problem": str(fault)})
    return described


def _describe_name(store: Path, name: str) -> list[dict[str, Any]]:
    latest = latest_version(store, name)
    return [
        {"name": name, "version": version, "latest": version == latest, **_describe(store / name / version)}
        for version in versions(store, name)
    ]


def _describe(folder: Path) -> dict[str, Any]:
    try:
        manifest = read_manifest(folder)
    except BuildError as fault:
        return {"path": str(folder), "problem": str(fault)}
    return {
        "created": manifest.data.get("created", ""),
        "parent": manifest.data.get("parent"),
        "rows": sum(split["rows"] for split in manifest.splits.values()),
        "splits": {name: split["rows"] for name, split in manifest.splits.items()},
        "bytes": sum(entry["bytes"] for _, entry in manifest.entries()),
        "template": manifest.template.get("name"),
        "gate": manifest.gate,
        "path": str(folder),
    }


def gc(
    store: Path, keep: int = 3, *, dry_run: bool = False, cache_bytes: int = DEFAULT_CACHE_BYTES
) -> list[tuple[Path, int]]:
    """Remove old versions, the leftovers of killed builds and old entries of the cache; return each path with its bytes.

    Of the cache, the entries that were used last stay, up to `cache_bytes`.

    For each name these versions stay: the `keep` newest, the one that `latest` points to, those that a training run was
    trained on, and those whose manifest cannot be read.

    Raises:
        StoreError: `keep` is negative, there is no such store, or a run.json does not name its build.
    """
    if keep < 0:
        raise StoreError(f"--keep is {keep}, and must not be negative.")
    if not store.is_dir():
        raise StoreError(f"There is no store {store}.")
    trained = trained_on(store)

    def old_versions(name: str) -> Iterable[str]:
        readable = [entry for entry in _describe_name(store, name) if "problem" not in entry]
        newest_first = sorted(readable, key=lambda e: (e["created"], e["latest"], e["version"]), reverse=True)
        return [e["version"] for e in newest_first[keep:] if not e["latest"] and e["version"] not in trained]

    removed = []
    for name in names(store):
        removed += remove_versions(store, name, lambda name=name: old_versions(name), dry_run=dry_run)  # type: ignore[misc]
    return removed + Cache(store / CACHE_FOLDER).trim(cache_bytes, dry_run)


def trained_on(store: Path) -> set[str]:
    """Return the versions that training runs in or beside the store, or below ./runs, were trained on.

    Raises:
        StoreError: a run.json does not name its build.
    """
    roots = {root.resolve() for root in (store, store.parent / RUNS, Path(RUNS)) if root.is_dir()}
    walks = (os.walk(root, onerror=_refuse_unreadable) for root in roots)
    records = {Path(folder) / RUN for walk in walks for folder, _, files in walk if RUN in files}
    return {_version_of_run(path) for path in sorted(records)}


def _refuse_unreadable(fault: OSError) -> None:
    """Refuse a folder that may hide a run; one that vanished meanwhile does not."""
    if not isinstance(fault, FileNotFoundError):
        raise StoreError(
            f"{fault.filename} cannot be read ({fault.strerror}), and a run in it may need a build, so nothing is removed."
        )


def _version_of_run(path: Path) -> str:
    try:
        record = read_json(path, dict[str, Any])
        version = next(record[key] for key in _PROVENANCE_KEYS if key in record)["version"]
        if isinstance(version, str):
            return version
    except (OSError, InvalidJson, LookupError, TypeError, StopIteration):
        pass
    raise StoreError(
        f"{path} does not name the build that its run was trained on, so nothing is removed: repair it or move it away."
    )
