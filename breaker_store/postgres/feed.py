"""The transitions of all breakers in the order of their positions, for whoever follows them as they come.

Positions have no gap and come in the order of commits, so that what follows the last one seen is all that is new. But a
position alone does not say in which history: a database that was restored, or a standby that took over without its
primary's last transactions, gives the same numbers to other events. So a reader's place is a position *and* the event
that stands there, and every question looks at that event again: the question begins with it, which costs one row.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import asyncpg

from breaker_store.core.events import EventId
from breaker_store.errors import LogUnavailableError
from breaker_store.postgres.connecting import (
    UNREACHABLE,
    Connection,
    connect,
    described,
    divide_hosts,
    plain_url,
)
from breaker_store.postgres.cursors import CursorError
from breaker_store.postgres.history import TransitionItem, read_transition_item
from breaker_store.postgres.stored_events import read_event_id

_CONNECT_SECONDS: Final = 5.0
_STATEMENT_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 1.0

_CURSOR: Final = re.compile(r"(0|[1-9][0-9]{0,18})(?:\.([0-9]{1,19}-[0-9]{1,19}))?")
_NUMBERS: Final = range(2**63)

# The details of the first one are known, and may be long: they are left where they are.
_FROM: Final = """
SELECT
    user_id, writer_id, writer_seq, kind, occurred_at, version, generation, era, position,
    CASE WHEN position > $1 THEN details END AS details
FROM breaker_transitions
WHERE position >= $1
ORDER BY position
LIMIT $2
"""
_LAST: Final = """
SELECT position, writer_id, writer_seq
FROM breaker_transitions
WHERE position IS NOT NULL
ORDER BY position DESC
LIMIT 1
"""


class FeedCursorError(CursorError):
    """The id is none of the feed's: they are a position, and after a point the event there, as in 17.5-203; or 0."""


@dataclass(frozen=True, slots=True)
class FeedCursor:
    """A place in the feed: behind this transition.

    Attributes:
        position: its number; 0 is the beginning, before the first.
        event_id: which event stands there; None at the beginning, and where that isn't known.

    """

    position: int
    event_id: EventId | None = None

    def __str__(self) -> str:
        return str(self.position) if self.event_id is None else f"{self.position}.{self.event_id}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `str` gave, or a position alone.

        Raises:
            FeedCursorError: it is anything else.

        """
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise FeedCursorError
        cursor = cls(int(match[1]), None if match[2] is None else read_event_id(match[2]))
        numbers = (cursor.position, *(cursor.event_id or ()))
        if str(cursor) != text or not all(number in _NUMBERS for number in numbers):
            raise FeedCursorError
        if cursor.position == 0 and cursor.event_id is not None:
            raise FeedCursorError
        return cursor


class FeedItem(NamedTuple):
    """A transition, and the place behind it."""

    cursor: FeedCursor
    transition: TransitionItem


@dataclass(frozen=True, slots=True)
class AnotherHistory:
    """What a reader finds that was elsewhere: the database is not, or no longer, the one that it read.

    Attributes:
        asked: the reader's place.
        found: the event that stands there now; None if the log is shorter.
        last: the end of this log.

    """

    asked: FeedCursor
    found: EventId | None
    last: FeedCursor


class TransitionFeed:
    """Asks for transitions by position, one question at a time, on a connection of its own.

    It connects when it is asked, and again after trouble.
    """

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        # A standby among several hosts lags behind its primary: by turns they would look like two histories.
        self._writing = len(divide_hosts(plain_url(database_url))) > 1
        self._asking = asyncio.Lock()
        self._connection: Connection | None = None

    async def find(self, asked: FeedCursor | None) -> FeedCursor | AnotherHistory:
        """Find a reader's place, with the event that stands there; None is the present end.

        Raises:
            LogUnavailableError: the database can't be reached, or didn't answer in time.

        """
        if asked is None:
            return await self.last()
        if asked.position == 0:
            return asked
        rows = await self._fetch(_FROM, asked.position, 1)
        return _place(rows[0]) if rows and _fits(asked, rows[0]) else await self._explain(asked, rows)

    async def last(self) -> FeedCursor:
        """Give the present end.

        Raises:
            LogUnavailableError: as in `find`.

        """
        rows = await self._fetch(_LAST)
        return _place(rows[0]) if rows else FeedCursor(0)

    async def read(self, after: FeedCursor, limit: int) -> list[FeedItem] | AnotherHistory:
        """Give what follows a place, in order, at most so many.

        Raises:
            LogUnavailableError: as in `find`.

        """
        rows = await self._fetch(_FROM, after.position, limit + 1)
        if after.position > 0:
            if not rows or not _fits(after, rows[0]):
                return await self._explain(after, rows)
            rows = rows[1:]
        return [FeedItem(_place(row), read_transition_item(row)) for row in rows[:limit]]

    async def close(self) -> None:
        """Give the connection back; a later question opens another."""
        async with self._asking:
            connection, self._connection = self._connection, None
            if connection is not None:
                with contextlib.suppress(*UNREACHABLE):
                    await connection.close(timeout=_CLOSE_SECONDS)

    async def _explain(self, asked: FeedCursor, rows: list[asyncpg.Record]) -> AnotherHistory:
        there = _place(rows[0]) if rows else FeedCursor(0)
        return AnotherHistory(
            asked, there.event_id if there.position == asked.position else None, await self.last()
        )

    async def _fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        async with self._asking:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._connect()
                rows: list[asyncpg.Record] = await self._connection.fetch(statement, *arguments)
            except BaseException as error:
                # Also after a cancellation: what it is in the middle of is not known.
                self._terminate()
                if isinstance(error, UNREACHABLE):
                    raise LogUnavailableError(described(error)) from error
                raise
            return rows

    async def _connect(self) -> Connection:
        return await connect(
            self._database_url,
            writing=self._writing,
            connect_timeout_seconds=_CONNECT_SECONDS,
            command_timeout_seconds=_STATEMENT_SECONDS,
        )

    def _terminate(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None


def _place(row: Mapping[str, Any]) -> FeedCursor:
    return FeedCursor(row["position"], EventId(row["writer_id"], row["writer_seq"]))


def _fits(asked: FeedCursor, row: Mapping[str, Any]) -> bool:
    place = _place(row)
    return asked == place or (asked.event_id is None and asked.position == place.position)
