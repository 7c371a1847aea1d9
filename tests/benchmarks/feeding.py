"""Calls of many users, and the ways of their events into the tables that benchmarks compare, a portion at a time.

A portion is what waits when the time begins to run: to make the calls and to cut them into batches is not in it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from breaker_store import BreakerStore
from breaker_store.ports import Batch
from breaker_store.postgres.codec import OUTCOME_COLUMNS, PostgresBatch, seal, to_datetime
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.cutting import BatchCutter
from breaker_store.runtime.registry import CircuitBreakerRegistry
from tests.runtime.driving import Keeper

BATCH_SIZE = 1_000
BATCHES_A_PORTION = 20
EVENTS_A_PORTION = BATCH_SIZE * BATCHES_A_PORTION
MESSAGE = "Cannot connect to host 127.0.0.1:8443 ssl:default!"

Timed = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class Traffic:
    """Calls of so many users, of which a share fails."""

    users: int
    failure_share: float

    async def call_breakers(self, registry: CircuitBreakerRegistry) -> None:
        for user_id in random.choices(range(self.users), k=EVENTS_A_PORTION):
            function = fail if random.random() < self.failure_share else send_message
            with suppress(Exception):
                await registry.get_breaker(user_id).call(function)


async def send_message() -> int:
    return 1


async def fail() -> None:
    raise ConnectionError(MESSAGE)


send_message.__name__ = fail.__name__ = "sendMessage"


class Feed:
    """Calls that are cut into batches as a recorder cuts them."""

    def __init__(self, traffic: Traffic) -> None:
        self.registry = CircuitBreakerRegistry()
        self._traffic = traffic
        surroundings = self.registry.surroundings
        surroundings.journal.attach(Keeper(), 10 * EVENTS_A_PORTION)
        self._cutter = BatchCutter(surroundings.journal, surroundings.clock)

    async def batches(self) -> list[Batch]:
        await self._traffic.call_breakers(self.registry)
        return [self._cutter.cut(BATCH_SIZE, 0) for _ in range(BATCHES_A_PORTION)]


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
    return [
        (to_datetime(at), batch.writer_id, *countable, user_id, *texts, trace_id)
        for at, user_id, *countable, trace_id, operation, error_type, message in batch.outcomes
        for texts in ((operation, error_type, message),)
    ]


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


def outcomes_alone(batch: Batch) -> Batch:
    """Leave out what a batch changes in breakers' rows, as COPY does."""
    return replace(batch, marks=(), newcomers={})


def recording(store: BreakerStore, traffic: Traffic) -> Timed:
    """Time a recorder that finds a portion's events waiting."""

    async def run() -> float:
        await traffic.call_breakers(store.registry)
        started = time.perf_counter()
        await store.flush()
        return time.perf_counter() - started

    return run
