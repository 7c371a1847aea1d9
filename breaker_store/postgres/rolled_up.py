"""What the roll-ups have counted so far: which of their buckets are what a recount of the events would give.

A bucket is final if it is over, the roll-ups have read the ledger since, and no batch that they have not read yet brings
something for it. What is not final is counted from the events, so that an answer is exact at any moment, whether the
roll-ups run or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import asyncpg

from breaker_store.core.buckets import Bucket, Span
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.rollups import NUMBERS, TABLES

_BUCKETS: Final = {number: bucket for bucket, number in NUMBERS.items()}

# A snapshot means nothing on another server than the one that it was taken on.
_PROGRESS: Final = """
SELECT snapshot::text AS snapshot, pg_snapshot_xmin(snapshot)::text AS oldest
FROM rollup_progress
JOIN pg_control_system() AS server ON server_id = server.system_identifier
WHERE snapshot IS NOT NULL
"""

# As `rollup_marks` finds them. The limit is a value, not a look-up, so that the planner sees how little of the ledger it
# leaves.
_UNREAD: Final = """
SELECT lower(span) AS begin, upper(span) AS end
FROM (
    SELECT unnest(range_agg(tstzrange(earliest, latest, '[]'))) AS span
    FROM writer_batches
    WHERE xid >= $2::text::xid8 AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
        AND xid < pg_snapshot_xmax(pg_current_snapshot())
) AS unread
"""

# In one statement, since each costs a journey. Partitions are known by their names, as the days of the outcomes are.
_NOTES: Final = """
SELECT 'mark' AS of, bucket AS number, started_at AS at, NULL AS name
FROM rollup_marks WHERE started_at >= $1 AND started_at < $2
UNION ALL
SELECT 'drop', max(drops), day::timestamp AT TIME ZONE 'UTC', NULL
FROM dropped_partitions WHERE day BETWEEN $3 AND $4 GROUP BY day
UNION ALL
SELECT kind, last_day - first_day + 1, first_day::timestamp AT TIME ZONE 'UTC', NULL
FROM dropped_rollups WHERE first_day <= $4 AND last_day >= $3
UNION ALL
SELECT parent.relname, NULL, NULL, substring(child.relname FROM '[0-9]+$')
FROM pg_inherits
JOIN pg_class AS parent ON parent.oid = inhparent
JOIN pg_class AS child ON child.oid = inhrelid
WHERE inhparent IN ('minute_rollups'::regclass, 'hour_rollups'::regclass) AND NOT inhdetachpending
"""

_DROPPED: Final = {"minutes": Bucket.MINUTE, "hours": Bucket.HOUR, "days": Bucket.DAY}
_NAMES: Final = {Bucket.MINUTE: "%Y%m%d", Bucket.HOUR: "%Y%m"}


@dataclass(frozen=True, slots=True)
class RolledUp:
    """What the roll-ups have counted of a span of time, and how long ago.

    Attributes:
        now: by the database's clock.
        has_begun: whether they have counted anything yet.
        unread: of when the batches tell that they have not read yet.
        marks: the buckets that they have still to count.
        drops: how often the outcomes of a UTC day were dropped, by where the day begins.
        partitions: of which days there are minutes, and of which months hours.
        dropped: of which days roll-ups were dropped: what is there of them since is only what came late.

    """

    now: int
    has_begun: bool
    unread: tuple[Span, ...]
    marks: frozenset[tuple[Bucket, int]]
    drops: Mapping[int, int]
    partitions: frozenset[tuple[str, str]]
    dropped: tuple[tuple[Bucket, Span], ...] = ()

    def is_counted(self, bucket: Bucket, start: int) -> bool:
        """Tell whether the roll-ups have counted all of a bucket."""
        span = Span(start, start + bucket.length_us)
        return (
            self.has_begun
            and span.end <= self.now
            and (bucket, start) not in self.marks
            and not any(span.overlaps(unread) for unread in self.unread)
        )

    def open_starts(self, bucket: Bucket, span: Span) -> list[int]:
        """Give where the buckets begin of which a bot's rows may not be what its events add up to; no row says nothing."""
        starts = span.starts(bucket)
        if not self.has_begun:
            return list(starts)
        doubtful = [
            Span(bucket.begin(self.now), span.end),
            *self.unread,
            *self._days_without_rows(bucket, span),
        ]
        found = {start for marked, start in self.marks if marked is bucket and start in starts}
        for each in doubtful:
            first = max(span.begin, bucket.begin(each.begin))
            found.update(range(first, min(span.end, each.end), bucket.length_us))
        return sorted(found)

    def _days_without_rows(self, bucket: Bucket, span: Span) -> Iterator[Span]:
        for day in Span(Bucket.DAY.begin(span.begin), span.end).starts(Bucket.DAY):
            if not self.has_rows(bucket, day):
                yield Span(day, day + Bucket.DAY.length_us)

    def is_kept(self, bucket: Bucket, start: int) -> bool:
        """Tell whether anything is left that tells of a bucket, or would if something had happened."""
        return not self.drops_of(start) or self.has_rows(bucket, start)

    def drops_of(self, start: int) -> int:
        return self.drops.get(Bucket.DAY.begin(start), 0)

    def was_dropped(self, bucket: Bucket, start: int) -> bool:
        """Tell whether the roll-ups of a bucket's day were dropped."""
        return any(bucket is dropped and span.begin <= start < span.end for dropped, span in self.dropped)

    def has_rows(self, bucket: Bucket, start: int) -> bool:
        """Tell whether the rows of a bucket's day are there, all of them."""
        if self.was_dropped(bucket, start):
            return False
        if bucket not in _NAMES:
            return True
        return (TABLES[bucket], f"{to_datetime(start):{_NAMES[bucket]}}") in self.partitions


async def read_rolled_up(connection: Connection, now: int, span: Span) -> RolledUp:
    """Read what the roll-ups know of a span, and how far they are; within one transaction with what is then read."""
    progress = await connection.fetchrow(_PROGRESS)
    times = to_datetime(span.begin), to_datetime(span.end)
    unread = []
    if progress is not None:
        unread = await connection.fetch(_UNREAD, progress["snapshot"], progress["oldest"])
    notes = await connection.fetch(_NOTES, *times, *(each.date() for each in times))
    marks = [(row["number"], row["at"]) for row in notes if row["of"] == "mark"]
    return RolledUp(
        now=now,
        has_begun=progress is not None,
        unread=tuple(map(_read_span, unread)),
        marks=frozenset((_BUCKETS[number], microseconds(at)) for number, at in marks),
        drops={microseconds(row["at"]): row["number"] for row in notes if row["of"] == "drop"},
        dropped=tuple(_read_dropped(row) for row in notes if row["of"] in _DROPPED),
        partitions=frozenset((row["of"], row["name"]) for row in notes if row["name"] is not None),
    )


def _read_span(row: asyncpg.Record) -> Span:
    # The latest event is within it.
    return Span(microseconds(row["begin"]), microseconds(row["end"]) + 1)


def _read_dropped(row: asyncpg.Record) -> tuple[Bucket, Span]:
    begin = microseconds(row["at"])
    return _DROPPED[row["of"]], Span(begin, begin + row["number"] * Bucket.DAY.length_us)
