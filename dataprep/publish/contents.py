"""The files of a published data set: rows, card, and the build's documents; the same for the Hub and for a folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dataprep.common.errors import GateError, StoreError
from dataprep.common.text import json_text
from dataprep.contract import MANIFEST, Build
from dataprep.publish.data_files import DATA, data_files
from dataprep.publish.layouts import Layout, dataset_info, filled_splits, layout_schema, schema_of
from dataprep.report import card

CARD = "README.md"
_ABOUT_SHARDS = ("dataset_dict.json", "croissant.json")  # describe the Arrow shards, which are not published
_SPLIT_DOCUMENTS = ("dataset_info.json", "state.json")  # beside the shards of each split


@dataclass(frozen=True)
class Published:
    """The result of publishing; `files` has the bytes of each file that is (in a dry run: would be) there."""

    place: str
    tag: str
    files: Mapping[str, int] = field(default_factory=dict)
    there_already: bool = False
    commit: str | None = None
    removed: tuple[str, ...] = ()  # files of the version before that this one does not have
    unasked: str = ""  # in a dry run: why the Hub could not be asked what it has


def is_folder(target: str) -> bool:
    """Return whether `target` is written as a folder (./x, ../x, /x, ~/x, . or ..), not as a Hub name (org/name)."""
    return target in (".", "..") or target.startswith(("./", "../", "/", "~"))


def tag_of(build: Build, layout: Layout) -> str:
    """Return the tag of a published build: its version, with the layout unless that is `text`."""
    return build.manifest.version + ("" if layout == "text" else f"-{layout}")


def refuse_failed_gate(build: Build) -> None:
    """Refuse a build that failed its quality gate.

    Raises:
        GateError: it did.
    """
    if build.manifest.gate == "failed":
        raise GateError(
            f"The quality gate of {build.manifest.name}@{build.manifest.version} failed, and such a build is not "
            f"published: see {build.path / 'quality.json'}, correct the recipe and build again."
        )


def published_files(build: Build, place: str, layout: Layout) -> Iterator[tuple[str, bytes | memoryview | Path]]:
    """Yield the path of each published file, and its content or the file of the build that it is a copy of.

    Args:
        build: the build.
        place: the name of the data set, or its folder.
        layout: the layout of the rows.
    """
    sizes = {}
    for name, content in data_files(build, layout):
        sizes[name] = len(content)
        yield name, content
    replaced = {CARD, *_ABOUT_SHARDS} | {f"{split}/{name}" for split in build.splits for name in _SPLIT_DOCUMENTS}
    for name in [MANIFEST, *(name for name in build.manifest.files if name not in replaced)]:
        yield name, build.path / name
    yield CARD, _card(build, place, layout, sizes).encode()


def file_sizes(build: Build, place: str, layout: Layout) -> dict[str, int]:
    """Return the bytes of each file that would be published, without writing anything."""
    sizes = {}
    for name, content in published_files(build, place, layout):
        if isinstance(content, Path):
            with _reading(content) as file:
                sizes[name] = file.seek(0, 2)
        else:
            sizes[name] = len(content)
    return dict(sorted(sizes.items()))


def write_files(build: Build, folder: Path, place: str, layout: Layout) -> dict[str, int]:
    """Write all published files into the empty `folder`, and return the bytes of each."""
    sizes = {}
    for name, content in published_files(build, place, layout):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("xb") as target:
            if isinstance(content, Path):
                with _reading(content) as source:
                    shutil.copyfileobj(source, target)
            else:
                target.write(content)
            sizes[name] = target.tell()
    return dict(sorted(sizes.items()))


def _reading(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as fault:
        raise StoreError(
            f"{path} cannot be read any more ({fault.strerror}), so nothing was published: "
            "dataprep list shows whether that version was removed meanwhile."
        ) from None


def _card(build: Build, place: str, layout: Layout, sizes: Mapping[str, int]) -> str:
    data = [{"split": split, "path": f"{DATA}/{split}-*.parquet"} for split in filled_splits(build)]
    head = {
        "configs": [{"config_name": "default", "data_files": data}],
        "dataset_info": dataset_info(build, layout, sizes),
        "dataprep": {"version": build.manifest.version, "layout": layout, "tag": tag_of(build, layout)},
    }
    names = ", ".join(layout_schema(schema_of(build), layout).names)
    columns = f"`{names}`: the `{layout}` layout of `dataprep export`, sorted by id."
    revision = "" if is_folder(place) else f', revision="{tag_of(build, layout)}"'
    load = f"from datasets import load_dataset\ndata = load_dataset({json_text(place)}{revision})"
    return card.card(build.manifest.complete(), head=head, columns=columns, load=load)


def tag_in(folder: Path) -> str | None:
    """Return the tag of the data set that was published into a folder; None where there is none."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    match = re.search(r'^dataprep: .*"tag": "([^"]+)"', text, re.MULTILINE)
    return match[1] if match else None
