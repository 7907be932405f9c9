"""Export the rows of a build as Parquet or JSON lines, in the layout that another program reads."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dataprep.common.errors import StoreError
from dataprep.common.files import disk_errors
from dataprep.contract import Build
from dataprep.publish.data_files import DATA, ExportLayout, Format, data_files
from dataprep.publish.trainers import Trainer, configuration, layout_for


def export(
    build: Build,
    target: Path,
    layout: ExportLayout = "text",
    form: Format = "parquet",
    *,
    tokenizer: str | None = None,
    trainer: Trainer | None = None,
) -> dict[str, int]:
    """Write the rows of `build` into the new folder `target`: `data/<split>-00000-of-00001.<form>` and so on.

    Args:
        build: the build.
        target: a new or empty folder.
        layout: the layout of the rows.
        form: the format of the files.
        tokenizer: folder or Hub name of a model, for the layout `tokens`.
        trainer: the trainer whose configuration is written beside the data; it chooses layout and format.

    Returns: bytes of each file, by its path in the folder.

    Raises:
        StoreError: the folder is not empty, or cannot be written; or the build cannot be expressed. Nothing is left then.
    """
    if trainer is not None:
        layout, form = layout_for(trainer, build, tokenizer)
    with new_folder(target) as folder:
        (folder / DATA).mkdir()
        contents = data_files(build, layout, form, tokenizer=tokenizer)
        sizes = {name: (folder / name).write_bytes(content) for name, content in contents}
        if trainer is not None:
            for name, text in configuration(trainer, build, layout, list(sizes)).items():
                sizes[name] = (folder / name).write_bytes(text.encode())
        return sizes


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`, and rename it to `target` if the block ends without an exception.

    Otherwise nothing is left. What a killed process left for the same target is removed first.

    Raises:
        StoreError: `target` exists, another process is writing it, or it cannot be written.
    """
    target = check_free(target)
    folder = target.parent / f".{target.name[:100]}-unfinished"
    with disk_errors(StoreError, str(target), "free some space or choose another --to", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(folder, target):
            try:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                yield folder
                folder.rename(target)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def check_free(target: Path) -> Path:
    """Return the full path of `target` if it can become a new folder.

    Raises:
        StoreError: it exists already, and is no empty folder.
    """
    target = target.expanduser().resolve()
    with disk_errors(StoreError, str(target), "choose another --to"):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise StoreError(f"{target} exists and is no empty folder: choose another --to, or remove it.")
    return target


@contextmanager
def _exclusive(folder: Path, target: Path) -> Iterator[None]:
    lock = FileLock(f"{folder}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(f"Another process is writing {target}: wait for it, or choose another --to.") from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
