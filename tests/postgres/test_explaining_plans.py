"""What `why` reads stays little, however much is stored: its statements open few days and read no more than they need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from pytest_postgresql.executors import NoopExecutor

from breaker_store.postgres import explaining_sql
from tests.conftest import make_template

from .test_plans import FILL, TRANSITIONS, UNSETTLE, days_read, explain, rows_read, scanned_whole

# An outage of a thousand breakers an hour ago, among what else they did, each with five failures kept.
OUTAGE = """
INSERT INTO breaker_events (
    occurred_at, user_id, writer_id, writer_seq, position, generation, era, version, kind, details, details_version
)
SELECT
    now() - interval '1 hour' + number * interval '10 milliseconds', 1000 + number % 1000, 4, number, 30000 + number, number, 7,
    1 + number / 1000, CASE WHEN number < 1000 THEN 10 ELSE 11 END,
    jsonb_build_object(
        'from', 'closed', 'causes', jsonb_build_array(jsonb_build_object('error_type', 'NetworkError')),
        'text', repeat('text ', 100)
    ), 1
FROM generate_series(0, 19999) AS number
"""


LINK = """
INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, position, generation, era, version, kind)
VALUES (now() - interval '30 days', 1000000, 9, $2::integer, 900000 + $2::integer, 1, 1, $2::integer, $1)
"""
REOPENINGS = """
INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, position, generation, era, version, kind)
SELECT now() - interval '30 days' + number * interval '30 seconds', 1000000, 9, number, 900000 + number, 1, 1, number,
    CASE WHEN number % 2 = 0 THEN 11 ELSE 10 END
FROM generate_series(4, 5000) AS number
"""
BY_VERSION = {"breaker_transitions_version", "breaker_transitions_endings"}


@pytest.fixture(scope="module")
def template(migrated_server: NoopExecutor) -> Iterator[str]:
    """Fill a log with weeks of outcomes and tens of thousands of transitions."""
    with make_template(migrated_server, FILL, UNSETTLE, TRANSITIONS, OUTAGE, "ANALYZE") as name:
        yield name


@pytest.fixture
async def outage_at(connection: asyncpg.Connection) -> datetime:
    return await connection.fetchval("SELECT occurred_at FROM breaker_transitions WHERE position = 30000")


@pytest.fixture(params=["force_custom_plan", "force_generic_plan"])
async def filled(
    connection: asyncpg.Connection, request: pytest.FixtureRequest
) -> AsyncIterator[asyncpg.Connection]:
    """Have statements explained as `why` runs them, with plans of both kinds."""
    await connection.execute(f"SET plan_cache_mode = {request.param}")
    async with connection.transaction():
        await connection.execute(explaining_sql.BY_INDEX)
        yield connection


async def test_the_last_success_is_found_within_the_last_days(filled: asyncpg.Connection) -> None:
    nodes = await explain(filled, explaining_sql.LAST_SUCCESS, 1, datetime.now(UTC))
    assert len(days_read(nodes)) <= 3
    assert rows_read(nodes, "breaker_outcomes") <= 5
    assert not scanned_whole(nodes)


async def test_the_first_event_is_found_within_the_first_days(filled: asyncpg.Connection) -> None:
    nodes = await explain(filled, explaining_sql.FIRST_EVENT, 1)
    assert len(days_read(nodes)) <= 3
    assert rows_read(nodes, "breaker_outcomes") <= 2


async def test_what_happened_since_opens_no_day_before(filled: asyncpg.Connection) -> None:
    now = datetime.now(UTC)
    nodes = await explain(filled, explaining_sql.OUTCOMES_AFTER, 1, now - timedelta(hours=2), now)
    assert len(days_read(nodes)) <= 2
    assert rows_read(nodes, "breaker_outcomes") < 10


async def test_of_endless_refusals_no_more_are_read_than_are_counted(
    filled: asyncpg.Connection,
) -> None:
    now = datetime.now(UTC)
    statement = explaining_sql.OUTCOMES_AFTER.replace(f"LIMIT {explaining_sql.OUTCOMES_LIMIT}", "LIMIT 500")
    nodes = await explain(filled, statement, 2, now - timedelta(days=15), now)
    assert 500 <= rows_read(nodes, "breaker_outcomes") <= 510


async def test_the_trips_around_are_read_by_time(filled: asyncpg.Connection, outage_at: datetime) -> None:
    window = outage_at - timedelta(minutes=5), outage_at + timedelta(minutes=5)
    nodes = await explain(filled, explaining_sql.AROUND, *window, 1_000, ["NetworkError"])
    assert {node["Index Name"] for node in nodes if "Index Name" in node} == {"breaker_transitions_time"}
    assert rows_read(nodes, "breaker_transitions") <= 20_000


async def test_the_reach_of_the_window_is_found_in_the_index(
    filled: asyncpg.Connection, outage_at: datetime
) -> None:
    minutes = timedelta(minutes=5)
    nodes = await explain(filled, explaining_sql.REACH, outage_at, outage_at - minutes, outage_at + minutes)
    reading = [node for node in nodes if node.get("Relation Name") == "breaker_transitions"]
    assert {node.get("Index Name") for node in reading} == {"breaker_transitions_time"}


async def test_the_chain_is_searched_by_its_versions(filled: asyncpg.Connection) -> None:
    # User 1,000 has twenty transitions and no ending, for which each direction is searched.
    nodes = await explain(filled, explaining_sql.EPISODE, 1_000, 2**31 - 1)
    reading = [node for node in nodes if node.get("Relation Name") == "breaker_transitions"]
    assert {node.get("Index Name") for node in reading} <= BY_VERSION
    assert rows_read(nodes, "breaker_transitions") <= 60


async def test_its_past_is_read_by_its_versions(filled: asyncpg.Connection) -> None:
    nodes = await explain(filled, explaining_sql.STEPS, 1, 100)
    reading = [node for node in nodes if node.get("Relation Name") == "breaker_transitions"]
    assert {node.get("Index Name") for node in reading} <= BY_VERSION
    # Its resets one by one, from their index and then their rows, and what is between them, which is nothing.
    assert rows_read(nodes, "breaker_transitions") <= 300


async def test_what_a_bot_that_stays_broken_did_is_passed_by(filled: asyncpg.Connection) -> None:
    for kind, version in ((10, 1), (12, 2), (10, 3)):
        await filled.execute(LINK, kind, version)
    await filled.execute(REOPENINGS)
    nodes = await explain(filled, explaining_sql.STEPS, 1_000_000, 2**31 - 1)
    assert rows_read(nodes, "breaker_transitions") <= 10
    rows = await filled.fetch(explaining_sql.STEPS, 1_000_000, 2**31 - 1)
    assert [row["kind"] for row in rows] == [10, 12, 10]
