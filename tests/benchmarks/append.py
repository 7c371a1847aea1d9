"""What durable appending costs: `python -m tests.benchmarks.append`.

Batches of a thousand outcomes go into the real tables, by turns as raw COPY and as the store does it, on the same
database: one process, one transaction a batch, synchronous_commit on. Of the calls, one in ten fails; each such run of
failures also changes its breaker's row twice, when it begins and when it ends. "Outcomes alone" leaves that out, as
COPY does.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any

from breaker_store import BreakerStore
from breaker_store.ports import Batch
from breaker_store.postgres.codec import OUTCOME_COLUMNS, PostgresBatch, seal, to_datetime
from breaker_store.postgres.connecting import Connection, connect
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.migrating import upgrade
from breaker_store.runtime.cutting import BatchCutter
from breaker_store.runtime.registry import CircuitBreakerRegistry
from tests.benchmarks.databases import add_options, open_server
from tests.benchmarks.measuring import Bar, Rounds, judge, show, take_turns

BATCH_SIZE = 1_000
BATCHES_A_ROUND = 20
EVENTS_A_ROUND = BATCH_SIZE * BATCHES_A_ROUND
ROUNDS = 12
USERS = 10_000
FAILURE_SHARE = 0.1
MESSAGE = "Cannot connect to host 127.0.0.1:8443 ssl:default!"

Timed = Callable[[], Awaitable[float]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    with open_server(parser.parse_args()) as database_url:
        rounds = asyncio.run(measure(database_url))
    show_rounds(rounds)
    return judge([bar for name in ("outcomes alone", "store, from breakers") for bar in bars(rounds, name)])


def bars(rounds: Rounds, name: str) -> list[Bar]:
    return [
        Bar.at_least(f"{name}, of COPY of tuples", rounds.ratio("COPY of tuples", name), 0.85),
        Bar.at_least(name, EVENTS_A_ROUND / rounds.median(name), 60_000, " events/s"),
    ]


async def measure(database_url: str) -> Rounds:
    await upgrade(database_url)
    async with AsyncExitStack() as stack:
        connection = await connect(database_url)
        stack.push_async_callback(connection.close)
        feed = Feed()
        log = PostgresEventLog(database_url, feed.registry.surroundings.clock)
        stack.push_async_callback(log.close)
        await log.open()
        store = await stack.enter_async_context(BreakerStore.open(database_url=database_url))
        sender = Sender(log)
        return await take_turns(
            {
                "COPY of bytes": copying_bytes(connection, feed),
                "COPY of tuples": copying_tuples(connection, feed),
                "outcomes alone": sender.sending(feed, lambda batch: replace(batch, marks=(), newcomers={})),
                "with breakers' rows": sender.sending(feed, lambda batch: batch),
                "store, from breakers": recording(store),
            },
            ROUNDS,
        )


class Feed:
    """Calls of many users, cut into batches as a recorder cuts them."""

    def __init__(self) -> None:
        self.registry = CircuitBreakerRegistry()
        surroundings = self.registry.surroundings
        surroundings.journal.attach(lambda: None, lambda: None, 10 * EVENTS_A_ROUND)
        self._cutter = BatchCutter(surroundings.journal, surroundings.clock)

    async def batches(self) -> list[Batch]:
        await call_breakers(self.registry)
        return [self._cutter.cut(BATCH_SIZE, 0) for _ in range(BATCHES_A_ROUND)]


async def call_breakers(registry: CircuitBreakerRegistry) -> None:
    users = random.choices(range(USERS), k=EVENTS_A_ROUND)
    for user_id in users:
        function = fail if random.random() < FAILURE_SHARE else send_message
        with suppress(Exception):
            await registry.get_breaker(user_id).call(function)


async def send_message() -> int:
    return 1


async def fail() -> None:
    raise ConnectionError(MESSAGE)


send_message.__name__ = fail.__name__ = "sendMessage"


def copying_bytes(connection: Connection, feed: Feed) -> Timed:
    async def run() -> float:
        ready = [seal(batch).copy_data() for batch in await feed.batches()]
        started = time.perf_counter()
        for data in ready:
            await connection.copy_to_table(
                "breaker_events", source=memoryview(data), columns=OUTCOME_COLUMNS, format="binary"
            )
        return time.perf_counter() - started

    return run


def copying_tuples(connection: Connection, feed: Feed) -> Timed:
    async def run() -> float:
        ready = [records(batch) for batch in await feed.batches()]
        started = time.perf_counter()
        for rows in ready:
            await connection.copy_records_to_table("breaker_events", records=rows, columns=OUTCOME_COLUMNS)
        return time.perf_counter() - started

    return run


def records(batch: Batch) -> Sequence[tuple[Any, ...]]:
    return [(to_datetime(at), user_id, batch.writer_id, *others) for at, user_id, *others in batch.outcomes]


class Sender:
    """Sends batches as one writer, each after its predecessor."""

    def __init__(self, log: PostgresEventLog) -> None:
        self._log = log
        self._writer_id = random.randrange(1, 2**63)
        self._batch_no = 0
        self._last: PostgresBatch | None = None

    def sending(self, feed: Feed, prepare: Callable[[Batch], Batch]) -> Timed:
        async def run() -> float:
            ready = [prepare(batch) for batch in await feed.batches()]
            started = time.perf_counter()
            for batch in ready:
                await self._send(batch)
            return time.perf_counter() - started

        return run

    async def _send(self, batch: Batch) -> None:
        self._batch_no += 1
        digest = self._last and self._last.digest
        numbered = replace(batch, writer_id=self._writer_id, batch_no=self._batch_no, previous_digest=digest)
        self._last = self._log.seal(numbered)
        await self._log.append(self._last)


def recording(store: BreakerStore) -> Timed:
    """Time a recorder that finds a round's events waiting."""

    async def run() -> float:
        await call_breakers(store.registry)
        started = time.perf_counter()
        await store.flush()
        return time.perf_counter() - started

    return run


def show_rounds(rounds: Rounds) -> None:
    rows = [
        [
            name,
            f"{EVENTS_A_ROUND / rounds.median(name):,.0f}",
            f"{rounds.ratio('COPY of tuples', name):.2f}",
            f"{rounds.ratio('COPY of bytes', name):.2f}",
        ]
        for name in rounds.figures
    ]
    show("durable append, batches of 1,000", ["", "events/s", "of COPY of tuples", "of COPY of bytes"], rows)


if __name__ == "__main__":
    sys.exit(main())
