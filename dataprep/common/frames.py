"""Frames in files: written as Arrow IPC and mapped back, so that their texts stay in the file's pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa

Stored = pl.DataFrame | Path  # a frame in memory, or the file that holds one


def write_frame(path: Path, frame: pl.DataFrame) -> Path:
    """Write a frame to a new file that `map_frame` reads; a file of that name, left by a killed task, is replaced.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        frame.write_ipc(file, compression="uncompressed")
    return path


def map_frame(stored: Stored) -> pl.DataFrame:
    """Return the frame in a file without reading its texts: they are views of the mapped file.

    The file may be removed while the frame is in use. A frame in memory is returned as it is.
    """
    if isinstance(stored, pl.DataFrame):
        return stored
    with pa.memory_map(str(stored)) as source:
        frame = pl.from_arrow(pa.ipc.open_file(source).read_all(), rechunk=False)
    assert isinstance(frame, pl.DataFrame)
    return frame


def concat_views(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Concatenate frames of one schema into one chunk, copying views (16 bytes a text) and no text.

    A gather from a list column of several chunks would copy all texts; from one chunk, it copies views.
    """
    return pl.concat(frames, rechunk=False).rechunk() if len(frames) > 1 else frames[0].rechunk()
