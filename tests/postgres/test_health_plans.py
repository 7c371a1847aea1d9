"""What is told of health stays cheap however much is kept: a history opens the months that it is of, a list only a page."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest
from pytest_postgresql.executors import NoopExecutor

from breaker_store.core.buckets import Bucket
from breaker_store.postgres.bot_history import ROWS
from breaker_store.postgres.fleet_health import UnhealthyCursor, select_unhealthy
from tests.conftest import make_template
from tests.postgres.explaining import explain_statement
from tests.postgres.test_plans import explain

FILL = """
SELECT ensure_rollup_partitions('2001-01-01', '2001-12-31');

INSERT INTO hour_rollups (
    started_at, user_id, refusals, duration_us, successes, failures, timed_calls, drops, durations
)
SELECT '2001-01-01 00:00Z'::timestamptz + number * interval '1 hour', user_id, 0, 0, 1, 0, 0, 0, '{}'
FROM generate_series(0, 365 * 24 - 1) AS number, generate_series(1, 5) AS user_id;

INSERT INTO unhealthy_bots (user_id, since, error_rate, failure_run, status, findings)
SELECT number, now(), (number % 100) / 100.0, number % 7, 1 + number % 3, '{}' FROM generate_series(1, 20000) AS number;
"""


@pytest.fixture(scope="module")
def template(migrated_server: NoopExecutor) -> Iterator[str]:
    """Fill a year with hours, and a list with 20,000 bots."""
    with make_template(migrated_server, FILL, "ANALYZE") as name:
        yield name


async def test_a_history_reads_its_rows_alone_and_opens_no_month_but_its_own(
    connection: asyncpg.Connection,
) -> None:
    since, until = "'2001-03-20 00:00Z'::timestamptz", "'2001-04-19 00:00Z'::timestamptz"
    text = ROWS[Bucket.HOUR].replace("$1", "3").replace("$2", since).replace("$3", until)
    nodes = await explain(connection, text)
    opened = [node for node in nodes if "Relation Name" in node]
    assert {node["Relation Name"] for node in opened} == {"hour_rollups_200103", "hour_rollups_200104"}
    assert sum(node["Actual Rows"] for node in opened) == 30 * 24
    assert not any("Rows Removed by Filter" in node for node in opened)


@pytest.mark.parametrize("after", [None, UnhealthyCursor((1, -500_000, -3, 10_000))])
async def test_a_page_of_the_bots_that_are_not_healthy_is_read_from_an_index_in_its_order(
    connection: asyncpg.Connection, after: UnhealthyCursor | None
) -> None:
    nodes = await explain_statement(connection, select_unhealthy(50, after))
    assert {node["Node Type"] for node in nodes} == {"Limit", "Index Scan"}
    assert max(node["Actual Rows"] for node in nodes) == 51
