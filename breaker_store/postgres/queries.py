"""What operators ask of the log: how many are open, how one stands, what happened to it.

Any process can ask, beside those that run the breakers, and nothing is ever written. What SQLAlchemy is asked on one
connection is of one moment; a page of a history is one statement, and of one moment by itself.

A user's history is read backwards, page by page. A page begins where the last one ended: at an event, not at a number
of rows, so that what happens in between shifts nothing. Outcomes and transitions are read apart and then merged: over
the days of the outcomes alone, Postgres goes from the newest day back and stops when it has enough; over both together
it would open every day there is. So transitions cost nothing of the outcomes' days when only they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

import asyncpg
from sqlalchemy import Select, Table, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.events import CircuitState, EventId, Kind
from breaker_store.errors import UnknownBreakerError
from breaker_store.postgres import tables
from breaker_store.postgres.codec import STATE_NUMBERS, microseconds, to_datetime
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.cursors import CursorError, read_cursor, write_cursor
from breaker_store.postgres.history import (
    EVENT_COLUMNS,
    EventItem,
    TransitionItem,
    read_event_item,
    read_transition_item,
)
from breaker_store.postgres.reading import driver_connection_of
from breaker_store.postgres.remarks import Place, is_remarkable, read_remarks

IDS_LIMIT: Final = 1_000
"""How many user ids a summary lists for each state at most."""

DEFAULT_PAGE: Final = 50
LARGEST_PAGE: Final = 200


_HISTORY: Final = "1"
"""Marks cursors of a history; it counts their versions."""

_NEWEST_FIRST: Final = "ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC"
_IS_KNOWN: Final = "SELECT EXISTS (SELECT FROM breaker_states WHERE user_id = $1)"

Item = TypeVar("Item")
HistoryItem = TypeVar("HistoryItem", bound=EventItem | TransitionItem)
Position = TypeVar("Position")


@dataclass(frozen=True, slots=True)
class Cursor:
    """The event that a page ended with; the next one begins with the event before it."""

    at: datetime
    event_id: EventId

    def __str__(self) -> str:
        return write_cursor(_HISTORY, microseconds(self.at), *self.event_id)

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `str` gave.

        Raises:
            CursorError: it is anything else.

        """
        at_us, writer_id, writer_seq = read_cursor(_HISTORY, text, 3)
        if at_us is None or writer_id is None or writer_seq is None:
            raise CursorError
        try:
            return cls(to_datetime(at_us), EventId(writer_id, writer_seq))
        except OverflowError as error:
            raise CursorError from error


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """Which events of a user, and how many of them.

    Attributes:
        since, until: from the first on, up to the second but without it; None is no bound.
        kinds: None means all of them.
        limit: how many a page holds, from 1.
        after: where the page before ended; None begins with the newest event.

    """

    since: datetime | None = None
    until: datetime | None = None
    kinds: frozenset[Kind] | None = None
    limit: int = DEFAULT_PAGE
    after: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[Item, Position]):
    """Part of a list, such as a history, newest first; `next_cursor` is None at its end."""

    items: list[Item]
    next_cursor: Position | None


@dataclass(frozen=True, slots=True)
class Summary:
    """All breakers by state. The lists of ids are in ascending order; `ids_truncated` if one was cut at 1,000."""

    total_breakers: int
    closed: int
    open: int
    half_open: int
    open_user_ids: list[int]
    half_open_user_ids: list[int]
    ids_truncated: bool


_SELECT_COUNTS: Final = select(
    tables.log_position.c.breakers,
    tables.log_position.c.open_breakers,
    tables.log_position.c.half_open_breakers,
)


async def summary(connection: AsyncConnection) -> Summary:
    """Count the breakers by state; the counts are kept, so it costs the same for any number of them."""
    kept = (await connection.execute(_SELECT_COUNTS)).one()
    return Summary(
        total_breakers=kept.breakers,
        closed=kept.breakers - kept.open_breakers - kept.half_open_breakers,
        open=kept.open_breakers,
        half_open=kept.half_open_breakers,
        open_user_ids=await _ids(connection, CircuitState.OPEN),
        half_open_user_ids=await _ids(connection, CircuitState.HALF_OPEN),
        ids_truncated=max(kept.open_breakers, kept.half_open_breakers) > IDS_LIMIT,
    )


async def _ids(connection: AsyncConnection, state: CircuitState) -> list[int]:
    return list((await connection.execute(_select_ids(state))).scalars())


class _Source(NamedTuple):
    """Where a page is read from, and which columns of it; those by which it is ordered among them."""

    tables: Sequence[Table]
    columns: str


_TRANSITIONS: Final = _Source(
    [tables.transitions], ", ".join(column.name for column in tables.transitions.columns)
)


async def transitions(
    connection: AsyncConnection | Connection, user_id: int, history_filter: HistoryFilter
) -> Page[TransitionItem, Cursor]:
    """Give a page of a breaker's transitions, newest first, superseded ones among them.

    Raises:
        UnknownBreakerError: nothing is stored of this user.

    """
    return await _page(connection, user_id, history_filter, _TRANSITIONS, read_transition_item)


async def events(
    connection: AsyncConnection | Connection, user_id: int, history_filter: HistoryFilter
) -> Page[EventItem, Cursor]:
    """Give a page of everything that happened to a breaker, newest first.

    Raises:
        UnknownBreakerError: nothing is stored of this user.

    """
    source = _Source(_tables_of(history_filter.kinds), EVENT_COLUMNS)
    return await _page(connection, user_id, history_filter, source, read_event_item)


async def _page(
    connection: AsyncConnection | Connection,
    user_id: int,
    history_filter: HistoryFilter,
    source: _Source,
    read_item: Callable[[asyncpg.Record], HistoryItem],
) -> Page[HistoryItem, Cursor]:
    driver_connection = await driver_connection_of(connection)
    statement, values = _select_history(source, user_id, history_filter)
    rows = await driver_connection.fetch(statement, *values)
    if not rows and not await driver_connection.fetchval(_IS_KNOWN, user_id):
        raise UnknownBreakerError(user_id)
    # One row more than the page was asked for: it tells whether there is a next one.
    items = rows[: history_filter.limit]
    next_cursor = _cursor_at(items[-1]) if len(rows) > len(items) else None
    remarks = await read_remarks(driver_connection, _places(items))
    return Page([_remarked(read_item(row), row, remarks) for row in items], next_cursor)


def _places(rows: list[asyncpg.Record]) -> list[Place]:
    return [
        Place(row["user_id"], row["version"])
        for row in rows
        if row["version"] is not None and is_remarkable(row["kind"], row["position"])
    ]


def _remarked(item: HistoryItem, row: asyncpg.Record, remarks: Mapping[Place, str]) -> HistoryItem:
    if row["version"] is None or not remarks:
        return item
    text = remarks.get(Place(row["user_id"], row["version"]))
    return item if text is None or row["position"] is None else replace(item, remark=text)


def _select_ids(state: CircuitState) -> Select[Any]:
    # The number stands in the statement itself: only then does Postgres see that the index for open ones serves it.
    number = literal(STATE_NUMBERS[state], literal_execute=True)
    columns = tables.states.c
    return select(columns.user_id).where(columns.state == number).order_by(columns.user_id).limit(IDS_LIMIT)


def _select_history(source: _Source, user_id: int, history_filter: HistoryFilter) -> tuple[str, list[Any]]:
    """Write the statement for a page, as text: SQLAlchemy takes ten times as long for it as Postgres for the answer."""
    values: list[Any] = [user_id, history_filter.limit + 1]
    conditions = " AND ".join(_conditions(history_filter, values))
    newest = [
        f"(SELECT {source.columns} FROM {table.name} WHERE {conditions} {_NEWEST_FIRST} LIMIT $2)"
        for table in source.tables
    ]
    if len(newest) == 1:
        return newest[0], values
    return f"{' UNION ALL '.join(newest)} {_NEWEST_FIRST} LIMIT $2", values


def _conditions(history_filter: HistoryFilter, values: list[Any]) -> Iterator[str]:
    """Write the conditions, and put their values behind the others."""

    def place(value: object) -> str:
        values.append(value)
        return f"${len(values)}"

    yield "user_id = $1"
    if history_filter.since is not None:
        yield f"occurred_at >= {place(history_filter.since)}"
    if history_filter.until is not None:
        yield f"occurred_at < {place(history_filter.until)}"
    if history_filter.kinds is not None:
        yield f"kind = ANY({place(list(map(int, history_filter.kinds)))}::smallint[])"
    if history_filter.after is not None:
        at = place(history_filter.after.at)
        writer_id, writer_seq = map(place, history_filter.after.event_id)
        # The second condition follows from the first, but only by the second does Postgres leave out days.
        yield f"(occurred_at, writer_id, writer_seq) < ({at}, {writer_id}, {writer_seq}) AND occurred_at <= {at}"


def _tables_of(kinds: frozenset[Kind] | None) -> list[Table]:
    """Name the tables in which events of these kinds can be; at least one."""
    if kinds is None:
        return [tables.outcomes, tables.transitions]
    wanted = []
    if any(kind.is_outcome for kind in kinds):
        wanted.append(tables.outcomes)
    if not wanted or any(not kind.is_outcome for kind in kinds):
        wanted.append(tables.transitions)
    return wanted


def _cursor_at(row: asyncpg.Record) -> Cursor:
    return Cursor(row["occurred_at"], EventId(row["writer_id"], row["writer_seq"]))
