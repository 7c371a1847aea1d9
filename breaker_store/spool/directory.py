"""A directory of spooled events, which belongs to one process at a time."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from itertools import groupby
from pathlib import Path
from typing import Final

from breaker_store.errors import ConfigurationError, SpoolBusyError
from breaker_store.ports import Batch
from breaker_store.spool.segments import NO_DESCRIPTOR, SUFFIX, Folder, Segment, SegmentName
from breaker_store.spool.writer import SpoolWriter

logger = logging.getLogger(__name__)

DEFAULT_LIMIT_BYTES: Final = 1 << 30
GREATEST_SEGMENT_BYTES: Final = 4 << 20
SEGMENTS_IN_LIMIT: Final = 20

_LOCK_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Spool:
    """A directory with the events that are not stored yet; close it when nothing is written any more.

    What it holds is meant for one process: a second one that opens it gets an error. The death of a process, however it
    dies, lets go of the directory.

    Attributes:
        limit_bytes: what its files may take. Writing on beyond it is not refused: `full_share` tells how near it is.

    """

    def __init__(self, directory: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        """Take the directory, which is made if it is missing.

        Raises:
            SpoolBusyError: another process has it.
            ConfigurationError: it can't be made, or not be written, or the limit is no number of bytes.

        """
        if limit_bytes <= 0:
            raise ConfigurationError(f"a spool's limit is a number of bytes above 0, not {limit_bytes}")
        self.directory = directory
        self.limit_bytes = limit_bytes
        self._folder = Folder(directory, min(GREATEST_SEGMENT_BYTES, limit_bytes // SEGMENTS_IN_LIMIT))
        self._own: list[SpoolWriter] = []
        self._lock = _take(directory)
        try:
            self._leftovers = _find_leftovers(self._folder)
        except OSError as error:
            self.close()
            raise _unusable(directory, error) from error

    @property
    def used_bytes(self) -> int:
        """All files of all writers; what is set aside does not count."""
        used = self._folder.settled_bytes
        for writer in self._own:
            used += writer.size
        return used

    @property
    def full_share(self) -> float:
        """How much of the limit is used; above 1 beyond it."""
        return self.used_bytes / self.limit_bytes

    def leftovers(self) -> list[SpoolWriter]:
        """Give what earlier processes left, oldest first; those that were removed since are left out."""
        return [writer for writer in self._leftovers if writer.has_files]

    def begin(self, writer_id: int, started_us: int) -> SpoolWriter:
        """Begin to write events of this process; the first file is made for the first event."""
        writer = SpoolWriter(self._folder, started_us, writer_id)
        self._own.append(writer)
        return writer

    def set_aside(self, batch: Batch, reason: str) -> Path:
        """Keep the events of a batch in a file for people to read; give the file.

        Raises:
            SpoolError: the disk refuses.

        """
        return self._folder.aside.keep_batch(batch, reason)

    def close(self) -> None:
        """Let go of the directory; what is in it stays."""
        for writer in (*self._own, *self._leftovers):
            writer.close()
        self._let_go()

    def leave_to_parent(self) -> None:
        """Close what a forked child shares with its parent; the directory stays the parent's."""
        for writer in (*self._own, *self._leftovers):
            writer.leave_to_parent()
        # Without unlocking: the lock is the opened file's, which the parent has as well.
        self._let_go()

    def _let_go(self) -> None:
        if self._lock != NO_DESCRIPTOR:
            os.close(self._lock)
            self._lock = NO_DESCRIPTOR


def _take(directory: Path) -> int:
    """Lock a directory for as long as the descriptor is open, and say in the lock's file who has it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        lock = os.open(directory / "lock", _LOCK_FLAGS, 0o600)
    except OSError as error:
        raise _unusable(directory, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write_pid(lock)
    except BlockingIOError as error:
        holder = _read_pid(lock)
        os.close(lock)
        raise SpoolBusyError(directory, holder) from error
    except OSError as error:
        os.close(lock)
        raise _unusable(directory, error) from error
    return lock


def _unusable(directory: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"events can't be spooled in {directory}: {error.strerror}")


def _write_pid(lock: int) -> None:
    try:
        written = os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        os.ftruncate(lock, written)
    except OSError as error:
        # A full disk must not keep anybody from delivering what is on it.
        logger.warning("the spool's lock can't say who has it: %s", error)


def _read_pid(lock: int) -> int | None:
    line, *_ = os.pread(lock, 20, 0).split(b"\n")
    return int(line) if line.isdigit() else None


def _find_leftovers(folder: Folder) -> list[SpoolWriter]:
    segments = sorted(_find_segments(folder), key=lambda segment: segment.name)
    writers = groupby(segments, key=lambda segment: segment.name[:2])
    return [
        SpoolWriter(folder, started_us, writer_id, tuple(own)) for (started_us, writer_id), own in writers
    ]


def _find_segments(folder: Folder) -> list[Segment]:
    segments = []
    with os.scandir(folder.directory) as entries:
        for entry in entries:
            path = folder.directory / entry.name
            name = SegmentName.parse(entry.name)
            if name is not None and entry.is_file(follow_symlinks=False):
                segments.append(Segment(path, name, entry.stat().st_size))
            elif entry.name.endswith(SUFFIX):
                logger.error(
                    "%s is no file of a spool and is set aside: %s", entry.name, folder.aside.keep_file(path)
                )
    for segment in segments:
        folder.settled_bytes += segment.size
        if not segment.size:
            folder.delete(segment)
    return [segment for segment in segments if segment.size]
