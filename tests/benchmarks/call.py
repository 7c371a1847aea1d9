"""What a call costs: `python -m tests.benchmarks.call`.

Our journal is attached, as a recorder attaches it, and emptied after every thousand calls, as the recorder takes it
every 20 ms. That is not in a call's figure; what the recorder then does for each event (cutting and sealing) runs
between the calls and is shown by itself.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from breaker_store.postgres.codec import seal
from breaker_store.runtime.breaker import CircuitBreaker
from breaker_store.runtime.cutting import BatchCutter
from breaker_store.runtime.registry import CircuitBreakerRegistry
from tests.benchmarks import peers
from tests.benchmarks.measuring import Bar, Rounds, judge, show, take_turns
from tests.benchmarks.peers import fail, fail_often, work
from tests.runtime.driving import Keeper

CALLS_A_SEGMENT = 1_000
SEGMENTS_A_ROUND = 10
ROUNDS = 40
REFUSALS_TIMED_ONE_BY_ONE = 100_000
IDLE_BREAKERS = 100_000

Timed = Callable[[], Awaitable[float]]


async def main() -> int:
    calls = await measure_calls()
    show_calls(calls)
    refusals = await measure_refusals()
    slowest_us = await measure_slow_refusals()
    show_refusals(refusals, slowest_us)
    idle_bytes = measure_memory()
    show("memory", ["", "bytes"], [["an idle breaker, with its place in the registry", f"{idle_bytes:.0f}"]])
    return judge(
        [
            Bar.at_most("a recorded call, of purgatory", calls.ratio("ours", "purgatory"), 1.2),
            Bar.at_most("a recorded call, of circuitbreaker", calls.ratio("ours", "circuitbreaker"), 1.0),
            Bar.at_most("a recorded call, of twenty lines", calls.ratio("ours", "twenty lines"), 1.4),
            Bar.at_most("a refusal, of circuitbreaker", refusals.ratio("ours", "circuitbreaker"), 1.0),
            Bar.at_most("a refusal, p99.9", slowest_us, 1_000, " µs"),
            Bar.at_most("an idle breaker", idle_bytes, 400, " bytes"),
        ]
    )


async def measure_calls() -> Rounds:
    ours, drain = recorded_breaker()
    twenty = peers.TwentyLines()
    purgatory = await peers.make_purgatory()
    protected = peers.make_circuitbreaker().decorate(work)
    aiobreaker = peers.make_aiobreaker()

    async def call_ours() -> None:
        for _ in range(CALLS_A_SEGMENT):
            await ours.call(work)

    async def enter_ours() -> None:
        for _ in range(CALLS_A_SEGMENT):
            async with ours:
                await work()

    async def call_twenty() -> None:
        for _ in range(CALLS_A_SEGMENT):
            await twenty.call(work)

    async def enter_purgatory() -> None:
        for _ in range(CALLS_A_SEGMENT):
            async with purgatory:
                await work()

    async def call_circuitbreaker() -> None:
        for _ in range(CALLS_A_SEGMENT):
            await protected()

    async def call_aiobreaker() -> None:
        for _ in range(CALLS_A_SEGMENT):
            await aiobreaker.call_async(work)

    async def call_bare() -> None:
        for _ in range(CALLS_A_SEGMENT):
            await work()

    return await take_turns(
        {
            "bare await": timed(call_bare),
            "twenty lines": timed(call_twenty, twenty.log.clear),
            "ours": timed(call_ours, drain),
            "ours, async with": timed(enter_ours, drain),
            "purgatory": timed(enter_purgatory),
            "circuitbreaker": timed(call_circuitbreaker),
            "aiobreaker": timed(call_aiobreaker),
            "cut and seal": recording(ours, call_ours),
        },
        ROUNDS,
    )


def recorded_breaker() -> tuple[CircuitBreaker, Callable[[], None]]:
    """Make a breaker whose calls are kept, and what empties its journal."""
    registry = CircuitBreakerRegistry()
    journal = registry.surroundings.journal
    journal.attach(Keeper(), 1_000_000)
    breaker = registry.get_breaker(101)

    def drain() -> None:
        breaker.end_counting_refusals()
        journal.pending.clear()

    return breaker, drain


def timed(segment: Callable[[], Awaitable[None]], afterwards: Callable[[], None] = lambda: None) -> Timed:
    """Time a round of segments, in nanoseconds a call; what comes after a segment is not in it."""

    async def run() -> float:
        spent_ns = 0
        for _ in range(SEGMENTS_A_ROUND):
            started_ns = time.perf_counter_ns()
            await segment()
            spent_ns += time.perf_counter_ns() - started_ns
            afterwards()
        return spent_ns / (SEGMENTS_A_ROUND * CALLS_A_SEGMENT)

    return run


def recording(breaker: CircuitBreaker, segment: Callable[[], Awaitable[None]]) -> Timed:
    """Time what the recorder does to send a thousand calls, up to the database, in nanoseconds a call."""
    surroundings = breaker._surroundings
    cutter = BatchCutter(surroundings.journal, surroundings.clock)

    async def run() -> float:
        spent_ns = 0
        for _ in range(SEGMENTS_A_ROUND):
            await segment()
            started_ns = time.perf_counter_ns()
            seal(replace(cutter.cut(CALLS_A_SEGMENT, 0), batch_no=1))
            spent_ns += time.perf_counter_ns() - started_ns
        return spent_ns / (SEGMENTS_A_ROUND * CALLS_A_SEGMENT)

    return run


async def measure_refusals() -> Rounds:
    ours, drain = recorded_breaker()
    await fail_often(lambda: ours.call(fail))
    circuitbreaker = peers.make_circuitbreaker()
    await fail_often(circuitbreaker.decorate(fail))
    protected = circuitbreaker.decorate(work)
    aiobreaker = peers.make_aiobreaker()
    await fail_often(lambda: aiobreaker.call_async(fail))
    twenty = peers.TwentyLines()
    await fail_often(lambda: twenty.call(fail))
    return await take_turns(
        {
            "twenty lines": timed(refused(twenty.call, work)),
            "ours": timed(refused(ours.call, work), drain),
            "circuitbreaker": timed(refused(protected)),
            "aiobreaker": timed(refused(aiobreaker.call_async, work)),
        },
        ROUNDS,
    )


def refused(call: Callable[..., Awaitable[object]], *arguments: object) -> Callable[[], Awaitable[None]]:
    async def segment() -> None:
        refusals = 0
        for _ in range(CALLS_A_SEGMENT):
            try:
                await call(*arguments)
            except Exception:
                refusals += 1
        assert refusals == CALLS_A_SEGMENT

    return segment


async def measure_slow_refusals() -> float:
    """Time refusals one by one; give the longest but one in a thousand, in microseconds."""
    ours, drain = recorded_breaker()
    await fail_often(lambda: ours.call(fail))
    times_ns: list[int] = []
    for number in range(REFUSALS_TIMED_ONE_BY_ONE):
        started_ns = time.perf_counter_ns()
        with suppress(Exception):
            await ours.call(work)
        times_ns.append(time.perf_counter_ns() - started_ns)
        if number % CALLS_A_SEGMENT == 0:
            drain()
    return statistics.quantiles(times_ns, n=1_000)[-1] / 1_000


def measure_memory() -> float:
    """Give the bytes that a breaker takes that was only ever asked for."""
    registry = CircuitBreakerRegistry()
    gc.collect()
    tracemalloc.start()
    for user_id in range(10**9, 10**9 + IDLE_BREAKERS):
        registry.get_breaker(user_id)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / IDLE_BREAKERS


def show_calls(calls: Rounds) -> None:
    rows = [
        [name, f"{calls.median(name):,.0f}", f"{calls.ratio('ours', name):.2f}"]
        for name in calls.figures
        if name != "cut and seal"
    ]
    show("a successful call", ["", "ns", "ours is x times"], rows)
    behind = calls.median("cut and seal")
    show(
        "behind the calls, for each event",
        ["", "ns"],
        [
            ["cutting and sealing", f"{behind:,.0f}"],
            ["with the call", f"{behind + calls.median('ours'):,.0f}"],
        ],
    )


def show_refusals(refusals: Rounds, slowest_us: float) -> None:
    rows = [
        [name, f"{refusals.median(name):,.0f}", f"{refusals.ratio('ours', name):.2f}"]
        for name in refusals.figures
    ]
    show(
        "a refused call",
        ["", "ns", "ours is x times"],
        [*rows, ["ours, p99.9", f"{slowest_us * 1_000:,.0f}", ""]],
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
