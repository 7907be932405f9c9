"""Publish a data set to a folder."""

from __future__ import annotations

from pathlib import Path

from dataprep.common.hub_repository import Published
from dataprep.publish.contents import Contents, refuse_failed_gate, tag_in
from dataprep.publish.export import check_free, new_folder


def to_folder(contents: Contents, target: str, *, dry_run: bool = False) -> Published:
    """Write a published data set into a new folder; does nothing if the folder has it already.

    Args:
        contents: what is published.
        target: the folder.
        dry_run: write nothing, and return what would be written.

    Raises:
        StoreError: the folder has other content, or cannot be written.
        GateError: the build failed its gate.
    """
    refuse_failed_gate(contents.build)
    place, tag = Path(target).expanduser().resolve(), contents.tag
    if tag_in(place) == tag:
        return Published(str(place), tag, _sizes_in(place), there_already=True)
    check_free(place)
    if dry_run:
        return Published(str(place), tag, contents.sizes(target))
    with new_folder(place) as folder:
        return Published(str(place), tag, contents.write(folder, target))


def _sizes_in(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
