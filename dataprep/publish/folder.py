"""Publish a data set to a folder."""

from __future__ import annotations

from pathlib import Path

from dataprep.contract import Build
from dataprep.publish.contents import Published, file_sizes, refuse_failed_gate, tag_in, tag_of, write_files
from dataprep.publish.export import check_free, new_folder
from dataprep.publish.layouts import Layout


def to_folder(build: Build, target: str, layout: Layout, *, dry_run: bool = False) -> Published:
    """Write a published data set into a new folder; does nothing if the folder has it already.

    Args:
        build: the build.
        target: the folder.
        layout: the layout of the rows.
        dry_run: write nothing, and return what would be written.

    Raises:
        StoreError: the folder has other content, or cannot be written.
        GateError: the build failed its gate.
    """
    refuse_failed_gate(build)
    place, tag = Path(target).expanduser().resolve(), tag_of(build, layout)
    if tag_in(place) == tag:
        return Published(str(place), tag, _sizes_in(place), there_already=True)
    check_free(place)
    if dry_run:
        return Published(str(place), tag, file_sizes(build, target, layout))
    with new_folder(place) as folder:
        return Published(str(place), tag, write_files(build, folder, target, layout))


def _sizes_in(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
