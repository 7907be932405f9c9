"""Seeded mutations of files, and builds whose checksums fit mutated files."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

from dataprep.common.checksums import entry_of
from dataprep.contract import MANIFEST
from tests.support.versions import edit_manifest

INT32 = (2**31 - 1, -(2**31), -1, -5, 0, 10**9, 2**30)
INT64 = (2**63 - 1, -(2**63), -1, -8, 0, 10**9, 2**40)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """`content` with a few bits, bytes or numbers changed, and sometimes cut."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        position = rng.randrange(len(data) - 8)
        kind = rng.randrange(4)
        if kind == 0:
            data[position] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[position] = rng.randrange(256)
        elif kind == 2:
            struct.pack_into("<i", data, position & ~3, rng.choice(INT32))
        else:
            struct.pack_into("<q", data, position & ~7, rng.choice(INT64))
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.1 else data)


def reseal(build: Path) -> None:
    """Give the manifest the sizes and checksums of the files as they are."""
    manifest = json.loads((build / MANIFEST).read_bytes())
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            shard |= entry_of(build / shard["file"])
    files = {file: entry_of(build / file) for file in manifest["files"]}
    edit_manifest(build, splits=manifest["splits"], files=files)
