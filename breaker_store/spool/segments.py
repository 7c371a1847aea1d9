"""The files of a spool: their names, and the descriptors through which they are written and read.

A file is one segment of what one writer wrote. Its name says whose it is and which of them; it has no header that could
be damaged.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from breaker_store.spool.aside import Aside
from breaker_store.spool.records import seed_of

logger = logging.getLogger(__name__)

SUFFIX: Final = ".spool"
NO_DESCRIPTOR: Final = -1

_NAME: Final = re.compile(r"(\d{16,20})-([0-9a-f]{16})-(\d{6,9})\.spool")
_GREATEST_WRITER_ID: Final = 2**63 - 1
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class SegmentName(NamedTuple):
    started_us: int
    writer_id: int
    number: int

    def __str__(self) -> str:
        return f"{self.started_us:016d}-{self.writer_id:016x}-{self.number:06d}{SUFFIX}"

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        """Read a file's name; None if it is no segment's."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        found = cls(int(match[1]), int(match[2], 16), int(match[3]))
        return found if str(found) == name and 0 < found.writer_id <= _GREATEST_WRITER_ID else None


class Place(NamedTuple):
    """A place between two records.

    Attributes:
        seq: of the last event before it.
        total: how many records the writer had written before it; None where that is not known.

    """

    offset: int
    seq: int
    total: int | None


_BEGINNING: Final = Place(0, 0, None)


@dataclass(slots=True, eq=False)
class Segment:
    """One file.

    Attributes:
        size: as far as it has been written, in bytes.
        start: all before this place is stored.
        done_at: when all up to this number is stored the file is of no use any more; None while that is not known.
        end_total: of the last record; None while that is not known.
        ends_with_note: whether the last record is a note, of which no event tells whether it is stored.
        descriptor: of the opened file.

    """

    path: Path
    name: SegmentName
    size: int = 0
    start: Place = _BEGINNING
    done_at: int | None = None
    end_total: int | None = None
    ends_with_note: bool = False
    descriptor: int = NO_DESCRIPTOR
    seed: int = field(init=False)

    def __post_init__(self) -> None:
        self.seed = seed_of(self.name.writer_id, self.name.number)

    def create(self) -> None:
        """Make the file, to write and read."""
        self.descriptor = os.open(self.path, _CREATE, 0o600)

    def read_at(self, count: int, offset: int) -> bytes:
        """Give up to so many bytes; the file is opened if it is not."""
        if self.descriptor == NO_DESCRIPTOR:
            self.descriptor = os.open(self.path, _READ)
        return os.pread(self.descriptor, count, offset)

    def close(self) -> None:
        if self.descriptor != NO_DESCRIPTOR:
            os.close(self.descriptor)
            self.descriptor = NO_DESCRIPTOR


class Folder:
    """What the writers of one directory share.

    Attributes:
        segment_bytes: how long a file may get; one batch may be longer.
        settled_bytes: of all files but those that are being written.

    """

    __slots__ = ("aside", "directory", "segment_bytes", "settled_bytes")

    def __init__(self, directory: Path, segment_bytes: int) -> None:
        self.directory = directory
        self.aside = Aside(directory / "aside")
        self.segment_bytes = segment_bytes
        self.settled_bytes = 0

    def delete(self, segment: Segment) -> None:
        """Delete a file that is settled; one that can't be deleted goes on taking up its room."""
        segment.close()
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            logger.error("%s can't be deleted, and is not needed any more: %s", segment.path, error)  # noqa: TRY400
        else:
            self.settled_bytes -= segment.size

    def set_aside(self, segment: Segment) -> Path | None:
        """Move a file that can't be read out of the way; say where it is, None if it has vanished."""
        segment.close()
        kept_in = self.aside.keep_file(segment.path) if os.path.lexists(segment.path) else None
        if kept_in != segment.path:
            self.settled_bytes -= segment.size
        return kept_in
