"""A process that is told to end by SIGTERM stores or spools what waits, and then ends by the signal (DESIGN rule 17)."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from tests.postgres.proxy import Proxy
from tests.runtime.recorders import numbers_on_disk

STORING = """
import asyncio, logging, os, signal, sys
from breaker_store import BreakerStore

logging.basicConfig(level=logging.WARNING)
database_url, spool_dir, durability, body = sys.argv[1:]

async def ok(): pass

def say(word):
    print(word, flush=True)

async def main():
    async with BreakerStore.open(
        database_url=database_url, spool_dir=spool_dir or None, durability=durability, drain_seconds=1
    ) as store:
        breaker = store.registry.get_breaker(101)
        try:
            await {}(store, breaker)
        finally:
            say("leaving")
    say("left")

async def wait(store, breaker):
    for _ in range(500):
        await breaker.with_durability("behind").call(ok)
    say("ready")
    await asyncio.Event().wait()

async def wait_with_a_handler_of_the_loops(store, breaker):
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    for _ in range(500):
        await breaker.call(ok)
    say("ready")
    await told.wait()

async def take_long_to_end(store, breaker):
    try:
        await wait(store, breaker)
    finally:
        await breaker.call(ok)
        await asyncio.sleep(0.1)

async def wait_twice(store, breaker):
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    await wait(store, breaker)

async def swallow(store, breaker):
    try:
        await wait(store, breaker)
    except asyncio.CancelledError:
        say("swallowed")

{}
asyncio.run(main())
"""

Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start programs that say when they are ready; they end with the test."""
    started: list[Process] = []

    async def start(
        database_url: str,
        spool_dir: Path | str = "",
        durability: str = "behind",
        body: str = "wait",
        first: str = "",
    ) -> Process:
        source = STORING.replace("{}", body, 1).replace("{}", first, 1)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", source, database_url, str(spool_dir), durability, body,
            stdin=PIPE, stdout=PIPE, stderr=PIPE,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def terminate(process: Process, number: int = signal.SIGTERM) -> tuple[list[str], str]:
    """Give what it said on its way out."""
    process.send_signal(number)
    said, complaints = await process.communicate()
    return said.decode().split(), complaints.decode()


async def count_events(connection: asyncpg.Connection) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM breaker_events")
    return count


@pytest.mark.parametrize("durability", ["behind", "journaled", "committed"])
async def test_what_waits_is_stored_before_the_process_ends_by_the_signal(
    start: Start, database_url: str, connection: asyncpg.Connection, tmp_path: Path, durability: str
) -> None:
    process = await start(database_url, tmp_path, durability)
    said, complaints = await terminate(process)
    assert process.returncode == -signal.SIGTERM
    assert said == ["leaving"]
    assert "not stored" not in complaints
    assert await count_events(connection) == 500


async def test_what_can_not_be_stored_in_time_is_spooled_and_said(
    start: Start, database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with Proxy.to(database_url) as proxy:
        process = await start(proxy.url, tmp_path / "spool", body="wait_twice")
        await proxy.close()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"go on\n")
        assert await process.stdout.readline() == b"ready\n"
        _, complaints = await terminate(process)
    assert process.returncode == -signal.SIGTERM
    assert "500 events were not stored and are kept in" in complaints
    assert await count_events(connection) == 0
    assert numbers_on_disk(tmp_path / "spool") == list(range(1, 501))


async def test_what_the_program_does_on_its_way_out_is_stored_too(
    start: Start, database_url: str, connection: asyncpg.Connection
) -> None:
    process = await start(database_url, body="take_long_to_end")
    await terminate(process)
    assert process.returncode == -signal.SIGTERM
    assert await count_events(connection) == 501


async def test_a_program_that_does_not_let_itself_be_cancelled_ends_by_the_signal_all_the_same(
    start: Start, database_url: str, connection: asyncpg.Connection
) -> None:
    process = await start(database_url, body="swallow")
    said, _ = await terminate(process)
    assert process.returncode == -signal.SIGTERM
    assert said == ["swallowed", "leaving"]
    assert await count_events(connection) == 500


async def test_a_second_signal_does_not_cut_the_first_ones_end_short(
    start: Start, database_url: str, connection: asyncpg.Connection
) -> None:
    process = await start(database_url, body="take_long_to_end")
    process.send_signal(signal.SIGTERM)
    await terminate(process)
    assert process.returncode == -signal.SIGTERM
    assert await count_events(connection) == 501


async def test_a_handler_that_the_user_sets_within_is_left_alone(
    start: Start, database_url: str, connection: asyncpg.Connection
) -> None:
    process = await start(database_url, body="wait_with_a_handler_of_the_loops")
    said, _ = await terminate(process)
    assert (process.returncode, said) == (0, ["leaving", "left"])
    assert await count_events(connection) == 500


async def test_a_handler_that_the_user_has_set_before_is_left_alone(
    start: Start, database_url: str, connection: asyncpg.Connection
) -> None:
    process = await start(
        database_url, first="signal.signal(signal.SIGTERM, lambda *_: (say('mine'), os._exit(7)))"
    )
    said, _ = await terminate(process)
    assert (process.returncode, said) == (7, ["mine"])


async def test_a_signal_that_is_ignored_stays_ignored(start: Start, database_url: str) -> None:
    process = await start(database_url, first="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    process.send_signal(signal.SIGTERM)
    said, _ = await terminate(process, signal.SIGINT)
    assert process.returncode != -signal.SIGTERM
    assert said == ["leaving"]


async def test_a_store_in_another_thread_leaves_the_signal_alone(
    start: Start, database_url: str, connection: asyncpg.Connection
) -> None:
    in_a_thread = """
async def wait_a_moment(store, breaker):
    for _ in range(500):
        await breaker.call(ok)
    say("ready")

import threading
thread = threading.Thread(target=lambda: asyncio.run(main()))
thread.start()
thread.join()
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
async def main(): pass
"""
    process = await start(database_url, body="wait_a_moment", first=in_a_thread)
    await process.communicate()
    assert process.returncode == 0
    assert await count_events(connection) == 500


async def test_when_the_store_is_closed_the_signal_has_its_old_meaning(database_url: str) -> None:
    source = STORING.replace("{}", "glance", 1).replace(
        "{}",
        """
async def glance(store, breaker):
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
""",
        1,
    ) + "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", source, database_url, "", "behind", "glance", stdout=PIPE, stderr=PIPE
    )
    _, complaints = await process.communicate()
    assert (process.returncode, complaints) == (0, b"")
