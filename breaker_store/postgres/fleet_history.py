"""How all bots were together, bucket by bucket, as far as the roll-ups have counted: events of a whole fleet are not read.

The bucket that runs is put together from finer ones, up to the last minute that was counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.buckets import Bucket, Span
from breaker_store.core.health import Tally
from breaker_store.postgres.bot_tallies import read_tally
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.explaining_sql import NOW
from breaker_store.postgres.health_history import (
    FIGURES_AS_JSON,
    NOTHING_KNOWN,
    Coverage,
    HistoryItem,
    HistoryRange,
    figures,
    read_item,
    write_figures,
    write_item,
)
from breaker_store.postgres.reading import driver_connection_of
from breaker_store.postgres.rolled_up import RolledUp, read_rolled_up
from breaker_store.postgres.rollups import NUMBERS

_FIGURES: Final = f"""
SELECT started_at, bots, row_to_json(figures)::text FROM fleet_rollups {FIGURES_AS_JSON}
WHERE bucket = $1 AND started_at >= $2 AND started_at < $3
"""

_ROWS: Final = """
SELECT started_at, successes, failures, refusals, duration_us, durations, error_types::text AS error_types FROM fleet_rollups
WHERE bucket = $1 AND started_at = ANY($2::timestamptz[])
ORDER BY started_at, drops
"""


_NOTHING_KNOWN: Final = write_figures(NOTHING_KNOWN)
_NO_CALLS: Final = write_figures(figures(Tally()))


@dataclass(slots=True)
class FleetHistoryItem(HistoryItem):
    """One bucket of a fleet's history.

    Attributes:
        bots: how many had an outcome in it; None if that is not counted yet.

    """

    bots: int | None


class _Counted(NamedTuple):
    """What was counted in a bucket."""

    figures: str = _NO_CALLS
    bots: int | None = 0


async def fleet_history(
    connection: AsyncConnection | Connection, wanted: HistoryRange
) -> list[FleetHistoryItem]:
    """Tell how all bots were together, oldest bucket first.

    Raises:
        HistoryRangeError: there are too many buckets.

    """
    return [read_item(FleetHistoryItem, text) for text in await fleet_history_texts(connection, wanted)]


async def fleet_history_texts(connection: AsyncConnection | Connection, wanted: HistoryRange) -> list[str]:
    """Tell the same, each item as a JSON text."""
    driver_connection = await driver_connection_of(connection)
    now = microseconds(await driver_connection.fetchval(NOW))
    span, bucket = wanted.span(now), wanted.bucket
    rolled_up = await read_rolled_up(driver_connection, now, span)
    counted = await _read_counted(driver_connection, bucket, span)
    if bucket.begin(now) in span.starts(bucket):
        running = await _read_running(driver_connection, bucket, now)
        counted |= {start: _Counted(write_figures(figures(tally)), None) for start, tally in running.items()}
    return [_item(bucket, start, counted, rolled_up) for start in span.starts(bucket)]


async def _read_counted(connection: Connection, bucket: Bucket, span: Span) -> dict[int, _Counted]:
    """Read what is of the buckets of a span; most are one row, and need no histogram."""
    counted: dict[int, _Counted] = {}
    parted: list[int] = []
    times = to_datetime(span.begin), to_datetime(span.end)
    for started_at, bots, told in await connection.fetch(_FIGURES, NUMBERS[bucket], *times):
        start = microseconds(started_at)
        if start in counted:
            parted.append(start)
        counted[start] = _Counted(told, bots)
    # Who had outcomes of both kinds, dropped ones and late ones, is not known.
    tallies = await _read_tallies(connection, bucket, parted)
    return counted | {
        start: _Counted(write_figures(figures(tally)), None) for start, tally in tallies.items()
    }


async def _read_tallies(connection: Connection, bucket: Bucket, starts: Sequence[int]) -> dict[int, Tally]:
    """Add up the rows of each of these buckets."""
    tallies: dict[int, Tally] = {}
    times = [to_datetime(start) for start in starts]
    for row in await connection.fetch(_ROWS, NUMBERS[bucket], times) if starts else ():
        start = microseconds(row["started_at"])
        tallies[start] = tallies.get(start, Tally()) + read_tally(row)
    return tallies


async def _read_running(connection: Connection, bucket: Bucket, now: int) -> dict[int, Tally]:
    """Put the bucket that runs together from finer ones; a minute has none."""
    if bucket.finer is None:
        return {}
    start = bucket.begin(now)
    parts = await _read_tallies(connection, bucket.finer, range(start, now, bucket.finer.length_us))
    parts |= await _read_running(connection, bucket.finer, now)
    return {start: sum(parts.values(), start=Tally())}


def _item(bucket: Bucket, start: int, counted: Mapping[int, _Counted], rolled_up: RolledUp) -> str:
    found = counted.get(start)
    if rolled_up.was_dropped(bucket, start) and (found is None or rolled_up.drops_of(start)):
        # A row that came since is of late outcomes alone, unless the others are there to be counted with them.
        coverage, found = Coverage.NOT_KEPT, None
    elif rolled_up.is_counted(bucket, start):
        coverage, found = Coverage.COMPLETE, found or _Counted()
    else:
        is_running = rolled_up.has_begun and start + bucket.length_us > rolled_up.now
        coverage = Coverage.RUNNING if is_running else Coverage.PENDING
    told, bots = (_NOTHING_KNOWN, None) if found is None else found
    return f'{write_item(start, coverage, told)[:-1]},"bots":{"null" if bots is None else bots}}}'
