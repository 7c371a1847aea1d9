"""A database that is restored to an older copy while processes live: they go on in it (DESIGN rules 10 and 13)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from breaker_store import BreakerStore, CircuitBreaker, CircuitState
from breaker_store.core.events import Kind
from tests.conftest import Connect, Server
from tests.postgres.living import QUICK, USER, Ear, ok, trip
from tests.postgres.restoring import Restored, restorable

STATE = "SELECT state FROM breaker_states WHERE user_id = $1"
STRANGER = 7
OPEN = 1


@pytest.fixture
async def restored(postgres_server: Server, database_url: str, connect: Connect) -> AsyncIterator[Restored]:
    async with restorable(postgres_server, database_url, connect) as restored:
        yield restored


async def follow_to_the_end(store: BreakerStore, database_url: str) -> None:
    """Wait until a store has heard of every transition that there is."""
    connection = await asyncpg.connect(database_url)
    try:
        last = await connection.fetchval("SELECT last FROM log_position")
    finally:
        await connection.close()
    async with asyncio.timeout(5):
        while store._follower.position < last:  # noqa: ASYNC110 - it is no event that anybody tells of
            await asyncio.sleep(0.01)
    assert last > 1


async def succeed_once(breaker: CircuitBreaker) -> None:
    await breaker.call(ok)


async def have_been_reset(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        breaker.reset()


@pytest.mark.parametrize("before", [succeed_once, have_been_reset])
async def test_a_breaker_of_which_the_older_copy_knows_nothing_can_trip_and_its_trip_wins(
    restored: Restored,
    database_url: str,
    connect: Connect,
    tmp_path: Path,
    before: Callable[[CircuitBreaker], Awaitable[None]],
) -> None:
    async with BreakerStore.open(database_url=restored.proxy.url, spool_dir=tmp_path, policy=QUICK) as store:
        await store.registry.get_breaker(STRANGER).call(ok)
        await store.flush()
        await restored.copy()
        breaker = store.registry.get_breaker(USER)
        await before(breaker)
        await store.flush()
        await restored.restore()
        await store.registry.get_breaker(STRANGER).call(ok)
        await store.flush()
        await trip(breaker)
        await store.flush()
        assert breaker.state.state is CircuitState.OPEN
        assert store.registry.surroundings.unconfirmed == {}
        stats = store.recorder.stats()
        assert (stats.set_aside, stats.lost_why) == (0, "the database has forgotten them")
    connection = await connect(database_url)
    assert await connection.fetchval(STATE, USER) == OPEN
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        assert store.registry.get_open_breakers() == [USER]


@pytest.mark.parametrize("before", [succeed_once, have_been_reset])
async def test_what_another_process_does_after_the_restore_is_heard(
    restored: Restored,
    database_url: str,
    tmp_path: Path,
    before: Callable[[CircuitBreaker], Awaitable[None]],
) -> None:
    """Positions begin again where the older copy ends: below where this process was."""
    async with BreakerStore.open(database_url=restored.proxy.url, spool_dir=tmp_path, policy=QUICK) as store:
        breaker = store.registry.get_breaker(USER)
        await breaker.call(ok)
        await store.flush()
        await restored.copy()
        await before(breaker)
        for _ in range(5):
            store.registry.get_breaker(STRANGER).reset()
        await store.flush()
        await follow_to_the_end(store, database_url)
        await restored.restore()
        await store.registry.get_breaker(STRANGER).call(ok)
        await store.flush()
        ear = Ear(store.registry)
        async with BreakerStore.open(database_url=database_url, policy=QUICK) as other:
            await trip(other.registry.get_breaker(USER))
            await other.flush()
        await ear.wait_for_kind(Kind.OPENED)
        assert breaker.state.state is CircuitState.OPEN


async def test_a_process_that_has_nothing_to_store_hears_of_others_after_the_restore_as_well(
    restored: Restored, database_url: str
) -> None:
    async with BreakerStore.open(database_url=restored.proxy.url, policy=QUICK) as store:
        await store.registry.get_breaker(USER).call(ok)
        await store.flush()
        await restored.copy()
        for _ in range(5):
            store.registry.get_breaker(STRANGER).reset()
        await store.flush()
        await follow_to_the_end(store, database_url)
        await restored.restore()
        ear = Ear(store.registry)
        async with BreakerStore.open(database_url=database_url, policy=QUICK) as other:
            await trip(other.registry.get_breaker(USER))
            await other.flush()
        await ear.wait_for_kind(Kind.OPENED)
