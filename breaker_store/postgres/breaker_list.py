"""The breakers of a fleet in pages: who changed last, who trips most, who tripped by the same error.

It is read from the breakers' rows alone, in the order of an index: a page costs what its rows cost, however large the
fleet is. So it shows what the rows know; failures in a row of a closed breaker stand in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Double,
    RowMapping,
    Select,
    cast,
    extract,
    func,
    literal,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.events import CircuitState
from breaker_store.postgres import tables
from breaker_store.postgres.codec import STATE_NUMBERS, STATES, microseconds, to_datetime
from breaker_store.postgres.cursors import CursorError, read_cursor, write_cursor
from breaker_store.postgres.history import Cause, read_cause
from breaker_store.postgres.queries import DEFAULT_PAGE, Page
from breaker_store.postgres.stored_events import read_policy


class BreakerOrder(StrEnum):
    """In which order breakers are listed; all begin with the greatest.

    A breaker that changes while the pages are read jumps to the front of the first two, and may be in none of the pages
    that are left. By USER_ID each breaker that was there all along comes once.
    """

    LAST_TRANSITION = "last_transition"
    TRIPS = "trips"
    USER_ID = "user_id"


@dataclass(frozen=True, slots=True)
class BreakerCursor:
    """The breaker that a page ended with.

    `key` is its trips, its user, or the Unix microseconds of its last transition: None if it had none.
    """

    order: BreakerOrder
    key: int | None
    user_id: int

    def __str__(self) -> str:
        return write_cursor(self.order, self.key, self.user_id)

    @classmethod
    def read(cls, text: str, order: BreakerOrder) -> Self:
        """Read what `str` gave.

        Raises:
            CursorError: it is anything else, or of the other order.

        """
        key, user_id = read_cursor(order, text, 2)
        if user_id is None or (key is None and order is not BreakerOrder.LAST_TRANSITION):
            raise CursorError
        cursor = cls(order, key, user_id)
        cursor.place()
        return cursor

    def place(self) -> Any:
        """Give it as the database compares it with a row's key and user.

        Raises:
            CursorError: the key is no such time.

        """
        try:
            return tuple_(self._literal_key(), literal(self.user_id, BigInteger))
        except OverflowError as error:
            raise CursorError from error

    def _literal_key(self) -> ColumnElement[Any]:
        if self.key is None:
            return _NEVER
        if self.order is BreakerOrder.LAST_TRANSITION:
            return literal(to_datetime(self.key), DateTime(timezone=True))
        return literal(self.key, BigInteger)


@dataclass(frozen=True, slots=True)
class BreakerFilter:
    """Which breakers, in which order, and how many of them.

    Attributes:
        states: None means all of them.
        error: the type of the error that tripped it last, as it is written; None is any or none.
        limit: how many a page holds, from 1.
        after: where the page before ended; None begins with the first.

    """

    states: frozenset[CircuitState] | None = None
    error: str | None = None
    order: BreakerOrder = BreakerOrder.LAST_TRANSITION
    limit: int = DEFAULT_PAGE
    after: BreakerCursor | None = None


@dataclass(frozen=True, slots=True)
class BreakerItem:
    """A breaker in a list.

    Attributes:
        since: its last transition; None if there was none.
        trips: how often it opened when it was well.
        trip_error: the type of the error that it tripped by last; None if there was none, or it has no type.
        opened_at: since when it is not closed.
        retry_at: when an open breaker lets a call try; None also if only a person can release it.
        forced: whether somebody opened it: forced it open, or suspended its bot.
        suspended: whether somebody suspended the bot.
        timeout_remaining: seconds until then; 0 unless open.
        last_failure: the last failure that counted, as far as the breaker's row knows it.

    """

    user_id: int
    state: str
    since: datetime | None
    trips: int
    trip_error: str | None
    opened_at: datetime | None
    retry_at: datetime | None
    timeout_remaining: float
    last_failure: Cause | None
    forced: bool
    suspended: bool
    policy_is_own: bool
    version: int


async def list_breakers(
    connection: AsyncConnection, wanted: BreakerFilter
) -> Page[BreakerItem, BreakerCursor]:
    """Give a page of breakers."""
    rows = (await connection.execute(select_breakers(wanted))).mappings().all()
    items = rows[: wanted.limit]
    next_cursor = _cursor_at(wanted.order, items[-1]) if len(rows) > len(items) else None
    return Page([_read_item(row) for row in items], next_cursor)


_COLUMNS: Final = tables.states.c
_NEVER: Final[ColumnElement[Any]] = literal_column("'-infinity'::timestamptz")
_KEYS: Final[Mapping[BreakerOrder, ColumnElement[Any]]] = {
    BreakerOrder.LAST_TRANSITION: func.coalesce(_COLUMNS.since, _NEVER),
    BreakerOrder.TRIPS: _COLUMNS.trips,
    BreakerOrder.USER_ID: _COLUMNS.user_id,
}
_REMAINING: Final = cast(extract("epoch", _COLUMNS.retry_at - func.clock_timestamp()), Double)


def select_breakers(wanted: BreakerFilter) -> Select[Any]:
    key = _KEYS[wanted.order]
    statement = select(tables.states, _REMAINING.label("remaining"))
    if wanted.states is not None:
        # The numbers stand in the statement itself: only then does Postgres see that the index for those not closed serves.
        numbers = [literal(STATE_NUMBERS[state], literal_execute=True) for state in sorted(wanted.states)]
        statement = statement.where(_COLUMNS.state.in_(numbers))
    if wanted.error is not None:
        statement = statement.where(_COLUMNS.trip_error == wanted.error)
    if wanted.after is not None:
        statement = statement.where(tuple_(key, _COLUMNS.user_id) < wanted.after.place())
    return statement.order_by(key.desc(), _COLUMNS.user_id.desc()).limit(wanted.limit + 1)


def _cursor_at(order: BreakerOrder, row: RowMapping) -> BreakerCursor:
    if order is not BreakerOrder.LAST_TRANSITION:
        return BreakerCursor(order, row[order.value], row["user_id"])
    since = row["since"]
    return BreakerCursor(order, None if since is None else microseconds(since), row["user_id"])


def _read_item(row: RowMapping) -> BreakerItem:
    failure = row["last_failure"]
    state = STATES[row["state"]]
    # As everywhere a wait is read: never more than the whole of it, whatever the clocks say.
    remaining = min(max(0.0, row["remaining"] or 0.0), _longest(row)) if state is CircuitState.OPEN else 0.0
    return BreakerItem(
        user_id=row["user_id"],
        state=state.value,
        since=row["since"],
        trips=row["trips"],
        trip_error=row["trip_error"],
        opened_at=row["opened_at"],
        retry_at=row["retry_at"],
        timeout_remaining=remaining,
        last_failure=None if failure is None else read_cause(failure),
        forced=row["forced"],
        suspended=row["suspended"],
        policy_is_own=row["policy_is_own"],
        version=row["version"],
    )


def _longest(row: RowMapping) -> float:
    if row["forced"] and row["retry_at"] is not None:
        forced_for: timedelta = row["retry_at"] - row["opened_at"]
        return forced_for.total_seconds()
    return read_policy(row["policy"]).timeout_seconds
