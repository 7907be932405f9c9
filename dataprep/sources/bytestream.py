"""The bytes of a file, unzipped where it is gzip, up to the place where it breaks off."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

from dataprep.common.errors import EmptyFile, InputError

BLOCK = 4 << 20  # bytes: small enough to stay in cache between the passes over it, large enough to hide Python

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP = 31  # zlib's window for a gzip member, its checksum verified


class ByteStream:
    """Reads a file in blocks. `done` counts the bytes of the file itself; `fault` says why it broke off, or is empty.

    A gzip file that was cut or damaged gives all bytes before the break, so that whole records are not lost with it.

    Raises:
        EmptyFile: it has no bytes.
        InputError: the file is missing, cannot be read, or is named `.gz` and is no gzip file.
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
            raise EmptyFile(f"{path} is empty: it holds no record at all.")
        zipped = path.suffix == ".gz"
        if zipped and magic != _GZIP_MAGIC:
            raise InputError(f"{path} is named .gz and is no gzip file: unpack it again, or drop the .gz.")
        self._member = zlib.decompressobj(_GZIP) if zipped else None

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(self, *fault: object) -> None:
        self._file.close()

    def read(self) -> bytes:
        """The next block of about `BLOCK` bytes; empty at the end of the file or at its break."""
        if self._member is None:
            return self._next(BLOCK)
        parts, size = [], 0
        while size < BLOCK and not self.fault:
            data = self._next(BLOCK // 32)  # bounded, whatever it unzips to
            if not data:
                if not self._member.eof:
                    self.fault = f"the gzip stream ends early, after {self.done:,} bytes"
                break
            parts.append(self._unzipped(data))
            size += len(parts[-1])
        return b"".join(parts)

    def rest(self) -> bytes:
        """All that is left."""
        return b"".join(iter(self.read, b""))

    def _next(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as fault:
            raise InputError(f"{self.path} cannot be read: {fault.strerror}.") from None
        self.done += len(data)
        return data

    def _unzipped(self, data: bytes) -> bytes:
        """What `data` unzips to, over the ends of gzip members that follow one another."""
        plain = []
        try:
            while data:
                assert self._member is not None
                if self._member.eof:
                    data = data.lstrip(b"\0")  # padding that some tools leave behind the last member
                    if not data:
                        break
                    self._member = zlib.decompressobj(_GZIP)
                plain.append(self._member.decompress(data))
                data = self._member.unused_data
        except zlib.error as fault:
            self.fault = f"the gzip stream is damaged ({fault}) within {self.done:,} bytes"
        return b"".join(plain)
