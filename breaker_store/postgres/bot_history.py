"""How one bot was, bucket by bucket, as far as anything is kept that tells.

An answer has hundreds of buckets, and nearly all are one row of the roll-ups: their items are written by Postgres, as
they are sent. The others are added up here: those that are not counted yet, and those of which there are several rows, since
outcomes of a day that had been dropped came late.
"""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.buckets import Bucket, Span
from breaker_store.core.health import Tally
from breaker_store.errors import UnknownBreakerError
from breaker_store.postgres.bot_tallies import BotTallies
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.health_history import (
    FIGURES_AS_JSON,
    NOTHING_KNOWN,
    Coverage,
    HistoryItem,
    HistoryRange,
    figures,
    make_figures,
    read_item,
    write_figures,
    write_item,
)
from breaker_store.postgres.reading import driver_connection_of
from breaker_store.postgres.rolled_up import RolledUp, read_rolled_up
from breaker_store.postgres.rollups import TABLES

_NOW_IF_KNOWN: Final = "SELECT clock_timestamp() WHERE EXISTS (SELECT FROM breaker_states WHERE user_id = $1)"

_WITHIN: Final = "WHERE user_id = $1 AND started_at >= $2 AND started_at < $3"

ROWS: Final = {
    Bucket.MINUTE: f"""
        SELECT started_at, successes, failures, refusals, duration_us, durations, error_types::text AS error_types
        FROM minute_rollups {_WITHIN}
    """,
    **{
        bucket: f"SELECT started_at, row_to_json(figures)::text FROM {TABLES[bucket]} {FIGURES_AS_JSON} {_WITHIN}"
        for bucket in (Bucket.HOUR, Bucket.DAY)
    },
}
"""The roll-ups of a bot within a time; the quantiles of minutes are not stored."""

_NO_CALLS: Final = write_figures(figures(Tally()))
_NOT_KEPT: Final = write_figures(NOTHING_KNOWN)


async def bot_history(
    connection: AsyncConnection | Connection, user_id: int, wanted: HistoryRange
) -> list[HistoryItem]:
    """Tell how a bot was, bucket by bucket, oldest first.

    Raises:
        UnknownBreakerError: nothing is stored of this user.
        HistoryRangeError: there are too many buckets.

    """
    return [read_item(HistoryItem, text) for text in await bot_history_texts(connection, user_id, wanted)]


async def bot_history_texts(
    connection: AsyncConnection | Connection, user_id: int, wanted: HistoryRange
) -> list[str]:
    """Tell the same, each item as a JSON text."""
    driver_connection = await driver_connection_of(connection)
    time = await driver_connection.fetchval(_NOW_IF_KNOWN, user_id)
    if time is None:
        raise UnknownBreakerError(user_id)
    now = microseconds(time)
    bucket, span = wanted.bucket, wanted.span(now)
    rolled_up = await read_rolled_up(driver_connection, now, span)
    known = await _read_figures(driver_connection, user_id, bucket, span, rolled_up)
    running = bucket.begin(now)
    return [
        write_item(
            start, Coverage.COMPLETE if start < running else Coverage.RUNNING, known.get(start, _NO_CALLS)
        )
        if rolled_up.is_kept(bucket, start)
        else write_item(start, Coverage.NOT_KEPT, _NOT_KEPT)
        for start in span.starts(bucket)
    ]


async def _read_figures(
    connection: Connection, user_id: int, bucket: Bucket, span: Span, rolled_up: RolledUp
) -> dict[int, str]:
    """Give the figures of each bucket that has any, as JSON."""
    times = to_datetime(span.begin), to_datetime(span.end)
    known: dict[int, str] = {}
    open_starts = rolled_up.open_starts(bucket, span)
    apart = set(open_starts)
    for started_at, *told in await connection.fetch(ROWS[bucket], user_id, *times):
        start = microseconds(started_at)
        if start in known:
            apart.add(start)
        known[start] = _write_minute(*told) if bucket is Bucket.MINUTE else told[0]
    tallies = await BotTallies(connection, user_id, rolled_up).read_each(bucket, sorted(apart), open_starts)
    for start in apart:
        known[start] = write_figures(figures(tallies.get(start, Tally())))
    return known


def _write_minute(*told: Any) -> str:
    successes, failures, refusals, duration_us, durations, error_types = told
    types = json.loads(error_types or "{}")
    return write_figures(make_figures(successes, failures, refusals, duration_us, durations, types))
