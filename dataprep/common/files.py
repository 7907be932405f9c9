"""Writing files: atomic replacement, flushing to disk, and one sentence for each way in which a disk refuses.

This module imports the standard library only, so that `training` may use it too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

# A disk with less free space counts as full where a library does not say why a write failed.
FULL_DISK_BYTES = 16 * 2**20
_SECONDS_TO_LOCK = 60  # a newer temporary folder may not be locked yet by the process that made it
# How torch.save and safetensors report a failed write; they raise no OSError.
_WRITE_FAILURES = ("inline_container", "PytorchStreamWriter", "file write failed", "Error while serializing")


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk.

    Raises:
        OSError: it cannot be opened or flushed.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replace_file(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a binary file for writing that replaces `path` in one step once the block ends without an exception.

    `path` then has the whole new content; otherwise it stays as it was. Where `path` is a link, the
    file that it points to is replaced. The new file has no name until it is complete, so that a killed process leaves
    nothing behind; on file systems without unnamed files (O_TMPFILE), it is `.NAME.partial-…` beside `path`.

    Args:
        path: the file to replace or to create.
        durable: flush to disk, so that the content survives a power failure; takes milliseconds to seconds.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    path = Path(os.path.realpath(path))  # Path.resolve raises RuntimeError for a loop of links
    temporary = path.with_name(f".{path.name[:100]}.partial-{uuid4().hex[:12]}")
    handle = _unnamed_file(path.parent)
    try:
        with open(temporary if handle is None else handle, "xb" if handle is None else "wb") as file:
            yield file
            file.flush()
            with suppress(FileNotFoundError):
                os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)  # the permissions of the file it replaces
            if durable:
                os.fsync(file.fileno())
            if handle is not None:
                # `src_dir_fd` makes CPython call linkat(2), which follows the link in /proc; link(2) would not.
                os.link(f"/proc/self/fd/{handle}", temporary, src_dir_fd=handle)
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()
    if durable:
        sync(path.parent)


def _unnamed_file(folder: Path) -> int | None:
    """Open a file without a name in `folder` (Linux's O_TMPFILE); None where the system or file system has none."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            return None  # not supported here; a folder that is missing is reported when the named file is opened
        raise


def write_file(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Replace `path` by a file of `content` (text as UTF-8) in one step; see `replace_file`."""
    with replace_file(path, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Yield a new folder in the temporary directory, and remove it afterwards.

    A process holds a lock on its folder, so that the next call can tell what killed processes left, and removes it.

    Raises:
        OSError: the temporary directory cannot be written, or the disk is full.
    """
    for leftover in Path(tempfile.gettempdir()).glob(f"{prefix}-*"):
        with suppress(OSError):
            status = leftover.lstat()
            is_old = time.time() - status.st_mtime > _SECONDS_TO_LOCK
            if is_old and stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
                with _locked(leftover):
                    shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-"))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder; the system releases it when the process ends.

    Raises:
        OSError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextmanager
def disk_errors(error: type[Exception], subject: str, advice: str, folder: Path | None = None) -> Iterator[None]:
    """Turn a failed write inside the block into `error`: "SUBJECT could not be written (REASON): ADVICE."

    Args:
        error: the class to raise; exceptions of its own base class pass unchanged.
        subject: what is being written, as the start of a sentence.
        advice: what would work, as the end of a sentence.
        folder: on the disk that is written to, perhaps still to be made; for libraries that hide why a write failed.
    """
    try:
        yield
    except Exception as fault:
        reason = None if isinstance(fault, _sentences(error)) else write_failure(fault, folder)
        if reason is None:
            raise
        raise error(f"{subject} could not be written ({reason}): {advice}.") from None


def _sentences(error: type[Exception]) -> type[Exception]:
    """Return the most general ancestor of `error` below Exception."""
    return error.__mro__[error.__mro__.index(Exception) - 1]


def write_failure(fault: BaseException, folder: Path | None = None) -> str | None:
    """Return why a write failed, such as `the disk is full`; None where `fault` is no failed write.

    Libraries wrap a full disk in exceptions of their own, so the whole chain of causes is searched.
    """
    chain: list[BaseException] = []
    link: BaseException | None = fault
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    texts = [str(link) for link in chain]
    numbers = [int(number) for text in texts for number in re.findall(r"os error (\d+)", text)]  # Rust libraries
    if not isinstance(fault, OSError) and not numbers and not any(m in text for m in _WRITE_FAILURES for text in texts):
        return None
    numbers += [link.errno for link in chain if isinstance(link, OSError) and link.errno is not None]
    if not numbers and (folder is None or _free_bytes(folder) < FULL_DISK_BYTES):
        numbers = [errno.ENOSPC]
    if {errno.ENOSPC, errno.EDQUOT} & {*numbers}:
        return "the disk is full"
    return os.strerror(numbers[0]) if numbers else texts[0].partition("\n")[0]


def _free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that holds `folder`, or will hold it."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free
