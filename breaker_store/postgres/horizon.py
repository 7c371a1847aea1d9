"""How far back the log can tell what held: to its oldest event, or to the end of the last day that retention dropped.

Transitions are kept for ever, outcomes until their day is dropped, of which the log tells itself. From the day after the
last one that was dropped nothing is missing. A day before it does not count, though it may have outcomes: an import may have
kept it, or a late batch made it again. What a breaker's state still needs of a day is carried over by an event before.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from breaker_store.errors import StoreError, iso_utc
from breaker_store.postgres.connecting import Connection

_DAY: Final = timedelta(days=1)

_LAST_DROPPED = "SELECT max(day) FROM dropped_partitions"

# Days are known by the names of their partitions; those ahead of time are empty.
_DAYS = """
SELECT to_date(right(relname, 8), 'YYYYMMDD') AS day
FROM pg_inherits
JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'breaker_outcomes'::regclass AND NOT inhdetachpending
ORDER BY day
"""

# Each of the two opens the partition of one day.
_HAS_OUTCOME = """
SELECT EXISTS (SELECT FROM breaker_outcomes WHERE occurred_at >= $1 AND occurred_at < $2 AND occurred_at <= $3)
"""
_OLDEST_OUTCOME = "SELECT min(occurred_at) FROM breaker_outcomes WHERE occurred_at >= $1 AND occurred_at < $2"

_OLDEST_TRANSITION = "SELECT min(occurred_at) FROM breaker_transitions"


class HorizonError(StoreError):
    """What held at an instant can't be told, since the log does not go back far enough.

    Attributes:
        at: the instant that was asked for.
        horizon: to which the log goes back; None if it is empty. Also before `at`, where what was counted then had
            begun before the horizon.

    """

    def __init__(self, at: datetime, horizon: datetime | None) -> None:
        super().__init__(at, horizon)
        self.at = at
        self.horizon = horizon

    def __str__(self) -> str:
        unknown = f"what held at {iso_utc(self.at)} can't be told"
        if self.horizon is None:
            return f"{unknown}: no event is kept that would tell"
        if self.at < self.horizon:
            return f"{unknown}: the log goes back to {iso_utc(self.horizon)}"
        return f"{unknown}: what was counted then began before {iso_utc(self.horizon)}, to which the log goes back"


class FutureError(StoreError):
    """The instant that was asked for is yet to come, by the database's clock.

    Attributes:
        at: the instant that was asked for.

    """

    def __init__(self, at: datetime) -> None:
        super().__init__(at)
        self.at = at

    def __str__(self) -> str:
        return f"{iso_utc(self.at)} is yet to come: nothing is known of it"


async def check_horizon(connection: Connection, at: datetime) -> None:
    """Make sure that the log reaches back to an instant.

    Raises:
        HorizonError: it doesn't.

    """
    kept_from = await _kept_from(connection)
    if kept_from is None and await _has_event(connection, at):
        return
    horizon = kept_from or await _oldest_event(connection)
    if horizon is None or at < horizon:
        raise HorizonError(at, horizon)


async def check_count(connection: Connection, at: datetime, since: datetime) -> None:
    """Make sure that no outcome is missing from an instant up to another, at which the log does reach.

    Raises:
        HorizonError: one may be.

    """
    kept_from = await _kept_from(connection)
    if kept_from is not None and since < kept_from:
        raise HorizonError(at, kept_from)


async def _kept_from(connection: Connection) -> datetime | None:
    """Give the end of the last day that was dropped; None if none was."""
    day = await connection.fetchval(_LAST_DROPPED)
    return None if day is None else _begin(day) + _DAY


async def _has_event(connection: Connection, until: datetime) -> bool:
    """Tell whether anything happened up to an instant: a look at one transition and one outcome."""
    transition: datetime | None = await connection.fetchval(_OLDEST_TRANSITION)
    if transition is not None and transition <= until:
        return True
    day = await _oldest_day(connection)
    return day is not None and bool(await connection.fetchval(_HAS_OUTCOME, day, day + _DAY, until))


async def _oldest_event(connection: Connection) -> datetime | None:
    day = await _oldest_day(connection)
    outcome = None if day is None else await connection.fetchval(_OLDEST_OUTCOME, day, day + _DAY)
    found = (outcome, await connection.fetchval(_OLDEST_TRANSITION))
    return min((at for at in found if at is not None), default=None)


async def _oldest_day(connection: Connection) -> datetime | None:
    """Give the beginning of the first day of which outcomes are kept; None if there is no outcome."""
    for row in await connection.fetch(_DAYS):
        begin = _begin(row["day"])
        if await connection.fetchval(_HAS_OUTCOME, begin, begin + _DAY, begin + _DAY):
            return begin
    return None


def _begin(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
