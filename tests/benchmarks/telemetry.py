"""What it costs to be followed by OpenTelemetry, and counted for Prometheus: `python -m tests.benchmarks.telemetry`.

The call is made within a sampled span of the real SDK, once by a breaker that nobody follows and once by one that is
followed. What is counted for Prometheus are batches of a thousand successes, as the recorder hands them over; beside it
stands what the client's own metrics would take for the same.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast

import prometheus_client
from opentelemetry.sdk.trace import TracerProvider

from breaker_store import BreakerStore, CircuitBreakerRegistry
from breaker_store.integrations import opentelemetry, prometheus
from breaker_store.memory import MemoryEventLog
from breaker_store.ports import Batch, Fate
from breaker_store.postgres.codec import seal
from breaker_store.runtime.breaker import CircuitBreaker
from breaker_store.runtime.cutting import BatchCutter
from breaker_store.runtime.recorder import Recorder
from tests.benchmarks.call import CALLS_A_SEGMENT, ROUNDS, SEGMENTS_A_ROUND, Timed, timed
from tests.benchmarks.measuring import Rounds, show, take_turns
from tests.benchmarks.peers import work
from tests.runtime.driving import Keeper


class RecordedStore:
    """What `instrument` needs of a store: a registry whose calls are kept, and a recorder, which does not run."""

    def __init__(self) -> None:
        self.registry = CircuitBreakerRegistry()
        self.surroundings = self.registry.surroundings
        journal, clock = self.surroundings.journal, self.surroundings.clock
        journal.attach(Keeper(), 1_000_000)
        self.breaker = self.registry.get_breaker(101)
        self.cutter = BatchCutter(journal, clock)
        self.recorder = Recorder(journal, clock, MemoryEventLog(), _settle_nothing)

    def cut(self) -> Batch:
        return self.cutter.cut(CALLS_A_SEGMENT, 0)

    def drain(self) -> None:
        self.surroundings.journal.pending.clear()


async def _settle_nothing(_fates: list[Fate]) -> None:
    pass


async def main() -> None:
    with ExitStack() as followed:
        plain, traced = RecordedStore(), RecordedStore()
        followed.enter_context(opentelemetry.instrument(cast("BreakerStore", traced)))
        followed.enter_context(TracerProvider().get_tracer("a bot").start_as_current_span("answer"))
        rounds = await take_turns(
            {
                "a call": timed(calling(plain.breaker), plain.drain),
                "a call that is traced": timed(calling(traced.breaker), traced.drain),
                "cutting and sealing": behind(plain, seal_batch),
                "cutting and sealing, traced": behind(traced, seal_batch),
                "counting for Prometheus": behind(plain, our_count(plain)),
                "the same by the client's metrics": behind(plain, count_as_the_client_does()),
            },
            ROUNDS,
        )
    show_costs(rounds)


def calling(breaker: CircuitBreaker) -> Callable[[], Awaitable[None]]:
    async def segment() -> None:
        for _ in range(CALLS_A_SEGMENT):
            await breaker.call(work)

    return segment


def seal_batch(batch: Batch) -> None:
    seal(replace(batch, batch_no=1))


def behind(store: RecordedStore, take: Callable[[Batch], object]) -> Timed:
    """Time what is done with batches of a thousand calls, in nanoseconds a call; with cutting if they are sealed."""
    segment = calling(store.breaker)

    async def run() -> float:
        spent_ns = 0
        for _ in range(SEGMENTS_A_ROUND):
            await segment()
            batch = None if take is seal_batch else store.cut()
            started_ns = time.perf_counter_ns()
            take(batch or store.cut())
            spent_ns += time.perf_counter_ns() - started_ns
        return spent_ns / (SEGMENTS_A_ROUND * CALLS_A_SEGMENT)

    return run


def our_count(store: RecordedStore) -> Callable[[Batch], object]:
    collector = prometheus._StoreCollector(cast("BreakerStore", store), frozenset())
    return lambda batch: collector.take(batch, 0.001)


def count_as_the_client_does() -> Callable[[Batch], object]:
    events: Any = prometheus_client.Counter(
        "events", "Events", ["kind", "state", "error_type"], registry=None
    )
    durations: Any = prometheus_client.Histogram("durations", "Durations", ["kind"], registry=None)

    def count(batch: Batch) -> None:
        for row in batch.outcomes:
            events.labels("success", "closed", row[13] or "").inc()
            durations.labels("success").observe((row[3] or 0) / 1_000_000)

    return count


def show_costs(rounds: Rounds) -> None:
    rows = [[name, f"{rounds.median(name):,.0f}"] for name in rounds.figures]
    show("for each call", ["", "ns"], rows)
    more = rounds.difference("a call that is traced", "a call")
    show("what is added", ["", "ns"], [["to a call by tracing it", f"{more:,.0f}"]])


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
