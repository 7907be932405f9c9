"""Mutated and re-sealed builds: each is opened as what it is, or refused in one sentence; nothing crashes."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from dataprep.common.errors import BuildError
from dataprep.contract import MANIFEST, open_build, read_manifest
from tests.hostile.builds import reseal
from tests.hostile.mutation import mutated, mutated_json
from tests.support.paths import ROOT
from tests.support.versions import write_version

SEED = 13
MUTATED_SHARDS = 60
MUTATED_MANIFESTS = 400

# Opens builds and reads all of their values; prints one line for each.
READ_ALL = """
import sys
import polars as pl
from dataprep.common.errors import UserError
from dataprep.contract import open_build
for path in sys.argv[1:]:
    try:
        for table in open_build(path).splits.values():
            table.to_pylist()
            pl.DataFrame(table).hash_rows()
        print("read", flush=True)
    except UserError as fault:
        print("refused", fault.exit_code, flush=True)
"""


def read_all(builds: list[Path]) -> list[str]:
    """What became of each build, in a process of its own: `read` or `refused CODE`."""
    command = [sys.executable, "-c", READ_ALL, *map(str, builds)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, (done.stdout.count("\n"), done.stderr)
    return done.stdout.splitlines()


def test_mutated_shards_with_right_checksums_are_read_or_refused(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    builds = []
    for number in range(MUTATED_SHARDS):
        texts = tuple(f"text {n} of Größe" for n in range(20))
        build = write_version(tmp_path / "store", f"v{number}", texts)
        shard = build / "train/data-00000-of-00001.arrow"
        shard.write_bytes(mutated(shard.read_bytes(), rng))
        reseal(build)
        builds.append(build)
    outcomes = read_all(builds)
    assert len(outcomes) == len(builds)
    assert set(outcomes) == {"read", "refused 4"}


@pytest.mark.parametrize("offset", [2**31 - 1, 10**9, -5, 10**6])
def test_offsets_beyond_a_text_are_refused(tmp_path: Path, offset: int) -> None:
    texts = ("distinctive", "row")
    build = write_version(tmp_path / "store", texts=texts)
    shard = build / "train/data-00000-of-00001.arrow"
    content = shard.read_bytes()
    offsets = struct.pack("<iii", 0, len(texts[0]), len("".join(texts)))
    assert offsets in content
    shard.write_bytes(content.replace(offsets, offsets[:-4] + struct.pack("<i", offset)))
    reseal(build)
    assert read_all([build]) == ["refused 4"]


def test_mutated_manifests_are_read_or_refused(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    build = write_version(tmp_path / "store")
    original = json.loads((build / MANIFEST).read_bytes())
    refused = 0
    for _ in range(MUTATED_MANIFESTS):
        (build / MANIFEST).write_text(json.dumps(mutated_json(original, rng)))
        try:
            read_manifest(build)
            open_build(build)
        except BuildError as fault:
            refused += 1
            assert "\n" not in str(fault)
            assert len(str(fault)) < 1000
    assert refused > MUTATED_MANIFESTS / 2
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["store"]
