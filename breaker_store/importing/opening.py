"""Opening an input: a file or the standard input, as it is or compressed by gzip."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from breaker_store.importing.formats import DamagedInputError

STANDARD_INPUT = "-"

_GZIP_MAGIC = b"\x1f\x8b"
_BUFFER_BYTES = 1 << 17

OnProgress = Callable[[int, int | None], None]


@contextmanager
def open_input(path: str | Path, on_progress: OnProgress) -> Iterator[BinaryIO]:
    """Open a file, or `-` for the standard input, and unpack it if its first bytes say that it is gzip's.

    `on_progress` is called with the bytes read so far, as they are stored (compressed), and their total, which is
    None for a pipe; first with 0, then at most once for each 128 KiB. A file that grows while it is read passes
    its total. The standard input is left open at the end.

    Raises:
        OSError: the file can't be opened, or (while reading) not be read.
        DamagedInputError: while reading; the compressed data are damaged or end too early.

    """
    if str(path) == STANDARD_INPUT:
        yield _unpack(sys.stdin.buffer, on_progress)
        return
    with Path(path).open("rb") as file:
        yield _unpack(file, on_progress)


def _unpack(file: BinaryIO, on_progress: OnProgress) -> BinaryIO:
    stored = _StoredBytes(file, on_progress)
    readable = io.BufferedReader(stored, _BUFFER_BYTES)
    if not stored.head.startswith(_GZIP_MAGIC):
        return readable
    return io.BufferedReader(_Unzipped(readable), _BUFFER_BYTES)


class _StoredBytes(io.RawIOBase):
    """A file's bytes as they are stored, counted; `head` has the first two before any is read."""

    def __init__(self, file: BinaryIO, on_progress: OnProgress) -> None:
        super().__init__()
        self._file = file
        self._on_progress = on_progress
        self._total = _find_size(file)
        on_progress(0, self._total)
        # Not peek: that shows a single byte of a pipe into which only one was written so far.
        self.head = file.read(len(_GZIP_MAGIC))
        self._pending = self.head
        self._bytes_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._pending or self._file.read1(len(buffer))  # type: ignore[attr-defined]
        self._pending = b""
        buffer[: len(data)] = data
        self._bytes_read += len(data)
        if data:
            self._on_progress(self._bytes_read, self._total)
        return len(data)


class _Unzipped(io.RawIOBase):
    """What gzip packed; gives out all that can be unpacked before it says that the rest is damaged."""

    def __init__(self, packed: BinaryIO) -> None:
        super().__init__()
        self._unzip = gzip.GzipFile(fileobj=packed, mode="rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            # Not readinto: that collects several pieces, and loses those before the damaged one.
            data = self._unzip.read1(len(buffer))
        except (EOFError, gzip.BadGzipFile, zlib.error) as damage:
            raise DamagedInputError(str(damage)) from damage
        buffer[: len(data)] = data
        return len(data)


def _find_size(file: BinaryIO) -> int | None:
    with suppress(OSError):
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            return status.st_size
    return None
