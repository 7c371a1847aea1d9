"""How far back the log can tell what held: to the oldest kept event, or further back if nothing is missing before it.

Transitions are kept for ever, outcomes until their day's partition is dropped. So there are outcomes missing where the
ledger has batches of them from before the oldest day that still holds any. A day that is older than one that was dropped
does not count: an import may have kept it, or a late batch made it again. What a breaker's state still needs of a day is
carried over by an event before.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from breaker_store.errors import StoreError, iso_utc
from breaker_store.postgres.connecting import Connection

_DAY: Final = timedelta(days=1)

# Days are known by the names of their partitions; those ahead of time are empty. Nothing is missing from the day on that
# follows the last one that was dropped.
_DAYS = """
SELECT day
FROM pg_inherits
JOIN pg_class ON pg_class.oid = inhrelid
CROSS JOIN LATERAL to_date(right(relname, 8), 'YYYYMMDD') AS day
WHERE inhparent = 'breaker_outcomes'::regclass AND NOT inhdetachpending
    AND day > coalesce((SELECT max(dropped.day) FROM dropped_partitions AS dropped), '-infinity')
ORDER BY day
"""

# Each of the two opens the partition of one day.
_HAS_OUTCOME = """
SELECT EXISTS (SELECT FROM breaker_outcomes WHERE occurred_at >= $1 AND occurred_at < $2 AND occurred_at <= $3)
"""
_OLDEST_OUTCOME = "SELECT min(occurred_at) FROM breaker_outcomes WHERE occurred_at >= $1 AND occurred_at < $2"

_OLDEST_TRANSITION = "SELECT min(occurred_at) FROM breaker_transitions"

# A writer's times never run backwards, so its first batch with outcomes tells. One look-up for each writer: the ledger
# may hold very many batches, and the only index on it is by writer and number.
_HAD_OUTCOMES_BEFORE = """
WITH RECURSIVE writer (writer_id) AS (
    SELECT min(writer_id) FROM writer_batches
    UNION ALL
    SELECT (SELECT min(batch.writer_id) FROM writer_batches AS batch WHERE batch.writer_id > writer.writer_id)
    FROM writer
    WHERE writer.writer_id IS NOT NULL
)
SELECT EXISTS (
    SELECT
    FROM writer
    CROSS JOIN LATERAL (
        SELECT batch.earliest
        FROM writer_batches AS batch
        WHERE batch.writer_id = writer.writer_id
            AND batch.event_count > (
                SELECT count(*)
                FROM breaker_transitions AS transition
                WHERE transition.writer_id = batch.writer_id
                    AND transition.writer_seq BETWEEN batch.first_seq AND batch.last_seq
            )
        ORDER BY batch.batch_no
        LIMIT 1
    ) AS first_with_outcomes
    WHERE first_with_outcomes.earliest < $1
)
"""


class HorizonError(StoreError):
    """What held at an instant can't be told, since the log does not go back far enough.

    Attributes:
        at: the instant that was asked for.
        horizon: the oldest kept event; None if none is kept. Also before `at`, where what was counted then had begun
            before the horizon.

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
            return f"{unknown}: the oldest kept event is of {iso_utc(self.horizon)}"
        return f"{unknown}: what was counted then began before {iso_utc(self.horizon)}, the oldest kept event"


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
    oldest_day = await _oldest_day(connection)
    if oldest_day is not None and await connection.fetchval(_HAS_OUTCOME, oldest_day, oldest_day + _DAY, at):
        return
    horizon = await _find_horizon(connection, oldest_day)
    if horizon is None or at < horizon:
        raise HorizonError(at, horizon)


async def check_count(connection: Connection, at: datetime, since: datetime) -> None:
    """Make sure that no outcome is missing from an instant up to another, at which the log does reach.

    Raises:
        HorizonError: one may be.

    """
    oldest_day = await _oldest_day(connection)
    if oldest_day is not None and since >= oldest_day:
        return
    if await connection.fetchval(_HAD_OUTCOMES_BEFORE, oldest_day or at):
        raise HorizonError(at, await _oldest_outcome(connection, oldest_day))


async def _find_horizon(connection: Connection, oldest_day: datetime | None) -> datetime | None:
    """Give the oldest kept event from which on nothing is missing; None if there is none."""
    outcome = await _oldest_outcome(connection, oldest_day)
    transition: datetime | None = await connection.fetchval(_OLDEST_TRANSITION)
    if transition is None or (outcome is not None and outcome <= transition):
        return outcome
    is_cut = await connection.fetchval(_HAD_OUTCOMES_BEFORE, oldest_day or datetime.now(UTC))
    return outcome if is_cut else transition


async def _oldest_outcome(connection: Connection, oldest_day: datetime | None) -> datetime | None:
    if oldest_day is None:
        return None
    oldest: datetime | None = await connection.fetchval(_OLDEST_OUTCOME, oldest_day, oldest_day + _DAY)
    return oldest


async def _oldest_day(connection: Connection) -> datetime | None:
    """Give the beginning of the first day of which outcomes are kept; None if there is no outcome."""
    for row in await connection.fetch(_DAYS):
        begin = datetime.combine(row["day"], datetime.min.time(), UTC)
        if await connection.fetchval(_HAS_OUTCOME, begin, begin + _DAY, begin + _DAY):
            return begin
    return None
