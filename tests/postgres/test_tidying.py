"""Start-up tidies the rows of breakers that count nothing any more, and no others (DESIGN rule 14)."""

from __future__ import annotations

import asyncio

import asyncpg

from breaker_store import BreakerStore, Policy
from tests.postgres.living import QUICK, USER, fail, ok

PATIENT = Policy(failure_threshold=9)
TAILS = "SELECT tail_from, tail_until, tail_writer FROM breaker_states"
WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def fail_here_and_succeed_elsewhere(database_url: str) -> None:
    """End a run in a process that never heard of its beginning, so that the row keeps its tail."""
    async with (
        BreakerStore.open(database_url=database_url, policy=QUICK) as here,
        BreakerStore.open(database_url=database_url, policy=QUICK) as there,
    ):
        await fail(here.registry.get_breaker(USER))
        await here.flush()
        await there.registry.get_breaker(USER).call(ok)


async def test_a_row_whose_run_another_process_ended_is_tidied_at_start_up(
    database_url: str, connection: asyncpg.Connection
) -> None:
    await fail_here_and_succeed_elsewhere(database_url)
    assert None not in tuple(await connection.fetchrow(TAILS))
    async with BreakerStore.open(database_url=database_url, policy=QUICK):
        assert tuple(await connection.fetchrow(TAILS)) == (None, None, None)


async def test_a_row_that_still_counts_is_left_alone_at_start_up(
    database_url: str, connection: asyncpg.Connection
) -> None:
    await fail_here_and_succeed_elsewhere(database_url)
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        await fail(store.registry.get_breaker(USER))
    before = await connection.fetchrow(TAILS)
    assert None not in tuple(before)
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        assert await connection.fetchrow(TAILS) == before
        assert store.registry.get_breaker(USER).state.failure_count == 1


async def test_a_row_whose_tail_grew_since_it_was_read_is_left_alone(
    database_url: str, connection: asyncpg.Connection, connect
) -> None:
    """Start-up has read, and waits for its turn to write, while another process's failure is being stored."""
    watcher = await connect(database_url)
    await fail_here_and_succeed_elsewhere(database_url)

    async def open_and_close() -> None:
        async with BreakerStore.open(database_url=database_url, policy=QUICK):
            pass

    async with connection.transaction():
        await connection.execute("LOCK TABLE breaker_states IN SHARE ROW EXCLUSIVE MODE")
        opening = asyncio.ensure_future(open_and_close())
        async with asyncio.timeout(10):
            while not await watcher.fetch(WAITING):
                pass
        await connection.execute("UPDATE breaker_states SET tail_until = clock_timestamp()")
    await opening
    assert None not in tuple(await connection.fetchrow(TAILS))


async def test_each_failure_moves_the_end_of_its_tail(
    database_url: str, connection: asyncpg.Connection
) -> None:
    ends = []
    async with (
        BreakerStore.open(database_url=database_url, policy=PATIENT) as here,
        BreakerStore.open(database_url=database_url, policy=PATIENT) as there,
    ):
        for each in (here, there, here):
            await fail(each.registry.get_breaker(USER))
            await each.flush()
            ends.append(await connection.fetchval("SELECT tail_until FROM breaker_states"))
    assert ends == sorted(set(ends))
