"""How long a store takes to start: `python -m tests.benchmarks.startup --data-dir DIR`.

Each start is a new process with new connections, on a database that is warm; what is measured is everything between
being connected and having the breakers. Filling ten million events takes minutes, so name a folder and keep it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack

from breaker_store import BreakerStore, CircuitBreakerRegistry
from breaker_store.postgres.connecting import connect
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.settings import Durability
from tests.benchmarks.databases import add_options, open_server
from tests.benchmarks.filling import find_or_fill, remember_failures
from tests.benchmarks.measuring import Bar, Rounds, judge, show, take_turns

STARTS = 7
NO_TRANSITION_FOLLOWS = 2**62


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--events", type=int, default=10_000_000, help="compared with a tenth of as many")
    parser.add_argument("--breakers", type=int, default=100_000)
    parser.add_argument(
        "--failed-once",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the clean breakers, how many remember a failure",
    )
    arguments = parser.parse_args()
    with open_server(arguments) as server_url:
        rounds = asyncio.run(measure(server_url, arguments))
    many, few = rounds.figures
    show(
        f"start-up, {arguments.breakers:,} breakers",
        ["", "seconds"],
        [[name, f"{rounds.median(name):.3f}"] for name in rounds.figures],
    )
    return judge(
        [
            Bar.at_most(f"over {many}", rounds.median(many), 0.5, " s"),
            Bar.at_most(f"over {many}, of over {few}", rounds.ratio(many, few), 1.2),
        ]
    )


async def measure(server_url: str, arguments: argparse.Namespace) -> Rounds:
    starts = {}
    for events in (arguments.events, arguments.events // 10):
        database_url = await find_or_fill(server_url, events, arguments.breakers)
        connection = await connect(database_url)
        await remember_failures(connection, arguments.failed_once)
        await connection.close()
        starts[f"{events:,} events"] = in_new_process(database_url, arguments.breakers)
    return await take_turns(starts, STARTS)


def in_new_process(database_url: str, breakers: int) -> Callable[[], Awaitable[float]]:
    async def run() -> float:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, time_start, database_url, breakers)

    return run


def time_start(database_url: str, breakers: int) -> float:
    return asyncio.run(_time_start(database_url, breakers))


async def _time_start(database_url: str, breakers: int) -> float:
    registry = CircuitBreakerRegistry()
    log = PostgresEventLog(database_url, registry.surroundings.clock)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(log.close)
        store = BreakerStore(registry, log, spool=None, durability=Durability.BEHIND, queue_limit=1)
        await log.open()
        # Reading has a connection of its own, opened by the first who reads.
        await log.transitions_after(NO_TRANSITION_FOLLOWS, 1)
        started = time.perf_counter()
        await store._load()
        seconds = time.perf_counter() - started
    assert len(registry) == breakers, f"{len(registry)} breakers instead of {breakers}"
    return seconds


if __name__ == "__main__":
    sys.exit(main())
