"""How much is stored, and how it grows: from the catalog and the ledger of the last days, not by counting everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any, Final

import asyncpg

from breaker_store.core.retention import Kept
from breaker_store.core.storage import Part, Storage
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.retention import RetentionPolicy, read_policies

DAYS_MEASURED: Final = 7

# By the density of the rows when they were last counted (by autovacuum), as the planner does; where they never were, by
# what the ledger says of the day.
_DAYS: Final = """
WITH leaf AS (
    SELECT
        pg_class.oid, to_date(right(relname, 8), 'YYYYMMDD') AS day, relpages, reltuples,
        pg_table_size(pg_class.oid) AS table_bytes, pg_indexes_size(pg_class.oid) AS index_bytes,
        pg_relation_size(pg_class.oid) / current_setting('block_size')::bigint AS pages
    FROM pg_inherits
    JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'breaker_outcomes'::regclass AND NOT inhdetachpending
)
SELECT
    day, table_bytes, index_bytes,
    CASE
        WHEN pages = 0 THEN 0
        WHEN relpages > 0 AND reltuples > 0 THEN round(reltuples / relpages * pages)::bigint
        ELSE ledger.events
    END AS outcomes,
    ledger.events, ledger.batches, history.bytes AS history_bytes,
    day >= today - $1::integer AND day < today AS is_recent, day = today AS is_today
FROM leaf
CROSS JOIN (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS today) AS now
CROSS JOIN LATERAL (
    SELECT coalesce(sum(event_count), 0)::bigint AS events, count(*) AS batches
    FROM writer_batches
    WHERE earliest >= day::timestamp AT TIME ZONE 'UTC' AND earliest < (day + 1)::timestamp AT TIME ZONE 'UTC'
        AND (day >= today - $1::integer OR reltuples <= 0) AND pages > 0
) AS ledger
CROSS JOIN LATERAL (
    SELECT coalesce(sum(pg_relation_size(indexrelid)), 0)::bigint AS bytes
    FROM pg_index
    JOIN pg_inherits AS part ON part.inhrelid = indexrelid
    WHERE indrelid = leaf.oid AND part.inhparent = 'breaker_outcomes_history'::regclass
) AS history
ORDER BY day
"""

_SIZES: Final = """
SELECT name, pg_total_relation_size(name::regclass) + (
    SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint
    FROM pg_inherits WHERE inhparent = name::regclass
) AS bytes
FROM unnest($1::text[]) AS name
"""

# Which share of all there is came in a span of time: of roll-ups by the bots of each, which are their rows.
_SHARES: Final = """
SELECT
    'writer_batches' AS name, count(*)::float8 AS recent,
    (
        SELECT CASE WHEN reltuples > 0 THEN reltuples::float8 ELSE (SELECT count(*) FROM writer_batches) END
        FROM pg_class WHERE oid = 'writer_batches'::regclass
    ) AS total
FROM writer_batches WHERE earliest >= $1 AND earliest < $2
UNION ALL
SELECT 'breaker_transitions', count(*), (SELECT last FROM log_position)
FROM breaker_transitions WHERE occurred_at >= $1 AND occurred_at < $2
UNION ALL
SELECT
    (ARRAY['minute_rollups', 'hour_rollups', 'day_rollups'])[bucket + 1],
    coalesce(sum(bots) FILTER (WHERE started_at >= $1 AND started_at < $2), 0), sum(bots)
FROM fleet_rollups GROUP BY bucket
"""

_NOW: Final = "SELECT clock_timestamp() AT TIME ZONE 'UTC'"
_MEMORY: Final = "SELECT pg_size_bytes(current_setting('shared_buffers'))"
_DATABASE: Final = "SELECT pg_database_size(current_database())"

# What is measured, by the name by which it is told.
_TABLES: Final = {
    "transitions": "breaker_transitions",
    "ledger": "writer_batches",
    "breakers": "breaker_states",
    Kept.MINUTES.value: "minute_rollups",
    Kept.HOURS.value: "hour_rollups",
    Kept.DAYS.value: "day_rollups",
    "roll-ups of the fleet": "fleet_rollups",
}


@dataclass(frozen=True, slots=True)
class _Days:
    """The days that have a partition, and the last ones, by which growth is measured."""

    every: list[asyncpg.Record]
    measured: list[asyncpg.Record]
    length: int
    since: datetime
    until: datetime

    def mean(self, column: str) -> float:
        total: int = sum(row[column] for row in self.measured)
        return total / max(self.length, 1)

    def per_event(self, column: str) -> float | None:
        events = sum(row["events"] for row in self.measured)
        return sum(row[column] for row in self.measured) / events if events else None


async def measure(connection: Connection) -> Storage:
    """Measure what is stored; takes long only where very many batches were never counted by autovacuum."""
    days = await _read_days(connection)
    sizes = {row["name"]: row["bytes"] for row in await connection.fetch(_SIZES, list(_TABLES.values()))}
    shares = {row["name"]: row for row in await connection.fetch(_SHARES, days.since, days.until)}
    policies = await read_policies(connection)
    outcomes = _outcomes_part(days, policies.get(Kept.OUTCOMES))
    parts = [outcomes, *_other_parts(days, sizes, shares, policies)]
    batches = shares["writer_batches"]
    return Storage(
        outcomes=sum(row["outcomes"] for row in days.every),
        events_a_day=days.mean("events"),
        days_measured=days.length,
        table_bytes=days.per_event("table_bytes"),
        index_bytes=days.per_event("index_bytes"),
        ledger_bytes=_ledger_bytes(days, sizes["writer_batches"], batches),
        history_bytes_a_day=days.mean("history_bytes"),
        shared_buffers=await connection.fetchval(_MEMORY),
        parts=parts,
    )


async def database_bytes(connection: Connection) -> int:
    """Tell what the whole database takes, whosever tables are in it."""
    taken: int = await connection.fetchval(_DATABASE)
    return taken


async def _read_days(connection: Connection) -> _Days:
    now: datetime = (await connection.fetchval(_NOW)).replace(tzinfo=UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    every = await connection.fetch(_DAYS, DAYS_MEASURED)
    recent = [row for row in every if row["is_recent"] and row["events"]]
    if not recent:
        return _Days(every, [row for row in every if row["is_today"]], 0, midnight, now)
    since = datetime.combine(recent[0]["day"], time(), UTC)
    return _Days(every, recent, (midnight - since).days, since, midnight)


def _outcomes_part(days: _Days, policy: RetentionPolicy | None) -> Part:
    taken = sum(row["table_bytes"] + row["index_bytes"] for row in days.every)
    growth = days.mean("table_bytes") + days.mean("index_bytes")
    return Part(Kept.OUTCOMES.value, taken, growth, None if policy is None else policy.keep_days)


def _other_parts(
    days: _Days, sizes: Mapping[str, int], shares: Mapping[str, Any], policies: Mapping[Kept, RetentionPolicy]
) -> Iterator[Part]:
    keep_days = {kind.value: policy.keep_days for kind, policy in policies.items()}
    for name, table in _TABLES.items():
        share = shares.get(table)
        recent, total = (0.0, 0.0) if share is None else (float(share["recent"]), float(share["total"] or 0))
        growth = sizes[table] * min(recent / total, 1.0) / max(days.length, 1) if total else 0.0
        yield Part(name, sizes[table], growth, keep_days.get(name))


def _ledger_bytes(days: _Days, taken: int, batches: Mapping[str, Any]) -> float | None:
    events = sum(row["events"] for row in days.measured)
    if not events or not batches["total"]:
        return None
    return float(taken * batches["recent"] / batches["total"] / events)
