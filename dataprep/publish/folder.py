"""The files of a published data set: rows, card and papers, the same for the Hub and for any other place."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dataprep.common.errors import GateError, StoreError
from dataprep.contract import MANIFEST, Build
from dataprep.publish.export import DATA, SCHEMAS, Layout, dataset_info, filled, write_data
from dataprep.report import card

CARD = "README.md"
_OF_SHARDS = ("dataset_dict.json", "croissant.json")  # tell of the Arrow shards, which are not published
_DATASETS_OWN = ("dataset_info.json", "state.json")  # beside the shards, a pair a split


@dataclass(frozen=True)
class Published:
    """What came of publishing; `files` has the bytes of each file that is (or, in a dry run, would be) there."""

    place: str
    tag: str
    files: Mapping[str, int] = field(default_factory=dict)
    there_already: bool = False
    commit: str | None = None
    removed: tuple[str, ...] = ()  # files of the version before that this one has no more
    unasked: str = ""  # in a dry run: why the Hub could not be asked what it has


def is_folder(target: str) -> bool:
    """Whether `target` is written as a folder (./x, ../x, /x, ~/x, . or ..), not as a Hub name (org/name)."""
    return target in (".", "..") or target.startswith(("./", "../", "/", "~"))


def tag_of(build: Build, layout: Layout) -> str:
    """The tag of a published build: its version, with the layout where that is not `text`."""
    return build.manifest.version + ("" if layout == "text" else f"-{layout}")


def refuse_failed_gate(build: Build) -> None:
    if build.manifest.gate == "failed":
        raise GateError(
            f"The quality gate of {build.manifest.name}@{build.manifest.version} failed, and what failed is not published: "
            f"see {build.path / 'quality.json'}, mend the recipe and build again."
        )


def write_files(build: Build, folder: Path, place: str, layout: Layout) -> None:
    """Write all that is published into the empty `folder`; `place` is what people call the data set."""
    files = write_data(build, folder, layout)
    own = {CARD, *_OF_SHARDS} | {f"{split}/{name}" for split in build.splits for name in _DATASETS_OWN}
    for name in [MANIFEST, *(name for name in build.manifest.files if name not in own)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(build.path / name, folder / name)
    (folder / CARD).write_text(_card(build, place, layout, files), encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    try:
        reading = source.open("rb")
    except OSError as fault:
        raise StoreError(
            f"{source} cannot be read any more ({fault.strerror}): nothing was published; "
            "see with dataprep list whether that version was removed meanwhile."
        ) from None
    with reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing)


def _card(build: Build, place: str, layout: Layout, files: Mapping[str, int]) -> str:
    shards = [{"split": split, "path": f"{DATA}/{split}-*.parquet"} for split in filled(build)]
    head = {
        "configs": [{"config_name": "default", "data_files": shards}],
        "dataset_info": dataset_info(build, layout, files),
        "dataprep": {"version": build.manifest.version, "layout": layout, "tag": tag_of(build, layout)},
    }
    columns = f"`{', '.join(SCHEMAS[layout].names)}`: the `{layout}` layout of `dataprep export`, sorted by id."
    at = "" if is_folder(place) else f', revision="{tag_of(build, layout)}"'
    load = f'from datasets import load_dataset\ndata = load_dataset("{place}"{at})'
    return card.card(build.manifest.facts, head=head, columns=columns, load=load)


def tag_in(folder: Path) -> str | None:
    """The tag of what was published into a folder; None where nothing was."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    found = re.search(r'^dataprep: .*"tag": "([^"]+)"', text, re.MULTILINE)
    return found[1] if found else None


@contextmanager
def staged(build: Build, place: str, layout: Layout) -> Iterator[Path]:
    """A temporary folder with all that is published."""
    try:
        with tempfile.TemporaryDirectory(prefix="dataprep-") as folder:
            write_files(build, Path(folder), place, layout)
            yield Path(folder)
    except OSError as fault:
        if _is_the_clients(fault):
            raise
        where = tempfile.gettempdir()
        raise StoreError(
            f"The files could not be written below {where} ({fault.strerror or fault}): nothing was sent; "
            "free some room there or set TMPDIR."
        ) from None


def _is_the_clients(fault: OSError) -> bool:
    return "huggingface_hub.errors" in sys.modules and isinstance(
        fault, sys.modules["huggingface_hub.errors"].HTTPError
    )


def sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
