"""Calls of many users at an even rate, for as long as is wanted, and how long each of them took."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from array import array
from collections import Counter, defaultdict
from typing import NamedTuple

from breaker_store import CircuitBreakerOpenError, CircuitBreakerRegistry, Policy
from breaker_store.core.events import Kind, Transition
from tests.benchmarks.feeding import fail, send_message

USERS = 1_000
FAILURE_SHARE = 0.005
TICK_SECONDS = 0.01

# One in twenty users is served badly, by turns: their breakers open, probe in vain, and close when it is over.
SICK_EVERY = 20
SICK_SECONDS = 10.0
POLICY = Policy(timeout_seconds=3)


class Times(NamedTuple):
    """Nanoseconds of calls: as their callers waited, and from when they were due, with the event loop's share in it."""

    of_calls: array[int]
    since_due: array[int]


class Load:
    """So many calls a second, until cancelled.

    Attributes:
        phase: under which name calls are timed from now on.
        times: by the name of the phase.
        happened: how many calls ended how, and how many transitions there were, for comparison with what is stored.

    """

    def __init__(self, registry: CircuitBreakerRegistry, calls_a_second: int) -> None:
        self.phase = "beginning"
        self.times: defaultdict[str, Times] = defaultdict(lambda: Times(array("Q"), array("Q")))
        self.happened: Counter[Kind] = Counter()
        self._registry = registry
        self._calls_a_tick = round(calls_a_second * TICK_SECONDS)
        registry.subscribe(self._count_transition)

    @property
    def own_bytes(self) -> int:
        """The memory that its figures take, which grows with every call."""
        return sum(len(figures) * figures.itemsize for times in self.times.values() for figures in times)

    async def run(self) -> None:
        begun = time.perf_counter_ns()
        for tick in itertools.count():
            due_ns = begun + round(tick * TICK_SECONDS * 1_000_000_000)
            await asyncio.sleep(max(due_ns - time.perf_counter_ns(), 0) / 1_000_000_000)
            times = self.times[self.phase]
            is_sick = int(tick * TICK_SECONDS / SICK_SECONDS) % SICK_EVERY
            for user_id in random.choices(range(USERS), k=self._calls_a_tick):
                is_failing = user_id % SICK_EVERY == is_sick or random.random() < FAILURE_SHARE
                started_ns = time.perf_counter_ns()
                await self._call(user_id, is_failing=is_failing)
                ended_ns = time.perf_counter_ns()
                times.of_calls.append(ended_ns - started_ns)
                times.since_due.append(ended_ns - due_ns)

    async def _call(self, user_id: int, *, is_failing: bool) -> None:
        try:
            await self._registry.get_breaker(user_id).call(fail if is_failing else send_message)
            self.happened[Kind.SUCCESS] += 1
        except CircuitBreakerOpenError:
            self.happened[Kind.REJECTED] += 1
        except ConnectionError:
            self.happened[Kind.FAILURE] += 1

    def _count_transition(self, _user_id: int | None, transition: Transition) -> None:
        self.happened[transition.kind] += 1
