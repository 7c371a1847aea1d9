"""SIGTERM where there are two stores, and where it comes a second time (DESIGN rule 17)."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from breaker_store.store import deliver_spool
from tests.postgres.proxy import Proxy

CALLS = {1: 500, 2: 20_000}
"""The second store has several batches to send when the first is done."""

PROGRAM = """
import asyncio, sys
from breaker_store import BreakerStore

database_url, spool_dir, body = sys.argv[1:]
open_ones = []

async def ok(): pass

def say(*words):
    print(*words, flush=True)

async def keep(number):
    async with BreakerStore.open(
        database_url=database_url, spool_dir=f"{spool_dir}/{number}" if spool_dir else None, drain_seconds=20
    ) as store:
        for _ in range(%r[number]):
            await store.registry.get_breaker(number).call(ok)
        open_ones.append(number)
        if len(open_ones) == 2 or body != "gather":
            say("ready")
        try:
            await asyncio.Event().wait()
        finally:
            if body == "one":
                say("leaving")

async def gather():
    await asyncio.gather(keep(1), keep(2))

async def one():
    try:
        await keep(1)
    finally:
        say("closed")

async def swallow():
    async with BreakerStore.open(database_url=database_url):
        say("ready")
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                say("swallowed")

asyncio.run({"gather": gather, "one": one, "swallow": swallow}[body]())
""" % (CALLS,)  # noqa: UP031 - it has braces of its own


@asynccontextmanager
async def running(database_url: str, spool_dir: Path | str, body: str) -> AsyncIterator[Process]:
    """Start a program that says when it is ready; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, database_url, str(spool_dir), body, stdout=PIPE, stderr=PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def count_events(connection: asyncpg.Connection) -> dict[int, int]:
    rows = await connection.fetch("SELECT user_id, count(*) FROM breaker_events GROUP BY user_id")
    return dict(rows)


async def end_by_sigterm(database_url: str, spool_dir: Path | str) -> None:
    async with Proxy.to(database_url) as proxy, running(proxy.url, spool_dir, "gather") as process:
        proxy.delay_seconds = 0.05
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == -signal.SIGTERM


async def test_two_stores_in_sibling_tasks_are_both_closed_before_the_process_ends(
    database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """What one of them can't store any more, it spools."""
    await end_by_sigterm(database_url, tmp_path)
    for number in CALLS:
        await deliver_spool(database_url, tmp_path / str(number))
    assert await count_events(connection) == CALLS


async def test_a_second_signal_ends_a_store_at_once_that_waits_for_its_database(
    database_url: str, tmp_path: Path
) -> None:
    async with Proxy.to(database_url) as proxy, running(proxy.url, tmp_path, "one") as process:
        proxy.freeze()
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"leaving\n"
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await process.wait() == -signal.SIGTERM
        assert await process.stdout.read() == b""


async def test_a_second_signal_ends_a_program_that_does_not_let_itself_be_cancelled(
    database_url: str,
) -> None:
    async with running(database_url, "", "swallow") as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert await process.stdout.readline() == b"swallowed\n"
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await process.wait() == -signal.SIGTERM
