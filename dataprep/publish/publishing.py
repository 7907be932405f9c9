"""A build for everybody: to a data set on the Hugging Face Hub, or to a folder for any other place.

What is published is the rows in one layout (Parquet), a card, and the papers of the build: manifest, fates, template
and whatever else its manifest names. On the Hub all of it is one commit on top of the one that was looked at, then a
tag with the version; so the data set is either as it was or whole. `huggingface_hub` finds the token and the Hub by its
own rules (HF_TOKEN, `hf auth login`, HF_ENDPOINT) and is imported only when a Hub is written to.
"""

from __future__ import annotations

from pathlib import Path

from dataprep.contract import Build
from dataprep.publish.export import Layout, check_free, new_folder
from dataprep.publish.folder import Published, is_folder, refuse_failed_gate, sizes, staged, tag_in, tag_of, write_files
from dataprep.publish.hub import hub_preview, to_hub

__all__ = ["Published", "is_folder", "preview", "tag_of", "to_folder", "to_hub"]


def preview(build: Build, target: str, layout: Layout, *, private: bool = False) -> Published:
    """What would be published: everything is written to a temporary folder, nothing is sent.

    Raises:
        PublishError, GateError, StoreError: it would not be published.
    """
    if not is_folder(target):
        return hub_preview(build, target, layout, private=private)
    refuse_failed_gate(build)
    place = Path(target).expanduser().resolve()
    if there := _there(place, tag_of(build, layout)):
        return there
    check_free(place)
    with staged(build, target, layout) as folder:
        return Published(str(place), tag_of(build, layout), sizes(folder))


def _there(place: Path, tag: str) -> Published | None:
    return Published(str(place), tag, sizes(place), there_already=True) if tag_in(place) == tag else None


def to_folder(build: Build, target: str, layout: Layout) -> Published:
    """Write the files of a published data set into a new folder; does nothing where they are already.

    Raises:
        StoreError: the folder holds something else, or cannot be written.
        GateError: the build's gate failed.
    """
    refuse_failed_gate(build)
    place = Path(target).expanduser().resolve()
    if there := _there(place, tag_of(build, layout)):
        return there
    with new_folder(place) as folder:
        write_files(build, folder, target, layout)
        return Published(str(place), tag_of(build, layout), sizes(folder))
