"""Maintenance: what goes, what is carried over before, and what a run that was killed leaves to the next."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, date, datetime

import asyncpg
import pytest

from breaker_store import BreakerStore, CircuitState, Policy
from breaker_store.core.events import Kind
from breaker_store.core.retention import Kept
from breaker_store.errors import LogUnavailableError
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.verification import verify
from breaker_store.retention import MaintenanceBusyError, Plan, Report, maintain, plan
from breaker_store.runtime.clock import ManualClock
from tests.core.scenario import Scenario
from tests.postgres.histories import START, Past, outcome
from tests.postgres.living import fail
from tests.postgres.upkeep import days_kept, keep, let_pass

FIRST, SECOND = date(2024, 3, 1), date(2024, 3, 2)
USER = 101
POLICY = Policy(failure_threshold=5, timeout_seconds=0.5, success_threshold=2)

Remember = Callable[[Scenario], Awaitable[None]]


@pytest.fixture
async def past(database_url: str) -> AsyncIterator[Past]:
    log = PostgresEventLog(database_url, ManualClock(START))
    yield Past(log)
    await log.close()


@pytest.fixture
def remember(past: Past, owner: asyncpg.Connection) -> Remember:
    """Store what happened 40 days ago, and have the breaker's row know it."""

    async def remember(breaker: Scenario) -> None:
        await past.store(USER, breaker.stored, POLICY)
        await owner.execute("SELECT restore_breaker_state($1)", USER)
        await let_pass(owner, 40)
        await keep(owner, "outcomes", 30)

    return remember


def begin() -> Scenario:
    """Begin a history at START, two seconds before midnight."""
    breaker = Scenario(POLICY, 77)
    breaker.now = START
    return breaker


async def no_pause(_seconds: float) -> None:
    await asyncio.sleep(0)


async def run(database_url: str) -> Report:
    return await maintain(database_url, "ada", pause=no_pause)


async def test_a_bot_with_three_old_failures_trips_at_its_second_new_one(
    remember: Remember, database_url: str, connection: asyncpg.Connection
) -> None:
    await remember(begin().fail(error="Old").fail().fail())
    report = await run(database_url)
    assert (report.carried_over, [str(span) for span in report.dropped]) == (
        [USER],
        ["outcomes of 2024-03-01"],
    )
    async with BreakerStore.open(database_url=database_url, policy=POLICY) as store:
        breaker = store.registry.get_breaker(USER)
        await fail(breaker)
        assert breaker.state.state is CircuitState.CLOSED
        await fail(breaker)
        assert breaker.state.state is CircuitState.OPEN
        await store.flush()
    assert (await verify(database_url)).findings == ()


HISTORIES = {
    "half-open with a probe that counts": (lambda: begin().opened().wait(0.5).succeed(), [USER]),
    "a carried run that an old success ended": (lambda: begin().fail().fail().carry_over().succeed(), [USER]),
    "failures under rules that changed": (
        lambda: begin().fail().fail().carry_over().fail().change_policy(POLICY),
        [USER],
    ),
    "well": (lambda: begin().fail().succeed(), []),
    "open": (lambda: begin().opened(), []),
    "well since": (lambda: begin().fail().wait(5).succeed(), []),
}


@pytest.mark.parametrize("name", HISTORIES)
async def test_only_what_is_still_needed_is_carried_over(
    remember: Remember, database_url: str, owner: asyncpg.Connection, name: str
) -> None:
    """Somebody whose count needs nothing of the day gets no event, and keeps no day."""
    history, carried_over = HISTORIES[name]
    await remember(history())
    report = await run(database_url)
    assert report.carried_over == carried_over
    assert FIRST not in await days_kept(owner)
    async with BreakerStore.open(database_url=database_url, policy=POLICY):
        pass
    assert (await verify(database_url)).findings == ()
    assert (await run(database_url)).carried_over == []


async def test_a_plan_tells_what_a_run_would_do_and_does_nothing(
    remember: Remember, database_url: str, connection: asyncpg.Connection
) -> None:
    await remember(begin().fail().wait(5).fail())
    told = await plan(database_url)
    assert [str(span) for span in told.due] == ["outcomes of 2024-03-01", "outcomes of 2024-03-02"]
    assert (told.to_carry_over, [why for _, why in told.uncounted]) == (
        [USER],
        ["nothing has been rolled up on this server yet"] * 2,
    )
    assert await connection.fetchval("SELECT count(*) FROM breaker_transitions") == 0
    await run(database_url)
    assert await plan(database_url) == Plan([], [], [])


async def test_what_is_not_rolled_up_stays_with_all_that_is_newer_and_nothing_is_carried_over(
    remember: Remember, database_url: str, owner: asyncpg.Connection
) -> None:
    await remember(begin().fail().wait(5).fail())
    async with owner.transaction():
        await owner.execute("SELECT FROM rollup_progress FOR UPDATE")
        report = await run(database_url)
    assert [(span.kind, span.first_day, why) for span, why in report.kept] == [
        (Kept.OUTCOMES, FIRST, "nothing has been rolled up on this server yet")
    ]
    assert (report.dropped, report.carried_over) == ([], [])


async def test_partitions_are_made_ahead(database_url: str, connection: asyncpg.Connection) -> None:
    report = await run(database_url)
    days = await days_kept(connection)
    assert report.partitions_made >= len(days) + 9
    assert (days[-1] - datetime.now(UTC).date()).days in {6, 7}
    assert days == await days_kept(connection, "minute_rollups")
    assert (await run(database_url)).partitions_made == 0


async def test_of_two_at_once_one_does_it(
    remember: Remember, database_url: str, connection: asyncpg.Connection
) -> None:
    await remember(begin().fail().wait(5).fail())
    found = await asyncio.gather(*(run(database_url) for _ in range(3)), return_exceptions=True)
    assert [len(each.dropped) for each in found if isinstance(each, Report)] == [2]
    assert {type(each) for each in found} == {Report, MaintenanceBusyError}
    assert await connection.fetchval("SELECT count(*) FROM dropped_partitions") == 2


async def test_what_is_dropped_stays_counted(
    remember: Remember, database_url: str, connection: asyncpg.Connection
) -> None:
    await remember(begin().fail().succeed().wait(5).succeed())
    await run(database_url)
    assert await connection.fetch("SELECT outcomes, actor FROM dropped_partitions ORDER BY day") == [
        (2, "ada"),
        (1, "ada"),
    ]
    counted = "SELECT started_at::date, successes, failures FROM day_rollups ORDER BY 1"
    assert await connection.fetch(counted) == [(FIRST, 1, 1), (SECOND, 1, 0)]
    await run(database_url)
    assert len(await connection.fetch(counted)) == 2


async def test_a_run_that_is_killed_is_gone_on_with(
    remember: Remember, database_url: str, owner: asyncpg.Connection
) -> None:
    """Wherever it is in the middle of, a little later each time, until one comes to its end."""
    await remember(begin().fail().wait(5).fail())
    for milliseconds in itertools.count(20, 30):
        task = asyncio.create_task(run(database_url))
        await asyncio.wait([task], timeout=milliseconds / 1_000)
        task.cancel()
        with suppress(asyncio.CancelledError, MaintenanceBusyError):
            await task
            break
        kept = [day for day in await days_kept(owner) if day.year == FIRST.year]
        dropped = [row[0] for row in await owner.fetch("SELECT day FROM dropped_partitions ORDER BY day")]
        assert dropped + kept == [FIRST, SECOND]
    assert await owner.fetchval("SELECT array_agg(day ORDER BY day) FROM dropped_partitions") == [
        FIRST,
        SECOND,
    ]
    assert await owner.fetchval("SELECT count(*) FROM breaker_transitions") == 1
    assert (await verify(database_url)).findings == ()


async def test_what_comes_late_for_a_dropped_day_is_no_alarm(
    remember: Remember, database_url: str, connection: asyncpg.Connection
) -> None:
    """The day is there again, without what it had, and what is counted of both adds up."""
    await remember(begin().fail().fail().succeed())
    await run(database_url)
    late = PostgresEventLog(database_url, ManualClock(START))
    await Past(late).store(102, [outcome(Kind.SUCCESS, START + 1)])
    await late.close()
    assert (await verify(database_url)).findings == ()
    await run(database_url)
    assert await connection.fetch("SELECT drops, successes, failures FROM day_rollups ORDER BY 1") == [
        (0, 1, 2),
        (1, 1, 0),
    ]


async def test_what_comes_for_a_day_while_it_is_dropped_again_and_again_is_counted_once(
    database_url: str, owner: asyncpg.Connection
) -> None:
    """Whatever is stored is old at once here, so each run drops what it has rolled up."""
    await owner.execute(
        "ALTER TABLE writer_batches ALTER recorded_at SET DEFAULT clock_timestamp() - interval '40 days'"
    )
    await keep(owner, "outcomes", 30)
    logs = [PostgresEventLog(database_url, ManualClock(START)) for _ in range(2)]
    await append_late(logs[0], 0, events=1)
    await run(database_url)
    writing = [asyncio.create_task(append_late(log, number, events=6)) for number, log in enumerate(logs, 1)]
    while not all(task.done() for task in writing):
        await run(database_url)
    await asyncio.gather(*writing, *(log.close() for log in logs))
    await run(database_url)
    counted = await owner.fetchval("SELECT sum(successes) FROM day_rollups WHERE started_at = '2024-03-01'")
    assert counted == 1 + 2 * 6
    assert counted == await owner.fetchval("SELECT sum(outcomes) FROM dropped_partitions")
    assert await owner.fetchval("SELECT count(*) FROM dropped_partitions") > 1
    assert (await verify(database_url)).findings == ()


async def append_late(log: PostgresEventLog, number: int, *, events: int) -> None:
    """Store successes of an old day, one now and then; again where the day went in between."""
    past = Past(log)
    for seq in range(events):
        await asyncio.sleep(random.random() / 2)
        event = outcome(Kind.SUCCESS, START + seq, writer_id=1_000 + number)
        while True:
            with suppress(LogUnavailableError):
                await past.store(USER + number, [event])
                break
