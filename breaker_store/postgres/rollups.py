"""Roll-ups: what the outcomes of a minute, an hour or a day add up to, for each user and for the fleet.

A roll-up is never added to: it is counted anew from the events, as a whole, whenever a batch is found that has events of
its time (see `rollup_marks`). So it is exact whatever came late or twice, and a run that was broken off is begun again.
Hours and days are counted of the events as well, not of minutes, which may not be kept for as long.

Times are UTC. A roll-up is counted once it is over; what the present has is for the reader to count.

Once a day's outcomes are dropped, what was counted of them stays as it is. Events that come later for that day are counted
apart, in rows with a higher number of `drops`; whoever reads adds the rows up. Therefore whoever drops a day holds the row
of the progress (``SELECT FROM rollup_progress FOR UPDATE``) until it is recorded in `dropped_partitions`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from breaker_store.core.buckets import Bucket
from breaker_store.core.histogram import BUCKET_BEGINS_US
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.rollups_sql import count_statement

NUMBERS: Final = {Bucket.MINUTE: 0, Bucket.HOUR: 1, Bucket.DAY: 2}
"""What stands for each in the tables that have roll-ups, or marks, of all lengths."""

TABLES: Final = {bucket: f"{bucket}_rollups" for bucket in Bucket}
"""Where the users' roll-ups of each length are."""

COUNT: Final = {
    bucket: count_statement(TABLES[bucket], NUMBERS[bucket], in_order=bucket is Bucket.MINUTE)
    for bucket in Bucket
}

# A minute is found by the index on time, whatever the statistics of a new day say; each plan is for its own day.
SETTINGS: Final = """
SET LOCAL work_mem = '64MB';
SET LOCAL plan_cache_mode = force_custom_plan;
SET LOCAL enable_seqscan = off;
"""

_DAY: Final = """
SELECT
    EXISTS (
        SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'breaker_outcomes'::regclass AND NOT inhdetachpending
            AND relname = 'breaker_outcomes_' || to_char($1::date, 'YYYYMMDD')
    ) AS is_there,
    coalesce((SELECT max(drops) FROM dropped_partitions WHERE day = $1), 0) AS drops
"""


async def count(connection: Connection, bucket: Bucket, begin: datetime, end: datetime) -> int:
    """Count the roll-ups from one time to another, which lie in one UTC day; tell how many rows that changed.

    The connection is in a transaction that holds the row of the progress, and has the partitions that it needs. Where the
    day's outcomes are not there nothing is changed.
    """
    day = await connection.fetchrow(_DAY, begin.date())
    if day is None or not day["is_there"]:
        return 0
    await connection.execute(SETTINGS)
    changed: int = await connection.fetchval(
        COUNT[bucket], begin, end, day["drops"], BUCKET_BEGINS_US, bucket.length
    )
    return changed


async def ensure_partitions(connection: Connection, begin: datetime, end: datetime) -> None:
    """Have the partitions made that roll-ups of this span need; outside a transaction, so that they outlive it."""
    last = (end - timedelta(microseconds=1)).date()
    await connection.execute("SELECT ensure_rollup_partitions($1, $2)", begin.date(), last)
