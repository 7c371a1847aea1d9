"""A store with a spool loses nothing by an outage, and a restart undoes nothing (DESIGN rules 10, 13 and 16)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from breaker_store import (
    BreakerStore,
    CircuitBreakerOpenError,
    CircuitState,
    LogUnavailableError,
    SpoolBusyError,
)
from breaker_store.core.rebuild import rebuild
from breaker_store.store import deliver_spool
from tests.postgres.living import QUICK, USER, fail, ok, timeless, trip
from tests.postgres.proxy import Proxy
from tests.postgres.stored import contradicting_batches, read_events
from tests.runtime.recorders import files, numbers_on_disk

NUMBERS = "SELECT writer_seq FROM breaker_events ORDER BY writer_id, writer_seq"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy.to(database_url) as proxy:
        yield proxy


async def numbers(connection: asyncpg.Connection) -> list[int]:
    return [row["writer_seq"] for row in await connection.fetch(NUMBERS)]


async def test_an_outage_goes_by_way_of_the_spool_and_everything_is_stored_once(
    proxy: Proxy, connection: asyncpg.Connection, directory: Path
) -> None:
    async with BreakerStore.open(database_url=proxy.url, spool_dir=directory, policy=QUICK) as store:
        breaker = store.registry.get_breaker(USER)
        await breaker.call(ok)
        await store.flush()
        await proxy.close()
        await breaker.call(ok)
        await trip(store.registry.get_breaker(7))
        async with asyncio.timeout(10):
            while store.recorder.stats().spooled < 10:
                await breaker.call(ok)
                await asyncio.sleep(0.01)
        with pytest.raises(CircuitBreakerOpenError):
            await store.registry.get_breaker(7).call(ok)
        await proxy.open()
        await store.flush()
        stats = store.recorder.stats()
        assert (stats.queued, stats.spooled, stats.lost, stats.set_aside) == (0, 0, 0, 0)
        assert files(directory) == []
        assert await numbers(connection) == list(range(1, stats.flushed + 1))
        assert store.registry.surroundings.unconfirmed == {}
    assert await contradicting_batches(connection) == []


async def test_a_trip_that_was_only_in_the_spool_is_in_force_after_the_restart(
    proxy: Proxy, database_url: str, connection: asyncpg.Connection, directory: Path
) -> None:
    async with BreakerStore.open(
        database_url=proxy.url, spool_dir=directory, policy=QUICK, drain_seconds=0
    ) as store:
        await store.registry.get_breaker(USER).call(ok)
        await store.flush()
        await proxy.close()
        for user_id in (USER, USER + 1):
            await trip(store.registry.get_breaker(user_id))
        opened_by = store.registry.get_breaker(USER).state.opened_by
    assert await numbers(connection) == [1]
    async with BreakerStore.open(database_url=database_url, spool_dir=directory, policy=QUICK) as store:
        assert store.registry.get_open_breakers() == [USER, USER + 1]
        state = store.registry.get_breaker(USER).state
        assert state.opened_by == opened_by
        assert 0 < store.registry.get_breaker(USER).get_state()["timeout_remaining"] <= QUICK.timeout_seconds
        assert timeless(state) == timeless(rebuild(QUICK, await read_events(connection, USER)))
        assert store.recorder.stats().flushed == 6
    assert files(directory) == []


async def test_a_trip_by_hand_or_a_reset_that_was_only_in_the_spool_is_in_force_as_well(
    proxy: Proxy, database_url: str, directory: Path
) -> None:
    async with BreakerStore.open(
        database_url=proxy.url, spool_dir=directory, policy=QUICK, drain_seconds=0
    ) as store:
        await trip(store.registry.get_breaker(USER))
        await store.flush()
        await proxy.close()
        store.registry.reset_breaker(USER)
    async with BreakerStore.open(database_url=database_url, spool_dir=directory, policy=QUICK) as store:
        assert store.registry.get_breaker(USER).state.state is CircuitState.CLOSED


async def test_a_run_of_failures_goes_on_where_the_spool_left_it(
    proxy: Proxy, database_url: str, directory: Path
) -> None:
    async with BreakerStore.open(
        database_url=proxy.url, spool_dir=directory, policy=QUICK, drain_seconds=0
    ) as store:
        await proxy.close()
        await fail(store.registry.get_breaker(USER), QUICK.failure_threshold - 1)
    async with BreakerStore.open(database_url=database_url, spool_dir=directory, policy=QUICK) as store:
        await fail(store.registry.get_breaker(USER))
        assert store.registry.get_open_breakers() == [USER]


@pytest.mark.parametrize("durability", ["behind", "journaled", "committed"])
async def test_a_batch_that_was_under_way_when_the_store_closed_is_stored_once(
    proxy: Proxy, database_url: str, connection: asyncpg.Connection, directory: Path, durability: str
) -> None:
    """Postgres has it, and its answer was lost."""
    async with BreakerStore.open(
        database_url=proxy.url, spool_dir=directory, durability=durability, drain_seconds=0.3
    ) as store:
        await store.registry.get_breaker(USER).call(ok)
        await store.flush()
        proxy.answers_to_lose = 1_000
        for _ in range(3):
            await store.registry.get_breaker(USER).with_durability("behind").call(ok)
        store.registry.get_breaker(7).reset()
    await deliver_spool(database_url, directory)
    assert await numbers(connection) == [1, 2, 3, 4, 5]
    assert await contradicting_batches(connection) == []


async def test_a_database_that_is_away_at_the_start_takes_nothing_from_the_spool(
    proxy: Proxy, database_url: str, connection: asyncpg.Connection, directory: Path
) -> None:
    async with BreakerStore.open(database_url=proxy.url, spool_dir=directory, drain_seconds=0) as store:
        await proxy.close()
        for _ in range(5):
            await store.registry.get_breaker(USER).call(ok)
    with pytest.raises(LogUnavailableError):
        async with BreakerStore.open(database_url=proxy.url, spool_dir=directory):
            pass
    assert numbers_on_disk(directory) == [1, 2, 3, 4, 5]
    async with BreakerStore.open(database_url=database_url, spool_dir=directory):
        assert await numbers(connection) == [1, 2, 3, 4, 5]


async def test_two_stores_can_not_have_one_spool(database_url: str, directory: Path) -> None:
    async with BreakerStore.open(database_url=database_url, spool_dir=directory) as store:
        with pytest.raises(SpoolBusyError, match=r"each process needs a directory of its own"):
            async with BreakerStore.open(database_url=database_url, spool_dir=directory):
                pass
        await store.registry.get_breaker(USER).call(ok)
        await store.flush()
    async with BreakerStore.open(database_url=database_url, spool_dir=directory):
        pass


async def test_an_orderly_process_leaves_nothing_but_the_lock(database_url: str, directory: Path) -> None:
    async with BreakerStore.open(
        database_url=database_url, spool_dir=directory, durability="journaled"
    ) as store:
        for _ in range(2_500):
            await store.registry.get_breaker(USER).call(ok)
    assert [path.name for path in directory.iterdir()] == ["lock"]  # noqa: ASYNC240


async def test_what_found_no_room_is_told_in_the_database(
    proxy: Proxy, connection: asyncpg.Connection, directory: Path
) -> None:
    async with BreakerStore.open(
        database_url=proxy.url, spool_dir=directory, spool_limit_bytes=2**20
    ) as store:
        await store.registry.get_breaker(USER).call(ok)
        await store.flush()
        await proxy.close()
        async with asyncio.timeout(20):
            while store.recorder.stats().lost < 50:
                for _ in range(1_000):
                    await store.registry.get_breaker(USER).call(ok)
                await asyncio.sleep(0.01)
        await proxy.open()
        await store.flush()
        lost = store.recorder.stats().lost
    assert await connection.fetchval("SELECT sum(successes) FROM log_gaps") == lost
    assert await connection.fetchval("SELECT count(*) FROM breaker_events") == store.recorder.stats().flushed


async def forget_everything(connection: asyncpg.Connection) -> None:
    """Be restored to the state before the first event."""
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for table in ("breaker_events", "breaker_states", "writer_batches", "log_gaps"):
            triggers = await connection.fetch(
                "SELECT tgrelid::regclass::text AS of, tgname FROM pg_trigger WHERE NOT tgisinternal"
            )
            for trigger in triggers:
                await connection.execute(f"ALTER TABLE {trigger['of']} DISABLE TRIGGER {trigger['tgname']}")
            await connection.execute(f"DELETE FROM {table}")
        await connection.execute("UPDATE log_position SET last = 0")


async def test_a_breaker_that_the_restored_database_does_not_know_goes_on_and_can_trip(
    database_url: str, owner: asyncpg.Connection, directory: Path
) -> None:
    async with BreakerStore.open(database_url=database_url, spool_dir=directory, policy=QUICK) as store:
        breaker = store.registry.get_breaker(USER)
        await breaker.call(ok)
        await store.flush()
        await forget_everything(owner)
        await breaker.call(ok)
        await trip(breaker)
        await store.flush()
        stats = store.recorder.stats()
        assert (stats.flushed, stats.lost, stats.lost_why) == (5, 1, "the database has forgotten them")
        assert await numbers(owner) == [2, 3, 4, 5]
        assert breaker.state.state is CircuitState.OPEN
        assert await owner.fetchval("SELECT state FROM breaker_states WHERE user_id = $1", USER) == 1
