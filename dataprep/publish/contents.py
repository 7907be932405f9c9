"""The files of a published data set: rows, card, and the build's documents; the same for the Hub and for a folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dataprep.common.errors import GateError, PublishError, StoreError
from dataprep.common.hub_repository import CARD
from dataprep.common.text import json_text
from dataprep.contract import MANIFEST, Build, ManifestData
from dataprep.publish.data_files import DATA, data_files
from dataprep.publish.layouts import Layout, dataset_info, filled_splits, layout_schema, schema_of
from dataprep.report import card
from dataprep.report.public_recipe import absolute_folders, without_folders

REPORT = "report.html"
_ABOUT_SHARDS = ("dataset_dict.json", "croissant.json")  # describe the Arrow shards, which are not published
_SPLIT_DOCUMENTS = ("dataset_info.json", "state.json")  # beside the shards of each split


def is_folder(target: str) -> bool:
    """Return whether `target` is written as a folder (./x, ../x, /x, ~/x, . or ..), not as a Hub name (org/name)."""
    return target in (".", "..") or target.startswith(("./", "../", "/", "~"))


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


@dataclass(frozen=True)
class Contents:
    """What is published of a build: its rows in one layout, and its documents; the report only if it is asked for.

    Nothing names a folder of this machine. The card and the report never do; the published manifest is the build's with
    the names of files in place of their paths.
    """

    build: Build
    layout: Layout = "text"
    with_report: bool = False

    @property
    def tag(self) -> str:
        """The tag of the publication: the build's version, with the layout unless that is `text`."""
        return self.build.manifest.version + ("" if self.layout == "text" else f"-{self.layout}")

    def files(self, place: str) -> Iterator[tuple[str, bytes | memoryview | Path]]:
        """Yield the path of each file, and its content or the file of the build that it is a copy of.

        Args:
            place: the name of the data set, or its folder.
        """
        sizes = {}
        for name, content in data_files(self.build, self.layout):
            sizes[name] = len(content)
            yield name, content
        left_out = {CARD, *_ABOUT_SHARDS} | {
            f"{split}/{name}" for split in self.build.splits for name in _SPLIT_DOCUMENTS
        }
        if not self.with_report:
            left_out.add(REPORT)
        manifest = public_manifest(self.build.manifest.data)
        yield MANIFEST, (json_text(manifest, indent=2) + "\n").encode()
        for name in self.build.manifest.files:
            if name not in left_out:
                yield name, self._document(name)
        yield CARD, _card(self, place, sizes).encode()

    def _document(self, name: str) -> Path:
        """Return a document of the build.

        Raises:
            PublishError: it names a folder of this machine, as reports of earlier releases do.
        """
        path = self.build.path / name
        if path.suffix in (".html", ".json"):
            text = path.read_text(encoding="utf-8", errors="replace")
            for folder in absolute_folders(self.build.manifest.recipe):
                if folder in text:
                    raise PublishError(f"{path} names {folder}, a folder of this machine: build again with --force.")
        return path

    def sizes(self, place: str) -> dict[str, int]:
        """Return the bytes of each file, without writing anything."""
        sizes = {}
        for name, content in self.files(place):
            if isinstance(content, Path):
                with _reading(content) as file:
                    sizes[name] = file.seek(0, 2)
            else:
                sizes[name] = len(content)
        return dict(sorted(sizes.items()))

    def write(self, folder: Path, place: str) -> dict[str, int]:
        """Write all files into the empty `folder`, and return the bytes of each."""
        sizes = {}
        for name, content in self.files(place):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("xb") as target:
                if isinstance(content, Path):
                    with _reading(content) as source:
                        shutil.copyfileobj(source, target)
                else:
                    target.write(content)
                sizes[name] = target.tell()
        return dict(sorted(sizes.items()))


def public_manifest(data: ManifestData) -> dict[str, Any]:
    """Return a manifest with the names of files in place of their paths."""
    return {**data, "recipe": without_folders(data["recipe"])}


def _reading(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as fault:
        raise StoreError(
            f"{path} cannot be read any more ({fault.strerror}), so nothing was published: "
            "dataprep list shows whether that version was removed meanwhile."
        ) from None


def _card(contents: Contents, place: str, sizes: Mapping[str, int]) -> str:
    build, layout = contents.build, contents.layout
    data = [{"split": split, "path": f"{DATA}/{split}-*.parquet"} for split in filled_splits(build)]
    head = {
        "configs": [{"config_name": "default", "data_files": data}],
        "dataset_info": dataset_info(build, layout, sizes),
        "dataprep": {"version": build.manifest.version, "layout": layout, "tag": contents.tag},
    }
    names = ", ".join(layout_schema(schema_of(build), layout).names)
    columns = f"`{names}`: the `{layout}` layout of `dataprep export`, sorted by id."
    name = f"./{Path(place).expanduser().resolve().name}" if is_folder(place) else place
    revision = "" if is_folder(place) else f', revision="{contents.tag}"'
    load = f"from datasets import load_dataset\ndata = load_dataset({json_text(name)}{revision})"
    return card.card(build.manifest.complete(), head=head, columns=columns, load=load, with_report=contents.with_report)


def tag_in(folder: Path) -> str | None:
    """Return the tag of the data set that was published into a folder; None where there is none."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    match = re.search(r'^dataprep: .*"tag": "([^"]+)"', text, re.MULTILINE)
    return match[1] if match else None
