"""Read the bytes of a file in blocks, decompressing it, and stop cleanly where the data breaks off."""

from __future__ import annotations

import bz2
import lzma
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from dataprep.common.errors import EmptyFile, InputError

BLOCK = 4 << 20  # bytes: small enough to stay in cache between passes, large enough to hide the cost of Python

# Extension, name and first bytes of each kind of compression.
_COMPRESSIONS = {
    ".gz": ("gzip", b"\x1f\x8b"),
    ".bz2": ("bzip2", b"BZh"),
    ".xz": ("xz", b"\xfd7zXZ\x00"),
    ".zst": ("Zstandard", b"\x28\xb5\x2f\xfd"),
}
COMPRESSED = tuple(_COMPRESSIONS)
_ARCHIVES = {b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"Rar!": "a RAR archive"}
_XZ_MEMORY = 256 << 20  # bytes; a header may ask for 4 GiB, and the strongest usual setting (-9) for 65 MiB
_TAIL = 64 << 10  # last bytes of a block in which its last line end is looked for
_GZIP_WINDOW = 31  # zlib's window size for a gzip member whose checksum is verified
# What zlib says if a member's data is whole but its checksum or its length differs.
_CHECKSUM_FAULTS = ("incorrect data check", "incorrect length check")


class ByteStream:
    """Reads a file in blocks of at most about `BLOCK` bytes, decompressed if its name ends in one of `COMPRESSED`.

    `done` counts the bytes read from the file itself. `fault` is empty, or says why the stream ended early: a truncated
    or damaged file yields all bytes before the damage, so that the complete records in it are still read. `is_whole`
    says whether the bytes before the fault end where the compressed data ends: only its checksum is wrong.

    Raises:
        EmptyFile: the file has no bytes.
        InputError: the file is missing or unreadable, is a pipe or a device, or is not compressed as its name says.
    """

    def __init__(self, path: Path, start: int = 0, stop: int | None = None) -> None:
        """Args:
        path: the file.
        start, stop: the bytes of an uncompressed file to read; by default all.
        """
        self.path, self.done, self.fault, self.is_whole = path, 0, "", False
        self._left = stop - start if stop is not None else None  # bytes until `stop`
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for a writer
                raise InputError(f"{path} is a pipe, a device or a folder: save the data to a regular file first.")
            self._file: BinaryIO = path.open("rb")
            head = self._file.read(8)
            self._file.seek(start)
        except OSError as fault:
            raise InputError(f"{path} cannot be read: {fault.strerror}.") from None
        if not head:
            raise EmptyFile(f"{path} is empty: it holds no records.")
        _check_compression(path, head)
        self._read = {
            ".gz": lambda: self._read_members(lambda: zlib.decompressobj(_GZIP_WINDOW)),
            ".bz2": lambda: self._read_members(bz2.BZ2Decompressor),
            ".xz": lambda: self._read_members(lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)),
            ".zst": self._read_zstandard,
        }.get(path.suffix, lambda: self._read_file(BLOCK))
        self._decoder: Any = None
        self._input = b""  # compressed bytes that the decoder has not taken yet

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(self, *fault: object) -> None:
        self._file.close()

    def read(self) -> bytes:
        """Return the next block; empty at the end of the data."""
        return b"" if self.fault else self._read()

    def _read_file(self, size: int) -> bytes:
        try:
            if self._left is not None:
                size = self._to_line_end(size) if size < self._left else self._left
            data = self._file.read(size)
        except OSError as fault:
            raise InputError(f"{self.path} cannot be read: {fault.strerror}.") from None
        self.done += len(data)
        if self._left is not None:
            self._left -= len(data)
        return data

    def _to_line_end(self, size: int) -> int:
        """Return a smaller number of the next bytes, so that they end with a line, if one ends near the end of `size` bytes.

        The beginning of a line would have to be joined with its rest, which copies the whole block.
        """
        at, tail = self._file.tell(), min(size, _TAIL)
        self._file.seek(at + size - tail)
        cut = self._file.read(tail).rfind(b"\n") + 1
        self._file.seek(at)
        return size - tail + cut if cut else size

    def _read_members(self, new_decoder: Callable[[], Any]) -> bytes:
        """Decompress a block of a file of concatenated members (gzip, bzip2) or streams (xz)."""
        parts: list[bytes] = []
        size = 0
        while size < BLOCK and not self.fault:
            between_members = self._decoder is None or self._decoder.eof
            # bzip2 and xz decoders hold input back when their output is limited
            if not self._input and (between_members or getattr(self._decoder, "needs_input", True)):
                self._input = self._read_file(BLOCK // 32)
                if not self._input:
                    if not between_members:
                        parts.append(self._decoder.decompress(b""))  # zlib can hold back its last bytes of output
                        self.fault = f"the {_name(self.path)} stream ends early, after {self.done:,} bytes"
                    break
            if between_members:
                if self._decoder is not None:
                    self._input = self._input.lstrip(b"\0")  # padding that some tools write after the last member
                if not self._input:
                    continue
                self._decoder = new_decoder()
            parts.append(self._decompress(BLOCK - size))
            size += len(parts[-1])
        return b"".join(parts)

    def _decompress(self, limit: int) -> bytes:
        """Decompress at most `limit` bytes of the input; at a fault, all bytes before it."""
        before = self._decoder.copy() if hasattr(self._decoder, "copy") else None
        try:
            data: bytes = self._decoder.decompress(self._input, limit)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as fault:
            reason = str(fault)
            self.is_whole = any(text in reason for text in _CHECKSUM_FAULTS)
            self.fault = f"the {_name(self.path)} stream is damaged ({reason}) within its first {self.done:,} bytes"
            return _bytes_before_fault(before, self._input) if before else b""
        self._input = self._decoder.unused_data if self._decoder.eof else getattr(self._decoder, "unconsumed_tail", b"")
        return data

    def _read_zstandard(self) -> bytes:
        if self._decoder is None:
            self._decoder = pa.CompressedInputStream(pa.PythonFile(self._file, "r"), "zstd")
        parts: list[bytes] = []
        size = 0
        try:
            while size < BLOCK and (data := self._decoder.read(BLOCK // 32)):
                parts.append(data)
                size += len(data)
        except (OSError, pa.ArrowException) as fault:
            self.fault = f"the Zstandard stream is damaged ({fault}) within its first {self._file.tell():,} bytes"
        self.done = self._file.tell()
        return b"".join(parts)


def _bytes_before_fault(decoder: Any, data: bytes) -> bytes:
    """Feed `data` to a zlib decoder byte by byte: a call that fails returns nothing of what it decompressed."""
    parts: list[bytes] = []
    try:
        for at in range(len(data)):
            parts.append(decoder.decompress(data[at : at + 1]))
    except zlib.error:
        pass
    return b"".join(parts)


def _name(path: Path) -> str:
    return _COMPRESSIONS[path.suffix][0]


def _check_compression(path: Path, start: bytes) -> None:
    """Raise InputError if the first bytes of a file are not what its name says."""
    named = _COMPRESSIONS.get(path.suffix)
    if named and not start.startswith(named[1]):
        raise InputError(
            f"{path} is named {path.suffix} but is not {named[0]} data: compress it again, or rename it if it is plain."
        )
    for magic, archive in _ARCHIVES.items():
        if start.startswith(magic):
            raise InputError(f"{path} is {archive}: unpack it, and name the files in it.")
    for extension, (name, magic) in _COMPRESSIONS.items():
        if not named and start.startswith(magic):
            raise InputError(f"{path} is compressed with {name}: rename it to {path.name}{extension}.")
