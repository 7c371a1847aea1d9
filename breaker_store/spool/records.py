"""Records that can be told from damage: how they are framed, and how they are found again.

A record is a mark, its length twice (once as it is, once altered), a checksum, and its payload. The checksum is seeded
with the file's name, so that a record of another file is not taken for one of this. The mark's bytes stand in no UTF-8
text: nothing that somebody puts into an error's message can pass for a record.

Every payload begins with the number of its event, and with the record's own two numbers, which tell exactly how many
are missing where some are: `total` among all that the writer wrote, `place` in its file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple
from zlib import crc32

MARK: Final = b"\xfe\xc1"
LENGTH_MASK: Final = 0x5AA5_C33C
GREATEST_PAYLOAD: Final = 1 << 20
CHUNK: Final = 1 << 18
"""How much of a file is read at once; more only for a record that is longer."""

# A forged file may announce long records everywhere. After so many bytes that were checked in vain, only short ones are
# looked at, so that the work stays in proportion to the file.
_SHORT: Final = 4_096
_CHECKED_IN_VAIN: Final = 1 << 26

_HEAD: Final = struct.Struct("<2sIII")
_PREFIX: Final = struct.Struct("<BqqI")
_NAME: Final = struct.Struct("<qI")

HEAD_SIZE: Final = _HEAD.size
PREFIX_SIZE: Final = _PREFIX.size
pack_prefix = _PREFIX.pack
_pack_head = _HEAD.pack
_unpack_head = _HEAD.unpack_from


class Prefix(NamedTuple):
    """What every payload begins with."""

    kind: int
    seq: int
    total: int
    place: int


class Stretch(NamedTuple):
    """Bytes of a file in which there is no whole record."""

    offset: int
    length: int


def seed_of(writer_id: int, segment: int) -> int:
    """Give what the checksums of a file begin with."""
    return crc32(_NAME.pack(writer_id, segment))


def frame(payload: bytes, seed: int) -> bytes:
    length = len(payload)
    return _pack_head(MARK, length, length ^ LENGTH_MASK, crc32(payload, seed)) + payload


def prefix_of(payload: bytes) -> Prefix:
    return Prefix._make(_PREFIX.unpack_from(payload))


class Scan:
    """Goes through one file, a chunk at a time.

    Attributes:
        offset: where it is.
        size: how far it may go; whoever owns the file moves it on as the file grows.

    """

    def __init__(self, read_at: Callable[[int, int], bytes], size: int, seed: int, offset: int = 0) -> None:
        """Begin; `read_at(count, offset)` gives up to so many bytes of the file."""
        self.offset = offset
        self.size = size
        self._read_at = read_at
        self._seed = seed
        self._buffer = b""
        self._buffer_at = offset
        self._checked_in_vain = 0

    def next(self) -> bytes | Stretch | None:
        """Give the payload of the next record, or what stands in its place; None at the end.

        Raises:
            OSError: the file can't be read.

        """
        payload = self._record_at(self.offset)
        if payload is not None:
            self.offset += HEAD_SIZE + len(payload)
            return payload
        return self._pass_over() if self.offset < self.size else None

    def _record_at(self, offset: int) -> bytes | None:
        """Give the payload of the whole record that begins here, if one does."""
        at = offset - self._buffer_at
        if at + HEAD_SIZE > len(self._buffer):
            if not self._fill(offset, HEAD_SIZE):
                return None
            at = 0
        mark, length, check, checksum = _unpack_head(self._buffer, at)
        if mark != MARK or length ^ LENGTH_MASK != check or not PREFIX_SIZE <= length <= GREATEST_PAYLOAD:
            return None
        if length > _SHORT and self._checked_in_vain > _CHECKED_IN_VAIN:
            return None
        at += HEAD_SIZE
        if at + length > len(self._buffer):
            if not self._fill(offset, HEAD_SIZE + length):
                return None
            at = HEAD_SIZE
        payload = self._buffer[at : at + length]
        if crc32(payload, self._seed) != checksum:
            self._checked_in_vain += length
            return None
        return payload

    def _pass_over(self) -> Stretch:
        """Go to the next whole record, or to the end."""
        start = offset = self.offset
        while (found := self._find_mark(offset + 1)) is not None:
            offset = found
            if self._record_at(offset) is not None:
                break
        self.offset = self.size if found is None else found
        return Stretch(start, self.offset - start)

    def _find_mark(self, offset: int) -> int | None:
        while True:
            end = self._buffer_at + len(self._buffer)
            if offset + len(MARK) > end and not self._fill(offset, len(MARK)):
                return None
            found = self._buffer.find(MARK, offset - self._buffer_at)
            if found >= 0:
                return self._buffer_at + found
            # The chunk's last byte may be a mark's first.
            offset = self._buffer_at + len(self._buffer) - 1

    def _fill(self, offset: int, needed: int) -> bool:
        """Read from here on, at least so much; tell whether that much is there."""
        if offset + needed > self.size:
            return False
        wanted = min(needed + CHUNK, self.size - offset)
        self._buffer = self._read_at(wanted, offset)
        self._buffer_at = offset
        if len(self._buffer) < wanted:
            self.size = offset + len(self._buffer)  # it was cut behind our back
        return len(self._buffer) >= needed
