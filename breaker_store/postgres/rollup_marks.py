"""Which roll-ups are to be counted: marks, made of what is new in the ledger.

The ledger tells of every batch which transaction wrote it. What this moment sees and the moment of the last marking did
not is new, in whatever order transactions ended; each new batch names the span of time that it touches, and the minutes,
hours and days in it are marked. Marks and the moment are stored in one transaction: killed at any time, nothing is lost,
and marking twice is harmless.

A mark is deleted in the transaction that counts its roll-up. A batch that came after that count was not seen by the last
marking either, so it marks again.

All of it is done by who holds the row of the progress, which no append ever waits for. Who finds it taken passes on.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from breaker_store.core.buckets import Bucket
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.rollups import NUMBERS

_PROGRESS: Final = """
SELECT snapshot::text AS snapshot, server_id,
    (SELECT system_identifier FROM pg_control_system()) AS present_server_id
FROM rollup_progress
FOR UPDATE OF rollup_progress SKIP LOCKED
"""

# From the first snapshot's oldest transaction on, by the index. What a restored dump has from another server may be of
# numbers that this one has yet to come to; it was marked when the server was found to be another.
_NEW: Final = """
    xid >= pg_snapshot_xmin($2::text::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, $2::text::pg_snapshot)
        AND xid < pg_snapshot_xmax(pg_current_snapshot())
"""

# Spans that overlap are merged first: each batch of an import may span days. Only days that have outcomes are marked: old
# imports leave years between two of them.
_MARK: Final = """
WITH span AS (
    SELECT unnest(range_agg(tstzrange(
        date_trunc('minute', earliest, 'UTC'), date_trunc('minute', latest, 'UTC') + interval '1 minute'
    ))) AS span
    FROM writer_batches
    WHERE {new}
),
day AS (
    SELECT tstzrange(begin, begin + interval '1 day') AS span
    FROM pg_inherits
    JOIN pg_class ON pg_class.oid = inhrelid
    CROSS JOIN LATERAL (SELECT to_date(right(relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' AS begin) AS begins
    WHERE inhparent = 'breaker_outcomes'::regclass AND NOT inhdetachpending
),
minute AS MATERIALIZED (
    SELECT generate_series(lower(piece), upper(piece) - interval '1 minute', interval '1 minute') AS started_at
    FROM (SELECT span.span * day.span AS piece FROM span JOIN day ON span.span && day.span) AS pieces
),
marked AS (
    INSERT INTO rollup_marks (bucket, started_at)
    SELECT {minute}, started_at FROM minute
    UNION ALL SELECT DISTINCT {hour}, date_trunc('hour', started_at, 'UTC') FROM minute
    UNION ALL SELECT DISTINCT {day}, date_trunc('day', started_at, 'UTC') FROM minute
    ON CONFLICT DO NOTHING
)
UPDATE rollup_progress SET snapshot = pg_current_snapshot(), server_id = $1
"""

_NUMBERS: Final = {bucket.value: number for bucket, number in NUMBERS.items()}
MARK_NEW: Final = _MARK.format(new=_NEW, **_NUMBERS)
MARK_ALL: Final = _MARK.format(new="true", **_NUMBERS)

_DUE: Final = """
SELECT started_at FROM rollup_marks WHERE bucket = $1 AND started_at <= $2 ORDER BY started_at LIMIT $3
"""

_DELETE: Final = "DELETE FROM rollup_marks WHERE bucket = $1 AND started_at >= $2 AND started_at < $3"


class ProgressTakenError(Exception):
    """Another process rolls up, erases a person, or drops a day."""


async def mark(connection: Connection) -> None:
    """Mark the roll-ups that have new events.

    Everything is marked at first, and when the server is another one than before, since a dump was restored there.

    Raises:
        ProgressTakenError: another process is at it.

    """
    async with connection.transaction():
        progress = await connection.fetchrow(_PROGRESS)
        if progress is None:
            raise ProgressTakenError
        server_id = progress["present_server_id"]
        if progress["snapshot"] is None or progress["server_id"] != server_id:
            await connection.execute(MARK_ALL, server_id)
        else:
            await connection.execute(MARK_NEW, server_id, progress["snapshot"])


async def hold(connection: Connection) -> None:
    """Lock the row of the progress until the end of the transaction.

    Raises:
        ProgressTakenError: another process has it.

    """
    if await connection.fetchrow(_PROGRESS) is None:
        raise ProgressTakenError


async def next_due(
    connection: Connection, bucket: Bucket, now: datetime, limit: int
) -> tuple[datetime, datetime] | None:
    """Give begin and end of the oldest marked roll-ups that are over: at most `limit`, without a gap, of one UTC day."""
    rows = await connection.fetch(_DUE, NUMBERS[bucket], now - bucket.length, limit)
    if not rows:
        return None
    begin = end = rows[0]["started_at"]
    midnight = begin.replace(hour=0, minute=0) + timedelta(days=1)
    for row in rows:
        if row["started_at"] != end or end == midnight:
            break
        end += bucket.length
    return begin, end


async def delete_marks(connection: Connection, bucket: Bucket, begin: datetime, end: datetime) -> None:
    await connection.execute(_DELETE, NUMBERS[bucket], begin, end)
