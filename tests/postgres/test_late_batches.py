"""What lay in a spool for days is stored with its own times, in the days in which it happened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from breaker_store.ports import Batch
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.partitions import DAY_US
from breaker_store.runtime.clock import ManualClock
from tests.contract.writing import START, USER, Writer
from tests.postgres.stored import contradicting_batches

LONG_AGO_DAYS = 12

LEAVES = "SELECT count(*) FROM pg_partition_tree('breaker_outcomes') WHERE isleaf"
TIMES = "SELECT occurred_at FROM breaker_outcomes WHERE writer_id = $1 ORDER BY writer_seq"


@pytest.fixture
async def log(database_url: str) -> AsyncIterator[PostgresEventLog]:
    log = PostgresEventLog(database_url, ManualClock(START))
    yield log
    await log.close()


def days_ago(batch: Batch, days: int) -> Batch:
    """Have a batch's outcomes happen long ago, half of them after that day's midnight."""
    midnight = (batch.latest // DAY_US - days) * DAY_US
    half = len(batch.outcomes) // 2
    rows = [(midnight + place - half, *row[1:]) for place, row in enumerate(batch.outcomes)]
    return replace(batch, outcomes=rows, earliest=rows[0][0], latest=rows[-1][0])


@pytest.mark.parametrize("count", [4, 200])
async def test_events_of_days_ago_are_stored_among_those_of_today(
    log: PostgresEventLog, connection: asyncpg.Connection, count: int
) -> None:
    live, late = Writer(log, ManualClock(START)), Writer(log, ManualClock(START))
    await live.succeed(USER, count)
    await live.send()
    before = await connection.fetchval(LEAVES)
    await late.succeed(USER, count)
    batch = days_ago(late.cut(), LONG_AGO_DAYS)
    await late.append(batch)
    await log.keep_time()
    await live.succeed(USER, count)
    await live.send()

    stored = [row["occurred_at"] for row in await connection.fetch(TIMES, late.writer_id)]
    assert [microseconds(at) for at in stored] == [row[0] for row in batch.outcomes]
    assert len({at.date() for at in stored}) == 2
    assert await connection.fetchval(LEAVES) == before + 2
    assert len(await connection.fetch(TIMES, live.writer_id)) == 2 * count
    assert await contradicting_batches(connection) == []


async def test_the_ledger_has_the_times_of_what_is_late_and_when_it_came(
    log: PostgresEventLog, connection: asyncpg.Connection
) -> None:
    late = Writer(log, ManualClock(START))
    await log.open()
    await late.succeed(USER, 4)
    batch = days_ago(late.cut(), LONG_AGO_DAYS)
    await late.append(batch)
    row = await connection.fetchrow("SELECT * FROM writer_batches")
    assert (row["earliest"], row["latest"]) == (to_datetime(batch.earliest), to_datetime(batch.latest))
    assert row["recorded_at"] - row["latest"] > timedelta(days=LONG_AGO_DAYS - 1)


async def test_a_trip_of_days_ago_holds_and_its_wait_is_over(log: PostgresEventLog) -> None:
    """What tripped while Postgres was away is not undone by its return."""
    late = Writer(log, ManualClock(START))
    await late.trip()
    batch = late.cut()
    day_us = LONG_AGO_DAYS * DAY_US
    transitions = [each._replace(transition=each.transition.shifted(-day_us)) for each in batch.transitions]
    outcomes = [(row[0] - day_us, *row[1:]) for row in batch.outcomes]
    marks = [mark._replace(at=mark.at - day_us) for mark in batch.marks]
    fates = await late.append(
        replace(
            batch,
            outcomes=outcomes,
            transitions=transitions,
            marks=marks,
            earliest=batch.earliest - day_us,
            latest=batch.latest - day_us,
        )
    )
    assert [fate.position for fate in fates] == [1]
    stored = await log.read_breaker(USER, late.registry.policy)
    assert stored is not None
    assert stored.state.state.value == "open"
    assert stored.remaining_us is not None
    assert stored.remaining_us < 0
