"""The hot queries stay cheap however much is stored: what they open and read is part of the contract."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from pytest_postgresql.executors import NoopExecutor

from breaker_store.postgres import horizon, loading, time_travel
from breaker_store.postgres.event_log import _FATES, _TRANSITIONS_AFTER
from breaker_store.postgres.feed import _FROM, _LAST
from tests.conftest import make_template

DAYS, USERS = 20, 300

FILL = f"""
SELECT ensure_outcome_partitions(current_date - {DAYS}, current_date + 1);

INSERT INTO breaker_events (
    occurred_at, user_id, writer_id, writer_seq, duration_us, generation, era, kind, verdict, operation
)
SELECT
    clock_timestamp() - number * interval '{DAYS} days' / 30000, number % {USERS}, 1, number, 1, 0, 0, 1, 0, 'send'
FROM generate_series(1, 30000) AS number;

INSERT INTO breaker_states (user_id) SELECT generate_series(0, {USERS - 1});
"""

# User 1 has failed a minute ago; user 2 is open, and was refused very often.
UNSETTLE = """
UPDATE breaker_states SET tail_from = clock_timestamp() - interval '1 minute', tail_writer = 1 WHERE user_id = 1;

UPDATE breaker_states SET
    state = 1, version = 1, generation = 1, era = 7, since = clock_timestamp() - interval '15 days',
    last_writer_id = 2, last_writer_seq = 1, opened_at = clock_timestamp() - interval '15 days',
    retry_at = clock_timestamp() + interval '15 days'
WHERE user_id = 2;

INSERT INTO breaker_events (
    occurred_at, user_id, writer_id, writer_seq, position, generation, era, version, kind, details, details_version
) VALUES (clock_timestamp() - interval '15 days', 2, 2, 1, 1, 1, 7, 1, 10, '{}', 1);

UPDATE log_position SET last = 1;

INSERT INTO breaker_events (
    occurred_at, user_id, writer_id, writer_seq, generation, era, kind, verdict, count
)
SELECT clock_timestamp() - number * interval '1 minute', 2, 2, 1 + number, 1, 7, 3, 0, 100
FROM generate_series(1, 20000) AS number;

ANALYZE;
"""


@pytest.fixture(scope="module")
def template(migrated_server: NoopExecutor) -> Iterator[str]:
    """Fill a log with weeks of outcomes, of which a start-up needs a minute."""
    with make_template(migrated_server, FILL, UNSETTLE) as name:
        yield name


async def explain(connection: asyncpg.Connection, query: str, *arguments: object) -> list[dict[str, Any]]:
    """Run a query, and give the nodes of its plan that were executed."""
    text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *arguments)
    nodes, found = [json.loads(text)[0]["Plan"]], []
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node["Actual Loops"] > 0:
            found.append(node)
    return found


def days_read(nodes: list[dict[str, Any]]) -> set[str]:
    tables = [node.get("Relation Name", "") + node.get("Index Name", "") for node in nodes]
    return {found[0] for table in tables if (found := re.search(r"\d{8}", table))}


def rows_read(nodes: list[dict[str, Any]], table: str) -> int:
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes
        if node.get("Relation Name", "").startswith(table)
    )


def scanned_whole(nodes: list[dict[str, Any]]) -> set[str]:
    """Name the tables of which every row was looked at, unless there is none."""
    scans = [node for node in nodes if node["Node Type"] == "Seq Scan"]
    return {node["Relation Name"] for node in scans if rows_read([node], "breaker_outcomes")}


async def test_start_up_opens_only_the_days_that_its_tails_reach(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "SET enable_seqscan = off"
    )  # soon after midnight a day is so small that it's no dearer
    nodes = await explain(connection, loading._ALL_UNSETTLED)
    assert len(days_read(nodes)) <= 3
    assert rows_read(nodes, "breaker_outcomes") < 20
    assert not scanned_whole(nodes)


async def test_an_open_breakers_refusals_are_not_read(connection: asyncpg.Connection) -> None:
    nodes = await explain(connection, loading._ONE, 2)
    assert days_read(nodes) == set()
    assert rows_read(nodes, "breaker_transitions") <= 1


async def test_one_breaker_is_read_by_its_tail(connection: asyncpg.Connection) -> None:
    await connection.execute("SET enable_seqscan = off")  # see above
    nodes = await explain(connection, loading._ONE, 1)
    assert len(days_read(nodes)) <= 3
    assert rows_read(nodes, "breaker_outcomes") < 20


async def test_a_poll_with_no_news_reads_nothing(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "SET enable_seqscan = off"
    )  # with one transition in it a scan of the table is no dearer
    nodes = await explain(connection, _TRANSITIONS_AFTER, 1, 1_000)
    assert [node["Index Name"] for node in nodes if "Index Name" in node] == ["breaker_transitions_position"]
    assert rows_read(nodes, "breaker_transitions") == 0


async def test_fates_are_found_by_the_identity_of_events(connection: asyncpg.Connection) -> None:
    await connection.execute("SET enable_seqscan = off")
    nodes = await explain(connection, _FATES, 2, [1])
    assert [node["Index Name"] for node in nodes if "Index Name" in node] == ["breaker_transitions_identity"]


# Of some users hundreds of transitions.
TRANSITIONS = """
INSERT INTO breaker_events (
    occurred_at, user_id, writer_id, writer_seq, position, generation, era, version, kind, details, details_version
)
SELECT
    clock_timestamp(), number % 40, 3, number, 1 + number, number, 7, 2 + number / 40, 13,
    jsonb_build_object('causes', repeat('text ', 100)), 1
FROM generate_series(1, 20000) AS number;

UPDATE log_position SET last = 20001;

ANALYZE;
"""


async def test_start_up_compares_rows_with_the_log_by_one_look_up_a_row(
    connection: asyncpg.Connection, owner: asyncpg.Connection
) -> None:
    await owner.execute(TRANSITIONS)
    nodes = await explain(connection, loading._CONTRADICTIONS)
    reading = [node for node in nodes if node.get("Relation Name") == "breaker_transitions"]
    assert [node.get("Index Name") for node in reading] == ["breaker_transitions_version"]
    assert rows_read(nodes, "breaker_transitions") <= USERS


async def test_the_stream_looks_at_one_row_when_there_is_no_news(
    connection: asyncpg.Connection, owner: asyncpg.Connection
) -> None:
    await owner.execute(TRANSITIONS)
    for query, arguments in ((_FROM, (20_001, 501)), (_LAST, ())):
        nodes = await explain(connection, query, *arguments)
        assert [node["Index Name"] for node in nodes if "Index Name" in node] == [
            "breaker_transitions_position"
        ]
        assert rows_read(nodes, "breaker_transitions") == 1


async def test_a_travel_opens_only_the_days_around_its_instant(connection: asyncpg.Connection) -> None:
    """User 1 succeeds often: nothing from before the last success is needed but a failure, and there was none."""
    at = await connection.fetchval("SELECT clock_timestamp() - interval '10 days'")
    success = await connection.fetchval(time_travel._LAST_SUCCESS, 1, 0, 0, time_travel._EVER, at)
    nodes = await explain(connection, time_travel._LAST_SUCCESS, 1, 0, 0, time_travel._EVER, at)
    nodes += await explain(connection, time_travel._OUTCOMES, 1, 0, 0, success, at)
    nodes += await explain(connection, time_travel._KNOWN, 1, at)
    nodes += await explain(connection, time_travel._CHAIN, 1, at)
    assert len(days_read(nodes)) <= 2
    assert rows_read(nodes, "breaker_outcomes") < 20
    assert not scanned_whole(nodes)


async def test_a_count_is_looked_for_in_the_days_since_it_began(connection: asyncpg.Connection) -> None:
    at = await connection.fetchval("SELECT clock_timestamp() - interval '10 days'")
    since = at - timedelta(days=1)
    for query in (time_travel._LAST_SUCCESS, time_travel._OUTCOMES, time_travel._LAST_FAILURE):
        nodes = await explain(connection, query, 1, 7, 7, since, at)
        assert len(days_read(nodes)) <= 2
        assert not scanned_whole(nodes)


async def test_whether_the_log_reaches_to_an_instant_is_seen_in_one_day(
    connection: asyncpg.Connection,
) -> None:
    at = await connection.fetchval("SELECT clock_timestamp() - interval '1 day'")
    day = await horizon._oldest_day(connection)
    nodes = await explain(connection, horizon._HAS_OUTCOME, day, day + timedelta(days=1), at)
    assert len(days_read(nodes)) == 1
    assert rows_read(nodes, "breaker_outcomes") == 1


async def test_a_summary_at_an_instant_looks_up_each_breaker_and_reads_no_day_whole(
    connection: asyncpg.Connection,
) -> None:
    at = await connection.fetchval("SELECT clock_timestamp() - interval '10 days'")
    nodes = await explain(connection, time_travel._SUMMARY, at, [10, 11, 12, 13, 14, 15, 16, 17, 18])
    assert len(days_read(nodes)) <= 2
    # Postgres rounds the rows of each of as many loops to hundredths.
    assert rows_read(nodes, "breaker_outcomes") <= USERS * 1.01
    assert not scanned_whole(nodes)
