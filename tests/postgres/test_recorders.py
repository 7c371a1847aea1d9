"""Whoever asks sees how each process's recording goes, and what is missing in the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.ext.asyncio import AsyncEngine

from breaker_store.ports import Gap, GapReason
from breaker_store.postgres.codec import to_datetime
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.reading import create_engine, reading
from breaker_store.postgres.recorders import RECORDERS_LIMIT, RecorderList, _select_gaps, recorders
from breaker_store.runtime.clock import ManualClock
from tests.contract.reporting import CALM, TROUBLED, gaps_alone
from tests.contract.writing import SECOND, START, Writer

Ask = Callable[..., Awaitable[RecorderList]]

AGE = "UPDATE recorders SET reported_at = clock_timestamp() - $2::text::interval WHERE writer_id = $1"
MANY = """
INSERT INTO recorders
SELECT number, now(), now() - number * interval '1 ms', 0, 0, 0, 0, 0, NULL, 1, false, 'bots', 'behind'
FROM generate_series(1, $1::integer) AS number
"""
GAP = "INSERT INTO log_gaps VALUES ($1, 1, now(), now(), 1, 0, 0, 0, 0, now() - $2::text::interval, 1, 1)"


@pytest.fixture
async def log(database_url: str) -> AsyncIterator[PostgresEventLog]:
    log = PostgresEventLog(database_url, ManualClock(START))
    yield log
    await log.close()


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def ask(engine: AsyncEngine) -> Ask:
    async def ask(*arguments: int) -> RecorderList:
        async with reading(engine) as connection:
            return await recorders(connection, *arguments)

    return ask


async def ids(ask: Ask, *arguments: int) -> list[int]:
    return [int(item.writer_id) for item in (await ask(*arguments)).recorders]


async def test_where_nobody_reported_there_is_nobody(ask: Ask) -> None:
    assert await ask() == RecorderList([], truncated=False)


async def test_a_report_is_shown_with_its_times(ask: Ask, log: PostgresEventLog) -> None:
    await log.report(replace(TROUBLED, writer_id=2**63 - 1))
    (item,) = (await ask()).recorders
    assert (item.writer_id, item.host, item.pid) == (str(2**63 - 1), "bots-1", 2**22)
    assert (item.queued, item.flushed, item.spooled, item.set_aside, item.lost) == (1, 2**40, 3, 4, 5)
    assert (item.durability, item.lost_why, item.last_error) == (
        "journaled", "the queue was full", "Postgres can't be reached: no route to host",
    )  # fmt: skip
    assert item.oldest_waiting_seconds == 2**40 / 1_000_000
    assert item.started_at == to_datetime(START + 7)
    assert item.reported_at - item.started_at > timedelta(days=1)


@pytest.mark.parametrize(
    ("age", "ended", "status"),
    [
        ("14 seconds", False, "recording"),
        ("16 seconds", False, "silent"),
        ("1 second", True, "ended"),
        ("16 seconds", True, "ended"),
    ],
)
async def test_who_has_not_reported_and_not_said_goodbye_is_silent(
    ask: Ask, log: PostgresEventLog, connection: asyncpg.Connection, age: str, ended: bool, status: str
) -> None:
    await log.report(replace(CALM, ended=ended))
    await connection.execute(AGE, 1, age)
    assert [item.status for item in (await ask()).recorders] == [status]


async def test_the_newest_report_comes_first_and_those_of_long_ago_are_left_out(
    ask: Ask, log: PostgresEventLog, connection: asyncpg.Connection
) -> None:
    for writer_id, age in ((1, "1 hour"), (2, "1 minute"), (3, "23 hours 59 minutes"), (4, "24 hours")):
        await log.report(replace(CALM, writer_id=writer_id))
        await connection.execute(AGE, writer_id, age)
    assert await ids(ask) == [2, 1, 3]
    assert await ids(ask, 25) == [2, 1, 3, 4]
    assert await ids(ask, 1) == [2]


async def test_one_of_whose_events_something_was_just_found_missing_is_not_left_out(
    ask: Ask, log: PostgresEventLog, connection: asyncpg.Connection
) -> None:
    """Its spool may be delivered, and found to be damaged, long after its death."""
    for writer_id, missed_ago in ((1, "1 hour"), (2, "30 hours")):
        await log.report(replace(CALM, writer_id=writer_id))
        await connection.execute(AGE, writer_id, "10 days")
        await connection.execute(GAP, writer_id, missed_ago)
    assert await ids(ask) == [1]


@pytest.mark.parametrize("more", [0, 1])
async def test_at_most_a_thousand_are_listed(ask: Ask, connection: asyncpg.Connection, more: int) -> None:
    await connection.execute(MANY, RECORDERS_LIMIT + more)
    found = await ask()
    assert [int(item.writer_id) for item in found.recorders] == list(range(1, RECORDERS_LIMIT + 1))
    assert found.truncated == bool(more)


async def test_what_is_missing_is_added_up_by_reason(ask: Ask, log: PostgresEventLog) -> None:
    writer, other = (Writer(log, ManualClock(START)) for _ in range(2))
    full = Gap(GapReason.QUEUE_FULL, START, START + SECOND, successes=2**40, refusals=5)
    later = Gap(GapReason.QUEUE_FULL, START + 5 * SECOND, START + 6 * SECOND, successes=1, failures=3)
    damaged = Gap(GapReason.DAMAGED, START, START, transitions=1, unknown=7)
    await writer.append(gaps_alone(writer, None, full, damaged, later))
    await other.append(gaps_alone(other, None, damaged))
    for each in (writer, other):
        await log.report(replace(CALM, writer_id=each.writer_id))
    found = {item.writer_id: item.gaps for item in (await ask()).recorders}
    first, second = found[str(writer.writer_id)]
    assert (first.reason, first.events) == ("the queue was full", 2**40 + 9)
    assert (first.successes, first.refusals, first.failures) == (2**40 + 1, 5, 3)
    assert (first.first_at, first.last_at) == (to_datetime(START), to_datetime(START + 6 * SECOND))
    assert (second.reason, second.events) == ("the spool was damaged", 8)
    assert (second.transitions, second.unknown) == (1, 7)
    assert found[str(other.writer_id)] == [second]


@pytest.mark.parametrize("reason", GapReason)
async def test_every_reason_has_its_words(ask: Ask, log: PostgresEventLog, reason: GapReason) -> None:
    writer = Writer(log, ManualClock(START))
    await writer.append(gaps_alone(writer, None, Gap(reason, START, START, unknown=1)))
    await log.report(replace(CALM, writer_id=writer.writer_id))
    ((gap,),) = (item.gaps for item in (await ask()).recorders)
    assert not gap.reason.startswith("reason-")


async def test_a_reason_of_a_newer_version_is_shown_by_its_number(
    ask: Ask, log: PostgresEventLog, connection: asyncpg.Connection
) -> None:
    await log.report(CALM)
    await connection.execute("INSERT INTO log_gaps VALUES (1, 1, now(), now(), 1, 0, 0, 0, 0, now(), 1, 42)")
    assert [gap.reason for item in (await ask()).recorders for gap in item.gaps] == ["reason-42"]


async def test_gaps_are_looked_up_by_their_writers(owner: asyncpg.Connection) -> None:
    """There may be very many in the end: they are never deleted."""
    await owner.execute(
        "INSERT INTO log_gaps"
        " SELECT number, 1, now(), now(), 1, 0, 0, 0, 0, now(), 1, 1 FROM generate_series(1, 20000) AS number"
    )
    await owner.execute("ANALYZE log_gaps")
    statement = _select_gaps(range(1, 1_001))
    text = str(statement.compile(dialect=dialect.dialect(), compile_kwargs={"literal_binds": True}))
    plan = await owner.fetchval(f"EXPLAIN (FORMAT JSON) {text}")
    assert "log_gaps_pkey" in plan
