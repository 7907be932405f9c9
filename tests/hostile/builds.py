"""Builds that others changed: shards and other files with checksums that fit them, manifests, and run.jsons of runs."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from dataprep.common.checksums import entry_of
from dataprep.contract import MANIFEST
from tests.hostile.cases import Case, Sandbox
from tests.hostile.mutation import hostile_json, mutated
from tests.support.builds import GUANACO_TEXTS, guanaco_file, make_build
from tests.support.versions import edit_manifest

NAME, OTHER = "n", "other"  # the build that is changed, and a sound copy beside it


def build_command(source: str | Path, sandbox: Sandbox) -> tuple[str | Path, ...]:
    """The command that builds `source` as `NAME` in the sandbox's store, without the gate; options may follow."""
    return "build", "--source", source, "--store", sandbox.store, "--name", NAME, "--gate", "off"


def reseal(build: Path) -> None:
    """Give the manifest the sizes and checksums of the files as they are."""
    manifest = json.loads((build / MANIFEST).read_bytes())
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            shard |= entry_of(build / shard["file"])
    files = {file: entry_of(build / file) for file in manifest["files"]}
    edit_manifest(build, splits=manifest["splits"], files=files)


def sound_store(folder: Path) -> Path:
    """Make a store with a build of two splits; return it."""
    if not (folder / "store").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_build(folder / "store", source=(guanaco_file(folder, GUANACO_TEXTS),), name=NAME, split="test=0.2")
    return folder / "store"


def copy_build(sandbox: Sandbox) -> Path:
    """Copy the sound build into the sandbox's store, twice; return the first copy."""
    for name in (NAME, OTHER):
        shutil.copytree(sound_store(sandbox.root / "sound") / NAME, sandbox.store / name, symlinks=True)
    return (sandbox.store / NAME / "latest").resolve()


def _command(build: Path, sandbox: Sandbox, rng: random.Random) -> tuple[str | Path, ...]:
    """A command that reads a build."""
    rows = guanaco_file(sandbox.input, GUANACO_TEXTS)
    commands: list[tuple[str | Path, ...]] = [
        ("verify", build),
        ("show", build, "--json"),
        ("show", NAME, "--store", sandbox.store),
        ("export", build, "--to", sandbox.out / "export", "--format", rng.choice(("parquet", "jsonl"))),
        ("diff", build, sandbox.store / OTHER / "latest"),
        ("report", build, "--out", sandbox.out / "page.html"),
        ("publish", build, "--to", sandbox.out / "published"),
        ("publish", build, "--to", sandbox.out / "published", "--dry-run"),
        ("duplicates", build),
        ("why", build, "rows.jsonl:1"),
        ("list", "--store", sandbox.store),
        ("gc", "--store", sandbox.store, "--keep", "0"),
        ("audit", build),
        (*build_command(rows, sandbox), "--split", "test=0.2"),
    ]
    return rng.choice(commands)


def resealed(sandbox: Sandbox, rng: random.Random, count: int) -> Iterator[Case]:
    """Commands on builds of which one file was mutated and the manifest fits it."""
    for number in range(count):
        sandbox.prepare()
        build = copy_build(sandbox)
        files = [path for path in build.rglob("*") if path.is_file() and path.name != MANIFEST]
        shards = [path for path in files if path.suffix == ".arrow"]
        file = rng.choice(shards if rng.random() < 0.7 else files)
        content = file.read_bytes()
        file.write_bytes(hostile_json(json.loads(content), rng) if file.suffix == ".json" else mutated(content, rng))
        reseal(build)
        yield Case.of(f"{file.name} {number}", *_command(build, sandbox, rng))


def manifests(sandbox: Sandbox, rng: random.Random, count: int) -> Iterator[Case]:
    """Commands on builds with hostile manifests."""
    for number in range(count):
        sandbox.prepare()
        build = copy_build(sandbox)
        manifest = json.loads((build / MANIFEST).read_bytes())
        if rng.random() < 0.3:
            manifest["files"] = _foreign_paths(manifest["files"], sandbox, rng)
        (build / MANIFEST).write_bytes(hostile_json(manifest, rng))
        yield Case.of(f"manifest {number}", *_command(build, sandbox, rng))


def _foreign_paths(files: dict[str, object], sandbox: Sandbox, rng: random.Random) -> dict[str, object]:
    """The files of a manifest, and one that lies outside of the build."""
    outside = sandbox.root / "outside" / "file"
    link = sandbox.store / NAME / "latest" / "link"
    link.symlink_to(outside)
    path = rng.choice(
        (str(outside), "../../../outside/file", "link", "/etc/hostname", "~/file", "a/../../../../outside/file")
    )
    return {**files, path: entry_of(outside)}
