"""A registry has one store at a time, and whoever uses it after that learns that nothing is stored any more."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import asyncpg
import pytest

from breaker_store import BreakerStore, CircuitBreakerRegistry, ConfigurationError, LedgerError

USER = 101


async def ok() -> str:
    return "sent"


async def count_events(connection: asyncpg.Connection) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM breaker_events")
    return count


async def test_a_registry_that_has_a_store_gets_no_second_one_and_the_first_goes_on(
    database_url: str, connection: asyncpg.Connection
) -> None:
    registry = CircuitBreakerRegistry()
    async with BreakerStore.open(database_url=database_url, registry=registry) as store:
        await registry.get_breaker(USER).call(ok)
        with pytest.raises(ConfigurationError, match="a store already"):
            async with BreakerStore.open(database_url=database_url, registry=registry):
                pass
        await registry.get_breaker(USER).call(ok)
        await store.flush()
        assert await count_events(connection) == 2


async def test_a_registry_whose_store_was_closed_can_have_another(
    database_url: str, connection: asyncpg.Connection
) -> None:
    registry = CircuitBreakerRegistry()
    for _ in range(2):
        async with BreakerStore.open(database_url=database_url, registry=registry):
            await registry.get_breaker(USER).call(ok)
    assert await count_events(connection) == 2


async def test_a_registry_whose_store_could_not_be_opened_can_have_another(
    database_url: str, unused_tcp_port: int, connection: asyncpg.Connection
) -> None:
    registry = CircuitBreakerRegistry()
    with pytest.raises(Exception, match="can't be reached"):
        async with BreakerStore.open(
            database_url=f"postgresql://me@127.0.0.1:{unused_tcp_port}/bots", registry=registry
        ):
            pass
    async with BreakerStore.open(database_url=database_url, registry=registry):
        await registry.get_breaker(USER).call(ok)
    assert await count_events(connection) == 1


async def test_what_happens_after_the_store_was_closed_is_said_to_be_lost_once(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with BreakerStore.open(database_url=database_url) as store:
        await store.registry.get_breaker(USER).call(ok)
    assert "nothing is stored any more" not in caplog.text
    for _ in range(3):
        await store.registry.get_breaker(USER).call(ok)
        store.registry.get_breaker(USER).reset()
    assert caplog.text.count("nothing is stored any more") == 1


async def test_a_store_that_was_closed_can_not_be_flushed(database_url: str) -> None:
    async with BreakerStore.open(database_url=database_url) as store:
        await store.flush()
    with pytest.raises(LedgerError):
        await store.flush()


async def test_a_store_whose_end_is_cancelled_ends_all_the_same(
    database_url: str,
) -> None:
    registry, before = CircuitBreakerRegistry(), asyncio.all_tasks()

    async def open_and_be_cancelled_at_the_end() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        async with BreakerStore.open(database_url=database_url, registry=registry):
            loop.call_soon(task.cancel)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(open_and_be_cancelled_at_the_end())
    assert not registry.surroundings.journal.kept
    assert asyncio.all_tasks() == before


FORKING = """
import asyncio, os, sys
from breaker_store import BreakerStore, LedgerError

async def ok(): pass

async def flush_in_the_child(store, writing):
    os.write(writing, b"begun ")
    await store.registry.get_breaker(101).call(ok)
    try:
        # As far as it gets without the event loop, which is the parent's.
        store.flush().send(None)
    except LedgerError:
        os.write(writing, b"refused")

async def main():
    async with BreakerStore.open(database_url=sys.argv[1]) as store:
        await store.registry.get_breaker(101).call(ok)
        await store.flush()
        reading, writing = os.pipe()
        if os.fork() == 0:
            try:
                await flush_in_the_child(store, writing)
            finally:
                os._exit(0)
        os.wait()
        print(os.read(reading, 1_000).decode())
        await store.registry.get_breaker(101).call(ok)
        await store.flush()

asyncio.run(main())
"""


async def test_a_forked_child_can_not_flush_and_its_parent_goes_on(
    database_url: str, connection: asyncpg.Connection
) -> None:
    finished = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", FORKING, database_url],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert finished.stdout.strip() == "begun refused"
    assert await count_events(connection) == 2
