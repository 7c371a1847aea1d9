"""A writer's report is one row, clean of secrets, and is forgotten when nobody has reported for long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import ManualClock
from tests.contract.reporting import CALM
from tests.contract.writing import START

AGE = "UPDATE recorders SET reported_at = clock_timestamp() - $2::text::interval WHERE writer_id = ANY($1::bigint[])"
WRITERS = "SELECT array_agg(writer_id ORDER BY writer_id) FROM recorders"


@pytest.fixture
async def log(database_url: str) -> AsyncIterator[PostgresEventLog]:
    log = PostgresEventLog(database_url, ManualClock(START))
    yield log
    await log.close()


async def test_a_report_has_the_databases_time(log: PostgresEventLog, connection: asyncpg.Connection) -> None:
    before = await connection.fetchval("SELECT clock_timestamp()")
    for _ in range(2):
        await log.report(CALM)
        reported_at = await connection.fetchval("SELECT reported_at FROM recorders")
        assert before < reported_at < await connection.fetchval("SELECT clock_timestamp()")
        before = reported_at


async def test_what_a_report_says_is_cleaned_and_can_always_be_stored(
    log: PostgresEventLog, connection: asyncpg.Connection
) -> None:
    await log.report(
        replace(CALM, host="b\0ots\ud800", lost_why="x" * 5_000, last_error="no access: password=hunter2\0")
    )
    row = await connection.fetchrow("SELECT * FROM recorders")
    assert (row["host"], row["last_error"]) == ("bots", "no access: password=[hidden]")
    assert len(row["lost_why"]) == 2_000


async def test_the_first_report_of_a_writer_clears_away_what_was_not_reported_on_for_30_days(
    log: PostgresEventLog, connection: asyncpg.Connection
) -> None:
    for writer_id in (1, 2, 3):
        await log.report(replace(CALM, writer_id=writer_id, ended=writer_id == 2))
    await connection.execute(AGE, [1, 2], "30 days 1 second")
    await connection.execute(AGE, [3], "29 days 23 hours")
    await log.report(replace(CALM, writer_id=4))
    assert await connection.fetchval(WRITERS) == [3, 4]


async def test_later_reports_clear_nothing_away(
    log: PostgresEventLog, connection: asyncpg.Connection
) -> None:
    for writer_id in (1, 2):
        await log.report(replace(CALM, writer_id=writer_id))
    await connection.execute(AGE, [1], "31 days")
    await log.report(replace(CALM, writer_id=2))
    assert await connection.fetchval(WRITERS) == [1, 2]


async def test_a_writer_that_reports_again_after_long_is_there_again(
    log: PostgresEventLog, connection: asyncpg.Connection
) -> None:
    for writer_id in (1, 2):
        await log.report(replace(CALM, writer_id=writer_id))
        await connection.execute(AGE, [1], "31 days")
    await log.report(CALM)
    assert await connection.fetchval(WRITERS) == [1, 2]
    assert await connection.fetchval("SELECT now() - min(reported_at) < '1 minute' FROM recorders")
