"""What is measured of a database whose days are known."""

from __future__ import annotations

import asyncpg
import pytest

from breaker_store.core.retention import Kept
from breaker_store.core.storage import Part
from breaker_store.postgres.storage import database_bytes, measure
from tests.postgres.upkeep import keep

# On each of the last three whole days a thousand events, in ten batches.
FILL = """
SELECT ensure_outcome_partitions((now() AT TIME ZONE 'UTC')::date - 3, (now() AT TIME ZONE 'UTC')::date + 1);
INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind, verdict)
SELECT midnight - ago * interval '1 day' + number * interval '1 second', number, ago, number, 0, 0, 1, 0
FROM generate_series(1, 3) AS ago, generate_series(1, 1000) AS number,
    (SELECT date_trunc('day', now(), 'UTC') AS midnight) AS today;
INSERT INTO writer_batches
    (writer_id, batch_no, first_seq, last_seq, event_count, format, source, digest, previous_digest, earliest, latest)
SELECT ago, number, 100 * number - 99, 100 * number, 100, 1, 0, sha256('any'),
    CASE WHEN number > 1 THEN sha256('any') END, at, at
FROM generate_series(1, 3) AS ago, generate_series(1, 10) AS number,
    LATERAL (SELECT date_trunc('day', now(), 'UTC') - ago * interval '1 day' + number * interval '1 minute' AS at) AS batch;
INSERT INTO fleet_rollups (bucket, started_at, drops, bots, successes, failures, refusals, duration_us, timed_calls, durations)
SELECT 2, date_trunc('day', now(), 'UTC') - ago * interval '1 day', 0, CASE ago WHEN 30 THEN 3000 ELSE 1000 END,
    1000, 0, 0, 0, 0, '{}'
FROM unnest(ARRAY[1, 2, 3, 30]) AS ago;
INSERT INTO day_rollups (started_at, user_id, refusals, duration_us, timed_calls, successes, failures, drops, durations)
SELECT started_at, user_id, 0, 0, 0, 1, 0, 0, '{}' FROM fleet_rollups, generate_series(1, bots) AS user_id;
"""


async def test_growth_is_that_of_the_last_whole_days(
    owner: asyncpg.Connection, connection: asyncpg.Connection
) -> None:
    await owner.execute(FILL)
    await keep(owner, "outcomes", 30)
    found = await measure(connection)
    parts = {part.name: part for part in found.parts}
    assert (found.outcomes, found.days_measured, found.events_a_day) == (3_000, 3, 1_000)
    outcomes = await owner.fetchval(
        "SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_partition_tree('breaker_outcomes')"
    )
    assert parts["outcomes"].bytes == outcomes
    assert 0 < parts["outcomes"].bytes_a_day <= outcomes / 3
    assert found.table_bytes is not None
    assert found.index_bytes is not None
    assert (found.table_bytes + found.index_bytes) * 1_000 == pytest.approx(parts["outcomes"].bytes_a_day)
    assert parts["outcomes"].keep_days == 30
    days = parts[Kept.DAYS.value]
    assert days == Part("days", days.bytes, pytest.approx(days.bytes / 6), None)
    assert days.bytes > 6_000 * 60
    ledger = parts["ledger"]
    assert ledger.bytes_a_day == pytest.approx(ledger.bytes / 3)
    assert found.ledger_bytes == pytest.approx(ledger.bytes / 3_000)
    assert found.bytes < await database_bytes(connection)


async def test_counted_rows_go_by_what_is_there_once_autovacuum_has_counted(
    owner: asyncpg.Connection, connection: asyncpg.Connection
) -> None:
    await owner.execute(FILL)
    await owner.execute("ANALYZE breaker_outcomes")
    assert (await measure(connection)).outcomes == 3_000
