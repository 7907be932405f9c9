"""Read the bytes of a file in blocks, decompressing gzip, and stop cleanly where the data breaks off."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

from dataprep.common.errors import EmptyFile, InputError

BLOCK = 4 << 20  # bytes: small enough to stay in cache between passes, large enough to hide the cost of Python

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's window size for a gzip member whose checksum is verified


class ByteStream:
    """Reads a file in blocks of about `BLOCK` bytes.

    `done` counts the bytes read from the file itself. `fault` is empty, or says why the stream ended early: a truncated
    or damaged gzip file yields all bytes before the damage, so that the complete records in it are still read.

    Raises:
        EmptyFile: the file has no bytes.
        InputError: the file is missing or unreadable, or is named `.gz` but is not a gzip file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.done, self.fault = path, 0, ""
        try:
            self._file: BinaryIO = path.open("rb")
            magic = self._file.read(2)
            self._file.seek(0)
        except OSError as fault:
            raise InputError(f"{path} cannot be read: {fault.strerror}.") from None
        if not magic:
            raise EmptyFile(f"{path} is empty: it holds no records.")
        is_gzip = path.suffix == ".gz"
        if is_gzip and magic != _GZIP_MAGIC:
            raise InputError(f"{path} is named .gz but is not a gzip file: compress it again, or remove the .gz.")
        self._member = zlib.decompressobj(_GZIP_WINDOW) if is_gzip else None

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(self, *fault: object) -> None:
        self._file.close()

    def read(self) -> bytes:
        """Return the next block of about `BLOCK` bytes; empty at the end of the data."""
        if self._member is None:
            return self._read_file(BLOCK)
        parts, size = [], 0
        while size < BLOCK and not self.fault:
            data = self._read_file(BLOCK // 32)  # small, because a highly compressed file expands a thousandfold
            if not data:
                if not self._member.eof:
                    self.fault = f"the gzip stream ends early, after {self.done:,} bytes"
                break
            parts.append(self._decompress(data))
            size += len(parts[-1])
        return b"".join(parts)

    def read_rest(self) -> bytes:
        """Return all remaining bytes."""
        return b"".join(iter(self.read, b""))

    def _read_file(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as fault:
            raise InputError(f"{self.path} cannot be read: {fault.strerror}.") from None
        self.done += len(data)
        return data

    def _decompress(self, data: bytes) -> bytes:
        """Decompress `data`, which may span several concatenated gzip members."""
        parts = []
        try:
            while data:
                assert self._member is not None
                if self._member.eof:
                    data = data.lstrip(b"\0")  # padding that some tools write after the last member
                    if not data:
                        break
                    self._member = zlib.decompressobj(_GZIP_WINDOW)
                parts.append(self._member.decompress(data))
                data = self._member.unused_data
        except zlib.error as fault:
            self.fault = f"the gzip stream is damaged ({fault}) within {self.done:,} bytes"
        return b"".join(parts)
