"""How soon a committed transition is on the stream: `python -m tests.benchmarks.stream`.

A store commits single transitions at random moments, while another process records two thousand calls a second, some of
which open and close breakers; the admin API is a process of its own, as users have it. Timed is from the moment at which
the committing client knows of the commit to the moment at which an HTTP client has the event, with one reader and with
many. The floor is in the same run: a loop that asks Postgres itself at the stream's interval, and does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from breaker_store import BreakerStore
from breaker_store.postgres.connecting import connect
from breaker_store.postgres.migrating import upgrade
from tests.benchmarks.databases import add_options, open_server
from tests.benchmarks.load import POLICY, Load
from tests.benchmarks.measuring import Bar, console, judge, percentile, show

PATH = "/api/admin/system/circuit-breakers/transitions/stream"
READERS = (1, 100)
CALLS_A_SECOND = 2_000
POLL_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.08
PROBED_USER = 10**12
BAR_MS = 150
NANOSECONDS_IN_MILLISECOND = 1_000_000

_LAST = (
    "SELECT position, writer_id, writer_seq FROM breaker_transitions WHERE position >= $1 ORDER BY position"
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--commits", type=int, default=500, help="for each number of readers")
    parser.add_argument("--only-load", metavar="URL", help="be the process that records calls")
    arguments = parser.parse_args()
    if arguments.only_load:
        asyncio.run(record(arguments.only_load))
        return 0
    with open_server(arguments) as database_url:
        return asyncio.run(measure(database_url, arguments.commits))


async def record(database_url: str) -> None:
    async with BreakerStore.open(database_url=database_url, policy=POLICY) as store:
        print("recording", flush=True)
        await Load(store.registry, CALLS_A_SECOND).run()


async def measure(database_url: str, commits: int) -> int:
    await upgrade(database_url)
    rows, bars = [], []
    async with (
        running("-m", "breaker_store.cli", "serve", "--port", "0", "--database-url", database_url) as (
            api,
            said,
        ),
        running("-m", "tests.benchmarks.stream", "--only-load", database_url),
        BreakerStore.open(database_url=database_url, policy=POLICY) as store,
    ):
        address = re.findall(r"http://\S+", said)[0]
        for readers in READERS:
            before = resident_kilobytes(api)
            async with Floor.of(database_url) as floor, reading(address, readers) as arrivals:
                committed = await commit(store, commits)
                await asyncio.wait_for(arrivals.wait_for(list(committed)[-1], readers), 10)
                taken = (resident_kilobytes(api) - before) / readers
            on_stream, polled = arrivals.since(committed), floor.arrivals.since(committed)
            who = f"{readers} reader{'s' if readers > 1 else ''}"
            # Of one reader it would be what the process needs for the first one of all.
            rows += [
                row(who, on_stream, f"{taken:.0f}" if readers > 1 else ""),
                row("a bare poll", polled, ""),
            ]
            complete = len(on_stream) == readers * commits
            bars.append(Bar(f"{who}: each has each event", f"{len(on_stream)}", complete))
            bars.append(
                Bar.at_most(
                    f"{who}: p99", percentile(on_stream, 99) / NANOSECONDS_IN_MILLISECOND, BAR_MS, " ms"
                )
            )
    show("from commit to the client, ms", ["", "p50", "p99", "longest", "server's kB a reader"], rows)
    console.print(f"{commits} commits each, {CALLS_A_SECOND:,} calls a second beside them")
    return judge(bars)


def row(name: str, times_ns: list[int], kilobytes: str) -> list[str]:
    return [
        name,
        *(f"{percentile(times_ns, percent) / NANOSECONDS_IN_MILLISECOND:.1f}" for percent in (50, 99, 100)),
        kilobytes,
    ]


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[tuple[Process, str]]:
    """Run a process of Python that says a line when it is ready."""
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=PIPE, env=os.environ)
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode()
    finally:
        process.terminate()
        await process.wait()


def resident_kilobytes(process: Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


async def commit(store: BreakerStore, count: int) -> dict[str, int]:
    """Commit transitions one by one; give when each was known to be committed, by its event's id."""
    committed = {}
    breaker = store.registry.get_breaker(PROBED_USER)
    for _ in range(count):
        await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))
        breaker.reset()
        await store.flush()
        committed[str(breaker.state.last_transition)] = time.perf_counter_ns()
    return committed


class Arrivals:
    """When events arrived, by their ids; with many readers many times."""

    def __init__(self) -> None:
        self.times: dict[str, list[int]] = {}
        self._news = asyncio.Event()

    def add(self, event_id: str) -> None:
        self.times.setdefault(event_id, []).append(time.perf_counter_ns())
        self._news.set()

    def since(self, committed: dict[str, int]) -> list[int]:
        """Give how long after its commit each event arrived; nothing if it was there before its committer knew."""
        return [
            max(at - then, 0) for event_id, then in committed.items() for at in self.times.get(event_id, ())
        ]

    async def wait_for(self, event_id: str, times: int) -> None:
        while len(self.times.get(event_id, ())) < times:
            self._news.clear()
            await self._news.wait()


class Reader(asyncio.Protocol):
    """Reads a stream, and of each event nothing but its id."""

    def __init__(self, arrivals: Arrivals, started: asyncio.Semaphore) -> None:
        self._arrivals, self._started = arrivals, started
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            found = re.search(rb"id: \d+\.(\S+)\nevent: transition", block)
            if found is not None:
                self._arrivals.add(found[1].decode())
            elif b"event: started" in block:
                self._started.release()


@asynccontextmanager
async def reading(address: str, readers: int) -> AsyncIterator[Arrivals]:
    arrivals, started = Arrivals(), asyncio.Semaphore(0)
    parts = urlsplit(address)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(readers):
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: Reader(arrivals, started), parts.hostname, parts.port
            )
            stack.callback(transport.abort)
            transport.write(f"GET {PATH} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        for _ in range(readers):
            await started.acquire()
        yield arrivals


class Floor:
    """A loop that asks for what is new, and does nothing with it."""

    def __init__(self) -> None:
        self.arrivals = Arrivals()

    @classmethod
    @asynccontextmanager
    async def of(cls, database_url: str) -> AsyncIterator[Floor]:
        floor = cls()
        connection = await connect(database_url)
        polling = asyncio.create_task(floor._poll(connection))
        try:
            yield floor
        finally:
            polling.cancel()
            await asyncio.wait({polling})
            connection.terminate()

    async def _poll(self, connection) -> None:
        position = await connection.fetchval("SELECT last FROM log_position")
        while True:
            for each in await connection.fetch(_LAST, position + 1):
                position = each["position"]
                self.arrivals.add(f"{each['writer_id']}-{each['writer_seq']}")
            await asyncio.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
