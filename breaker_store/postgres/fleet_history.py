"""How all bots were together, bucket by bucket, as far as the roll-ups have counted: events of a whole fleet are not read.

The bucket that runs is put together from finer ones, up to the last minute that was counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.buckets import Bucket, Span
from breaker_store.core.health import Tally
from breaker_store.postgres.bot_tallies import read_tally
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.explaining_sql import NOW
from breaker_store.postgres.health_history import Coverage, HistoryItem, HistoryRange, figures
from breaker_store.postgres.reading import driver_connection_of
from breaker_store.postgres.rolled_up import LENGTHS, RolledUp, read_rolled_up

_ROWS: Final = """
SELECT started_at, bots, successes, failures, refusals, duration_us, durations, error_types FROM fleet_rollups
WHERE bucket = $1 AND started_at >= $2 AND started_at < $3
ORDER BY started_at, drops
"""


@dataclass(slots=True)
class FleetHistoryItem(HistoryItem):
    """One bucket of a fleet's history.

    Attributes:
        bots: how many had an outcome in it; None if that is not counted yet.

    """

    bots: int | None


class _Counted(NamedTuple):
    """What was counted in a bucket."""

    tally: Tally = Tally()
    bots: int | None = 0


async def fleet_history(connection: AsyncConnection, wanted: HistoryRange) -> list[FleetHistoryItem]:
    """Tell how all bots were together, oldest bucket first.

    Raises:
        HistoryRangeError: there are too many buckets.

    """
    driver_connection = await driver_connection_of(connection)
    now = microseconds(await driver_connection.fetchval(NOW))
    span, bucket = wanted.span(now), wanted.bucket
    rolled_up = await read_rolled_up(driver_connection, now, span)
    counted = await _read_rows(driver_connection, bucket, span)
    counted |= await _read_running(driver_connection, bucket, now, span)
    return [_item(bucket, start, counted, rolled_up) for start in span.starts(bucket)]


async def _read_rows(connection: Connection, bucket: Bucket, span: Span) -> dict[int, _Counted]:
    counted: dict[int, _Counted] = {}
    times = to_datetime(span.begin), to_datetime(span.end)
    for row in await connection.fetch(_ROWS, int(LENGTHS[bucket]), *times):
        start = microseconds(row["started_at"])
        before = counted.get(start)
        tally = read_tally(row)
        # Who had outcomes of both kinds, dropped ones and late ones, is not known.
        counted[start] = (
            _Counted(tally, row["bots"]) if before is None else _Counted(before.tally + tally, None)
        )
    return counted


async def _read_running(connection: Connection, bucket: Bucket, now: int, span: Span) -> dict[int, _Counted]:
    """Put the bucket that runs together from finer ones, if it is one of the span's."""
    start = bucket.begin(now)
    if bucket.finer is None or start not in span.starts(bucket):
        return {}
    running = Span(start, start + bucket.length_us)
    parts = await _read_rows(connection, bucket.finer, running)
    parts |= await _read_running(connection, bucket.finer, now, running)
    return {start: _Counted(sum((part.tally for part in parts.values()), start=Tally()), None)}


def _item(
    bucket: Bucket, start: int, counted: Mapping[int, _Counted], rolled_up: RolledUp
) -> FleetHistoryItem:
    found = counted.get(start)
    if rolled_up.was_dropped(bucket, start) and (found is None or rolled_up.drops_of(start)):
        # A row that came since is of late outcomes alone, unless the others are there to be counted with them.
        coverage, found = Coverage.NOT_KEPT, None
    elif rolled_up.is_counted(bucket, start):
        coverage, found = Coverage.COMPLETE, found or _Counted()
    else:
        is_running = rolled_up.has_begun and start + bucket.length_us > rolled_up.now
        coverage = Coverage.RUNNING if is_running else Coverage.PENDING
    tally, bots = (None, None) if found is None else found
    return FleetHistoryItem(to_datetime(start), coverage, *figures(tally), bots)
