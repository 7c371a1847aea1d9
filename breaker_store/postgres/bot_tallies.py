"""What the outcomes of one bot add up to, bucket by bucket: from the roll-ups as far as they are final, else from its events.

The bucket that runs, or has just ended, is put together from finer ones that are final, and from the events since: so
a day costs little to tell of also shortly before its end; and of 45,000 calls in a quarter of an hour the health is told in
11 ms instead of 560. Events are counted within Postgres, in the order in which
`core.health.tally` adds them up, and to the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from breaker_store.core.buckets import Bucket, Span, join
from breaker_store.core.health import WEIGHT, Tally
from breaker_store.core.histogram import BUCKET_BEGINS_US, COUNT_BITS, Histogram
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.rolled_up import RolledUp
from breaker_store.postgres.rollups import TABLES
from breaker_store.postgres.rollups_sql import NEGLIGIBLE_AFTER, bounded, bucket_of_duration

Tallies = dict[int, Tally]
"""By where their buckets begin; a bucket without any outcome may be left out."""

_COUNTED: Final = "started_at, drops, successes, failures, refusals, duration_us, durations, error_types::text AS error_types"
_ORDERED: Final = {Bucket.MINUTE: ", weighted_us, weight_left, first_duration_us, failure_run"}
_ROWS: Final = {
    bucket: f"""
        SELECT {_COUNTED}{_ORDERED.get(bucket, "")} FROM {table}
        WHERE user_id = $1 AND started_at = ANY($2::timestamptz[])
        ORDER BY started_at, drops
    """
    for bucket, table in TABLES.items()
}

_NONE: Final[Mapping[str, int]] = {}

_EVENTS: Final = f"""
WITH outcome AS MATERIALIZED (
    SELECT
        bucket.started_at, kind, count, error_type, duration_us,
        count(*) FILTER (WHERE kind = 1) OVER newest_first AS successes_since,
        count(duration_us) OVER newest_first AS timed_since
    FROM unnest($2::timestamptz[], $3::timestamptz[]) AS span (since, until)
    CROSS JOIN LATERAL (
        SELECT occurred_at, writer_id, writer_seq, kind, count, error_type,
            CASE WHEN kind <> 3 THEN duration_us END AS duration_us
        FROM breaker_outcomes
        WHERE user_id = $1 AND occurred_at >= span.since AND occurred_at < span.until AND kind IN (1, 2, 3)
        OFFSET 0  -- a fence: each span opens its own days
    ) AS event
    CROSS JOIN LATERAL date_bin($4::interval, occurred_at, timestamptz '2000-01-01 00:00:00+00') AS bucket (started_at)
    WINDOW newest_first AS (
        PARTITION BY bucket.started_at ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC
        ROWS UNBOUNDED PRECEDING
    )
), timed AS (
    SELECT started_at, array_agg((bucket << {COUNT_BITS}) + calls ORDER BY bucket) AS durations
    FROM (
        SELECT started_at, ({bucket_of_duration("$5")})::bigint AS bucket, count(*) AS calls
        FROM outcome
        WHERE duration_us IS NOT NULL
        GROUP BY started_at, bucket
    ) AS counted
    GROUP BY started_at
), mistaken AS (
    SELECT started_at, jsonb_object_agg(error_type, failures) AS error_types
    FROM (
        SELECT started_at, error_type, count(*) AS failures
        FROM outcome
        WHERE kind = 2 AND error_type IS NOT NULL
        GROUP BY started_at, error_type
    ) AS counted
    GROUP BY started_at
)
SELECT
    started_at,
    count(*) FILTER (WHERE kind = 1) AS successes,
    count(*) FILTER (WHERE kind = 2) AS failures,
    coalesce(sum(coalesce(count, 1)) FILTER (WHERE kind = 3), 0)::bigint AS refusals,
    {bounded("sum(duration_us)")}::bigint AS duration_us,
    (SELECT durations FROM timed WHERE timed.started_at = outcome.started_at) AS durations,
    (SELECT error_types FROM mistaken WHERE mistaken.started_at = outcome.started_at) AS error_types,
    coalesce(sum({WEIGHT}::float8 * power({1 - WEIGHT}::float8, least(timed_since - 1, {NEGLIGIBLE_AFTER})) * duration_us), 0) AS weighted_us,
    power({1 - WEIGHT}::float8, least(count(duration_us), {NEGLIGIBLE_AFTER})) AS weight_left,
    (max(ARRAY[timed_since, duration_us]) FILTER (WHERE duration_us IS NOT NULL))[2] AS first_duration_us,
    count(*) FILTER (WHERE kind = 2 AND successes_since = 0) AS failure_run
FROM outcome
GROUP BY started_at
"""


class BotTallies:
    """Adds up a bot's outcomes; `rolled_up` was read within the same transaction, and of all that is asked for."""

    def __init__(self, connection: Connection, user_id: int, rolled_up: RolledUp) -> None:
        self._connection = connection
        self._user_id = user_id
        self._rolled_up = rolled_up

    async def read(self, bucket: Bucket, span: Span) -> Tallies:
        """Add up by the buckets of which a span is made."""
        return await self.read_each(bucket, span.starts(bucket), self._rolled_up.open_starts(bucket, span))

    async def read_each(self, bucket: Bucket, starts: Iterable[int], open_starts: Sequence[int]) -> Tallies:
        """Add up buckets; those of them that roll-ups do not tell, or no longer truly, are named apart."""
        tallies = await self._read_rows(bucket, starts, set(open_starts))
        _add(tallies, bucket, await self._read_open(bucket, open_starts))
        return tallies

    async def _read_open(self, bucket: Bucket, starts: Sequence[int]) -> Tallies:
        whole = [start for start in starts if not self._is_better_parted(bucket, start)]
        tallies = await self._count_events(bucket, list(join(bucket, whole)))
        for start in starts:
            if bucket.finer is not None and self._is_better_parted(bucket, start):
                parts = await self.read(bucket.finer, Span(start, start + bucket.length_us))
                _add(tallies, bucket, parts)
        return tallies

    async def _read_rows(self, bucket: Bucket, starts: Iterable[int], open_starts: set[int]) -> Tallies:
        """Read what is final, and what was counted of outcomes that have been dropped since."""
        drops_of = self._rolled_up.drops_of
        told = [to_datetime(start) for start in starts if start not in open_starts or drops_of(start)]
        tallies: Tallies = {}
        for row in await self._connection.fetch(_ROWS[bucket], self._user_id, told) if told else ():
            start = microseconds(row["started_at"])
            if start not in open_starts or row["drops"] < drops_of(start):
                _add(tallies, bucket, {start: read_tally(row)})
        return tallies

    def _is_better_parted(self, bucket: Bucket, start: int) -> bool:
        """Tell whether finer buckets are final of one that isn't: of the one that runs, and the one before it."""
        rolled_up = self._rolled_up
        is_recent = start + 2 * bucket.length_us > rolled_up.now
        return (
            bucket.finer is not None and rolled_up.has_begun and is_recent and not rolled_up.drops_of(start)
        )

    async def _count_events(self, bucket: Bucket, spans: Sequence[Span]) -> Tallies:
        begins = [to_datetime(span.begin) for span in spans]
        ends = [to_datetime(span.end) for span in spans]
        if not spans:
            return {}
        length = timedelta(microseconds=bucket.length_us)
        rows = await self._connection.fetch(_EVENTS, self._user_id, begins, ends, length, BUCKET_BEGINS_US)
        return {microseconds(row["started_at"]): read_tally(row) for row in rows}


def _add(tallies: Tallies, bucket: Bucket, parts: Tallies) -> None:
    """Add what may be finer, in the order of time."""
    for start in sorted(parts):
        whole = bucket.begin(start)
        tallies[whole] = tallies[whole] + parts[start] if whole in tallies else parts[start]


def read_tally(row: Mapping[str, Any]) -> Tally:
    """Read a row of roll-ups; an hour's or a day's tells nothing that depends on the order of the outcomes."""
    tally = Tally(
        successes=row["successes"],
        failures=row["failures"],
        refusals=row["refusals"],
        duration_us=row["duration_us"],
        durations=Histogram.unpack(row["durations"] or ()),
        error_types=_read_error_types(row["error_types"]),
    )
    if "weight_left" not in row:
        return tally
    return replace(
        tally,
        weighted_us=row["weighted_us"],
        weight_left=row["weight_left"],
        first_duration_us=row["first_duration_us"],
        failure_run=row["failure_run"],
    )


def _read_error_types(document: Any) -> Mapping[str, int]:
    """Read how many there were of each; a connection may have parsed it already."""
    parsed: Mapping[str, int] | None = json.loads(document) if isinstance(document, str) else document
    return parsed or _NONE
