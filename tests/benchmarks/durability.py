"""What durability costs a call: `python -m tests.benchmarks.durability`.

Journaled over behind: single successful calls, timed one by one at a pace of 10,000 a second while the recorder of a
real store sends them to a real database. Beside it the same calls with a recorder whose log is nowhere, a thousand timed
at once: what is left when the timer, and all that Postgres does to a processor's caches, are taken away.

Committed: calls of one caller, one after the other, by turns with transactions of one row on a connection of their
own, prepared, into the same table; and the calls of 64 callers at once.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from array import array
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import NamedTuple

from breaker_store import BreakerStore, CircuitBreaker, CircuitBreakerRegistry, Policy
from breaker_store.core.state import BreakerState
from breaker_store.ports import Batch, Fate, RecorderReport, StoredTransition
from breaker_store.postgres.codec import OUTCOME_COLUMNS, to_datetime
from breaker_store.postgres.connecting import Connection, connect
from breaker_store.postgres.migrating import upgrade
from breaker_store.runtime.durable import DurableBreaker
from breaker_store.runtime.recorder import Recorder
from breaker_store.settings import Durability
from breaker_store.spool import Spool
from tests.benchmarks.databases import add_options, open_server
from tests.benchmarks.feeding import Timed
from tests.benchmarks.measuring import Bar, Rounds, judge, percentile, show, take_turns
from tests.benchmarks.peers import work

USER = 101
CALLS_A_SEGMENT = 50
SEGMENT_SECONDS = 0.005
SEGMENTS_A_ROUND = 200
BULK_CALLS = 1_000
BULKS_A_ROUND = 10
COMMITS_A_ROUND = 50
CALLERS = 64
CALLS_A_CALLER = 20

_INSERT_ONE = f"""
INSERT INTO {{}} ({", ".join(OUTCOME_COLUMNS)})
VALUES ({", ".join(f"${number}" for number, _ in enumerate(OUTCOME_COLUMNS, 1))})
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=20, help="of about half a minute together")
    arguments = parser.parse_args()
    with open_server(arguments) as database_url:
        return asyncio.run(measure(database_url, arguments.rounds))


async def measure(database_url: str, rounds: int) -> int:
    await upgrade(database_url)
    with tempfile.TemporaryDirectory(prefix="breaker-store-benchmark-spool-") as folder:
        journaling = await measure_journaling(database_url, Path(folder), rounds)
        committing = await measure_committing(database_url, Path(folder), rounds)
    return judge([*journaling, *committing])


async def measure_journaling(database_url: str, folder: Path, rounds: int) -> list[Bar]:
    async with AsyncExitStack() as stack:
        behind = await stack.enter_async_context(BreakerStore.open(database_url=database_url))
        journaled = await stack.enter_async_context(
            BreakerStore.open(
                database_url=database_url, spool_dir=folder / "journaled", durability=Durability.JOURNALED
            )
        )
        singles = {"behind": SingleCalls(behind), "journaled": SingleCalls(journaled)}
        in_store = await take_turns({name: each.run for name, each in singles.items()}, rounds)
    in_bulk = await measure_bulks(folder / "bulk", rounds)
    show_journaling(in_store, in_bulk, singles)
    asked = "journaled over behind"
    return [
        Bar.at_most(asked, in_store.difference("journaled", "behind") / 1_000, 3, " µs"),
        Bar.at_most(f"{asked}, no Postgres", in_bulk.difference("journaled", "behind") / 1_000, 3, " µs"),
    ]


class SingleCalls:
    """Successful calls of one breaker, timed one by one, while its recorder runs.

    Attributes:
        times_ns: of all calls of all rounds but the first, which does not count.

    """

    def __init__(self, store: BreakerStore) -> None:
        self.times_ns = array("Q")
        self._store = store
        self._begun = False

    async def run(self) -> float:
        """Give a round's median in nanoseconds."""
        times_ns = array("Q")
        breaker = self._store.registry.get_breaker(USER)
        for _ in range(SEGMENTS_A_ROUND):
            for _ in range(CALLS_A_SEGMENT):
                started_ns = time.perf_counter_ns()
                await breaker.call(work)
                times_ns.append(time.perf_counter_ns() - started_ns)
            await asyncio.sleep(SEGMENT_SECONDS)
        await self._store.flush()
        if self._begun:
            self.times_ns.extend(times_ns)
        self._begun = True
        return statistics.median(times_ns)


async def measure_bulks(folder: Path, rounds: int) -> Rounds:
    async with AsyncExitStack() as stack:
        spool = stack.enter_context(closing(Spool(folder)))
        contestants = {}
        for durability, where in ((Durability.BEHIND, None), (Durability.JOURNALED, spool)):
            surroundings = CircuitBreakerRegistry().surroundings
            recorder = Recorder(
                surroundings.journal,
                surroundings.clock,
                Nowhere(),
                Nowhere.settle,
                spool=where,
                durability=durability,
            )
            recorder.start()
            stack.push_async_callback(recorder.close, 1)
            contestants[durability.value] = bulk(
                CircuitBreaker.of_registry(USER, BreakerState(Policy()), surroundings), recorder
            )
        return await take_turns(contestants, rounds)


class Unsealed(NamedTuple):
    batch: Batch
    digest: bytes = b""


class Nowhere:
    """A log that has everything as soon as it is sent, and nothing when it is asked."""

    correction_us = 0

    @staticmethod
    async def settle(fates: list[Fate]) -> None:
        pass

    async def keep_time(self) -> None:
        pass

    def seal(self, batch: Batch) -> Unsealed:
        return Unsealed(batch)

    async def append(self, sealed: Unsealed) -> list[Fate]:
        return []

    async def ledger_head(self, writer_id: int) -> None:
        return None

    async def report(self, report: RecorderReport) -> None:
        pass

    async def read_breaker(self, user_id: int, policy: Policy) -> None:
        return None

    async def transitions_after(self, position: int, limit: int) -> list[StoredTransition]:
        return []


def bulk(breaker: CircuitBreaker, recorder: Recorder) -> Timed:
    """Time calls a thousand at once, in nanoseconds each, with the recorder's turns in between."""

    async def run() -> float:
        spent_ns = 0
        for _ in range(BULKS_A_ROUND):
            started_ns = time.perf_counter_ns()
            for _ in range(BULK_CALLS):
                await breaker.call(work)
            spent_ns += time.perf_counter_ns() - started_ns
            await recorder.flush()
        return spent_ns / (BULKS_A_ROUND * BULK_CALLS)

    return run


def show_journaling(in_store: Rounds, in_bulk: Rounds, singles: dict[str, SingleCalls]) -> None:
    rows = [
        [
            name,
            *(f"{percentile(each.times_ns, percent) / 1_000:.2f}" for percent in (50, 99, 99.9)),
            f"{in_bulk.median(name) / 1_000:.2f}",
        ]
        for name, each in singles.items()
    ]
    rows.append(
        [
            "journaled over behind",
            f"{in_store.difference('journaled', 'behind') / 1_000:+.2f}",
            "",
            "",
            f"{in_bulk.difference('journaled', 'behind') / 1_000:+.2f}",
        ]
    )
    show("a successful call, µs", ["", "p50", "p99", "p99.9", "no Postgres"], rows)


async def measure_committing(database_url: str, folder: Path, rounds: int) -> list[Bar]:
    async with AsyncExitStack() as stack:
        connection = await connect(database_url)
        stack.push_async_callback(connection.close)
        plain = await stack.enter_async_context(BreakerStore.open(database_url=database_url))
        spooling = await stack.enter_async_context(
            BreakerStore.open(database_url=database_url, spool_dir=folder / "committed")
        )
        today = await connection.fetchval("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
        figures = await take_turns(
            {
                "a transaction": await inserting(connection, "breaker_events"),
                "the same into the day itself": await inserting(connection, f"breaker_outcomes_{today}"),
                "one caller": calling(plain, 1, COMMITS_A_ROUND),
                "one caller, with a spool": calling(spooling, 1, COMMITS_A_ROUND),
                f"{CALLERS} callers": calling(plain, CALLERS, CALLS_A_CALLER),
                f"{CALLERS} callers, with a spool": calling(spooling, CALLERS, CALLS_A_CALLER),
            },
            rounds,
        )
    show_committing(figures)
    return judge_committing(figures)


async def inserting(connection: Connection, table: str) -> Timed:
    """Time transactions of one row, in seconds each."""
    statement = await connection.prepare(_INSERT_ONE.format(table))

    async def run() -> float:
        started = time.perf_counter()
        for number in range(COMMITS_A_ROUND):
            now = to_datetime(time.time_ns() // 1_000)
            await statement.fetch(
                now, USER, 1, number, 1, 0, 0, 1, 0, None, None, None, None, "work", None, None
            )
        return (time.perf_counter() - started) / COMMITS_A_ROUND

    return run


def calling(store: BreakerStore, callers: int, calls: int) -> Timed:
    """Time calls that are committed, in seconds each; of many callers at once, by how long all take together."""
    breakers = [
        store.registry.get_breaker(USER + number).with_durability(Durability.COMMITTED)
        for number in range(callers)
    ]

    async def run() -> float:
        started = time.perf_counter()
        await asyncio.gather(*(call_often(breaker, calls) for breaker in breakers))
        return (time.perf_counter() - started) / (callers * calls)

    return run


async def call_often(breaker: DurableBreaker, calls: int) -> None:
    for _ in range(calls):
        await breaker.call(work)


def show_committing(figures: Rounds) -> None:
    rows = [
        [
            name,
            f"{figures.median(name) * 1_000_000:,.0f}",
            f"{1 / figures.median(name):,.0f}",
            f"{figures.ratio(name, 'a transaction'):.2f}",
        ]
        for name in figures.figures
    ]
    show("committed", ["", "µs each", "a second", "of a transaction"], rows)


def judge_committing(figures: Rounds) -> list[Bar]:
    bars = []
    for suffix in ("", ", with a spool"):
        one, many = f"one caller{suffix}", f"{CALLERS} callers{suffix}"
        bars += [
            Bar.at_most(f"committed, {one}, of a transaction", figures.ratio(one, "a transaction"), 1.5),
            Bar.at_least(f"committed, {many}, throughput of one", figures.ratio(one, many), 10),
        ]
    return bars


if __name__ == "__main__":
    sys.exit(main())
