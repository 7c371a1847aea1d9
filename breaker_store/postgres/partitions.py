"""The daily partitions of outcomes: made before events need them.

An outcome is stored in the partition of the UTC day in which its call ended, and there is none for what fits no
partition: one would stop others from being made. So the recorder asks here first. For the days around today the
partitions are made ahead, and asking costs a look into a set; an import of old events has them made for the days that
it touches, and for no others.

Making one takes no lock that an append would wait for (see the migration 0001), nor does it wait for one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import Final

import asyncpg

from breaker_store.errors import StoreError

DAY_US: Final = 86_400_000_000

EPOCH: Final = dt.date(1970, 1, 1)

# The days that ensure_outcome_partitions takes: from the epoch to 2199-12-31.
_FIRST_DAY: Final = 0
_LAST_DAY: Final = (dt.date(2199, 12, 31) - EPOCH).days

FIRST_US: Final = _FIRST_DAY * DAY_US
"""The first microsecond that can have a partition."""

LAST_US: Final = (_LAST_DAY + 1) * DAY_US - 1
"""The last microsecond that can have a partition."""

# Each partition's locks stay until its transaction ends, and the server's lock table is bounded (6,400 locks if nothing
# else is configured); a hundred days take under a second.
_DAYS_AT_ONCE: Final = 100


class NoPartitionError(StoreError):
    """Outcomes of this day can't be stored: their day is before 1970 or after 2199.

    Attributes:
        day: the day, counted from 1970-01-01.

    """

    def __init__(self, day: int) -> None:
        super().__init__(f"no partition can be made for day {day} from 1970-01-01: days go from 1970 to 2199")
        self.day = day


class OutcomePartitions:
    """Knows which days have their partition, and has the missing ones made.

    Days are UTC days, counted from 1970-01-01; times are Unix time in microseconds. What is known is never asked for
    again: after an append that found no partition (somebody dropped it), ``forget``.

    days_ahead: for how many days after today ``keep_ahead`` makes partitions; 0 for none.
    """

    def __init__(self, days_ahead: int = 7) -> None:
        self._days_ahead = days_ahead
        self._known: set[int] = set()
        self._ahead_of_day: int | None = None

    def missing(self, earliest_us: int, latest_us: int) -> bool:
        """Tell whether a day from the one to the other is not known to have its partition."""
        first, last = earliest_us // DAY_US, latest_us // DAY_US
        known = self._known
        # Ordinary batches lie in a day; a gap in a long span is found at its first day.
        return first not in known or any(day not in known for day in range(first + 1, last + 1))

    def missing_days(self, times_us: Iterable[int]) -> set[int]:
        """Pick the days of these times that are not known to have their partition."""
        return {time_us // DAY_US for time_us in times_us} - self._known

    async def ensure(self, connection: asyncpg.Connection, days: Iterable[int]) -> int:
        """Have the partitions of these days made where they are missing, and tell how many were.

        The connection must be outside a transaction, else the partitions would come and go with it (RuntimeError). An
        append that is open already, here or elsewhere, may not see them: begin it after this.
        Raises NoPartitionError, before anything is made, for a day that can have none, and what the driver raises.
        """
        if connection.is_in_transaction():
            raise RuntimeError("partitions are made outside a transaction: they must outlive it")
        wanted = sorted(set(days) - self._known)
        for day in wanted:
            check_day(day)
        made = 0
        for run in consecutive_runs(wanted):
            made += await _make(connection, run)
            self._known.update(run)
        return made

    async def keep_ahead(self, connection: asyncpg.Connection, now_us: int) -> int:
        """Have yesterday's to the last ``days_ahead``'s partitions made; once a day, else it returns at once."""
        today = now_us // DAY_US
        if today == self._ahead_of_day:
            return 0
        first, last = max(today - 1, _FIRST_DAY), min(today + self._days_ahead, _LAST_DAY)
        made = await self.ensure(connection, range(first, last + 1))
        self._ahead_of_day = today
        return made

    def forget(self) -> None:
        """Take no partition for known any more."""
        self._known.clear()
        self._ahead_of_day = None


def check_day(day: int) -> None:
    """Raise NoPartitionError for a day that can have no partition."""
    if not _FIRST_DAY <= day <= _LAST_DAY:
        raise NoPartitionError(day)


def consecutive_runs(days: Iterable[int]) -> Iterator[range]:
    """Group ascending days into runs without a gap, none too long to be made at once."""
    run = range(0)
    for day in days:
        if run and day == run.stop and len(run) < _DAYS_AT_ONCE:
            run = range(run.start, day + 1)
            continue
        if run:
            yield run
        run = range(day, day + 1)
    if run:
        yield run


async def _make(connection: asyncpg.Connection, run: range) -> int:
    first, last = (EPOCH + dt.timedelta(days=day) for day in (run[0], run[-1]))
    made: int = await connection.fetchval("SELECT ensure_outcome_partitions($1, $2)", first, last)
    return made
