"""Publish a build as a data set on the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dataprep.common.errors import BuildError
from dataprep.common.hub import check_repository
from dataprep.common.hub_repository import Publication, Published, publish_to_hub
from dataprep.contract import MANIFEST, read_manifest_data
from dataprep.publish.contents import Contents, refuse_failed_gate
from dataprep.publish.data_files import DATA

_DATA_FILE = re.compile(rf"{DATA}/[^/]+-\d{{5}}-of-\d{{5}}\.parquet")  # as `data_files` names them


def to_hub(contents: Contents, name: str, *, private: bool = False, dry_run: bool = False) -> Published:
    """Publish to the data set `name` on the Hub: one commit, then a tag; see `publish_to_hub`.

    Raises:
        PublishError: the Hub refuses or cannot be reached; the data set is as it was, or lacks only the tag.
        GateError: the build failed its gate.
    """
    refuse_failed_gate(contents.build)
    check_repository(name, ", or ./name for a folder")
    publication = Publication(
        kind="dataset",
        tag=contents.tag,
        title=f"{contents.build.manifest.name} {contents.tag}",
        sizes=lambda: contents.sizes(name),
        write=lambda folder: contents.write(folder, name),
        marker=MANIFEST,
        published_by_us=_published_with,
        folders=(f"{DATA}/", "fates/"),
    )
    return publish_to_hub(publication, name, private=private, dry_run=dry_run)


def _published_with(manifest: Path) -> Callable[[str], bool] | None:
    """Tell data files, and the files that a published manifest names, from others; None: it is no build's manifest."""
    try:
        files = read_manifest_data(manifest)["files"]
    except BuildError:
        return None
    return lambda name: name in files or _DATA_FILE.fullmatch(name) is not None
