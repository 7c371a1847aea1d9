"""Outcomes as COPY sends them, looked into: for the few batches of which more is asked than a digest."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from breaker_store.postgres.codec import OUTCOME_COLUMNS, POSTGRES_EPOCH_US

_LENGTH: Final = struct.Struct(">i").unpack_from
_FIELDS: Final = len(OUTCOME_COLUMNS)
_USER: Final = OUTCOME_COLUMNS.index("user_id")
_NULL: Final = struct.pack(">i", -1)
_BIGINT: Final = struct.Struct(">q")
_PREFIX: Final = struct.Struct(">2xiqiqiq").unpack_from


@dataclass(frozen=True, slots=True)
class CopiedRow:
    """A row, and where its user begins: what comes before is countable, what comes from there on is about a person."""

    data: bytes
    user_at: int

    @property
    def at(self) -> int:
        """Unix microseconds."""
        return int(_PREFIX(self.data)[1]) + POSTGRES_EPOCH_US

    @property
    def writer_id(self) -> int:
        return int(_PREFIX(self.data)[3])

    @property
    def writer_seq(self) -> int:
        return int(_PREFIX(self.data)[5])

    @property
    def user_id(self) -> int:
        user_id: int = _BIGINT.unpack_from(self.data, self.user_at + 4)[0]
        return user_id

    @property
    def countable(self) -> bytes:
        return self.data[: self.user_at]

    def erased(self, pseudonym: int) -> bytes:
        """Give the row with another user, and without texts."""
        texts = _FIELDS - _USER - 1
        return (
            self.countable
            + self.data[self.user_at : self.user_at + 4]
            + _BIGINT.pack(pseudonym)
            + _NULL * texts
        )


def split_rows(rows: bytes) -> Iterator[CopiedRow]:
    """Take rows apart; of what is cut off nothing is given."""
    place = 0
    while place < len(rows):
        begun, user_at = place, place
        place += 2
        for number in range(_FIELDS):
            if number == _USER:
                user_at = place
            place += 4 + max(_LENGTH(rows, place)[0], 0)
        yield CopiedRow(rows[begun:place], user_at - begun)


def sorted_rows(rows: bytes) -> list[CopiedRow]:
    """Take rows apart and put them in the order of their numbers."""
    return sorted(split_rows(rows), key=lambda row: row.writer_seq)
