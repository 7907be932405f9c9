"""Publish a build: rows in one layout as Parquet, a card, and the build's manifest, fates, template and other files."""

from __future__ import annotations

from dataprep.common.hub_repository import Published
from dataprep.contract import Build
from dataprep.publish.contents import Contents, is_folder
from dataprep.publish.folder import to_folder
from dataprep.publish.hub import to_hub
from dataprep.publish.layouts import Layout


def publish(
    build: Build,
    target: str,
    layout: Layout = "text",
    *,
    with_report: bool = False,
    private: bool = False,
    dry_run: bool = False,
) -> Published:
    """Publish a build to a folder (./x, ../x, /x or ~/x) or to a data set on the Hub (org/name).

    Raises:
        PublishError, GateError, StoreError: it cannot be published; nothing was changed.
    """
    contents = Contents(build, layout, with_report)
    if is_folder(target):
        return to_folder(contents, target, dry_run=dry_run)
    return to_hub(contents, target, private=private, dry_run=dry_run)
