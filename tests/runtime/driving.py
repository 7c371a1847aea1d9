"""Breakers driven from outside: a clock that stands still, calls that end as the test says, and what was recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerRegistry, Policy
from breaker_store.core.events import (
    CircuitState,
    EventId,
    Kind,
    Outcome,
    Permit,
    StoredEvent,
    Transition,
    Verdict,
)
from breaker_store.core.failures import BadAnswer
from breaker_store.ports import Batch, OutcomeRow
from breaker_store.runtime.clock import ManualClock
from breaker_store.runtime.cutting import BatchCutter

USER = 101
SECOND = 1_000_000
START = 1_700_000_000 * SECOND

Way = Callable[[CircuitBreaker, Callable[[], Awaitable[object]]], Awaitable[object]]


class NoAnswerError(Exception):
    """What a sick service brings about."""


async def succeed() -> str:
    return "sent"


async def fail() -> str:
    raise NoAnswerError("no answer")


async def by_call(breaker: CircuitBreaker, func: Callable[[], Awaitable[object]]) -> object:
    return await breaker.call(func)


async def by_block(breaker: CircuitBreaker, func: Callable[[], Awaitable[object]]) -> object:
    async with breaker:
        return await func()


async def by_decorator(breaker: CircuitBreaker, func: Callable[[], Awaitable[object]]) -> object:
    return await breaker(func)()


WAYS: tuple[Way, ...] = (by_call, by_block, by_decorator)


class Call:
    """A call that is under way, and ends as the test says."""

    def __init__(self, breaker: CircuitBreaker, way: Way) -> None:
        loop = asyncio.get_running_loop()
        self.entered: asyncio.Future[None] = loop.create_future()
        self.answer: asyncio.Future[object] = loop.create_future()
        self.task = loop.create_task(self._run(breaker, way))

    async def _run(self, breaker: CircuitBreaker, way: Way) -> object:
        return await way(breaker, self._serve)

    async def _serve(self) -> object:
        self.entered.set_result(None)
        return await self.answer

    async def succeed(self) -> object:
        self.answer.set_result("sent")
        return await self.task

    async def fail(self) -> None:
        self.answer.set_exception(NoAnswerError("no answer"))
        with pytest.raises(NoAnswerError):
            await self.task

    async def be_answered(self, status: int) -> None:
        """End with an answer of this status."""
        self.answer.set_exception(BadAnswer(None, status))
        with pytest.raises(BadAnswer):
            await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def begin(breaker: CircuitBreaker, way: Way = by_call) -> Call:
    """Begin a call and wait until the breaker has let it through; what refuses it is raised."""
    call = Call(breaker, way)
    await asyncio.wait({call.task, call.entered}, return_when=asyncio.FIRST_COMPLETED)
    if call.task.done():
        await call.task
    return call


async def fail_times(breaker: CircuitBreaker, times: int, way: Way = by_call) -> None:
    for _ in range(times):
        with pytest.raises(NoAnswerError):
            await way(breaker, fail)


async def trip(breaker: CircuitBreaker, way: Way = by_call) -> None:
    """Fail as often as the policy bears."""
    await fail_times(breaker, breaker.state.policy.failure_threshold, way)
    assert breaker.state.state is CircuitState.OPEN


async def half_open(breaker: CircuitBreaker, clock: ManualClock, way: Way = by_call) -> Call:
    """Trip the breaker, wait, and give the first probe."""
    await trip(breaker, way)
    clock.advance(breaker.state.policy.timeout_seconds)
    return await begin(breaker, way)


async def recover(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """Trip the breaker and have as many probes succeed as it takes."""
    await (await half_open(breaker, clock)).succeed()
    while breaker.state.state is CircuitState.HALF_OPEN:
        await breaker.call(succeed)


class Recording:
    """A registry whose journal is kept, and cut into batches as its recorder would, with nothing stored anywhere."""

    def __init__(self, policy: Policy | None = None, limit: int = 100_000) -> None:
        self.clock = ManualClock(START)
        self.registry = CircuitBreakerRegistry(policy=policy, clock=self.clock)
        self.journal = self.registry.surroundings.journal
        self.keeper = Keeper()
        self.journal.attach(self.keeper, limit)
        self.cutter = BatchCutter(self.journal, self.clock)

    @property
    def breaker(self) -> CircuitBreaker:
        return self.registry.get_breaker(USER)

    def cut(self, correction_us: int = 0, limit: int = 100_000) -> Batch:
        return self.cutter.cut(limit, correction_us)

    def events(self) -> list[StoredEvent]:
        """Take what waits, as the events it would be read back as."""
        events: list[StoredEvent] = []
        while self.journal.pending:
            events += read(self.cut())
        return events

    def kinds(self) -> list[Kind]:
        return [event.kind for event in self.events()]

    def verdicts(self) -> list[Verdict]:
        return [event.verdict for event in self.events() if isinstance(event, Outcome)]


class Keeper:
    """Has a journal keep what waits, and does nothing with it but to count what it is told."""

    has_spool = False

    def __init__(self) -> None:
        self.woken = self.hurried = self.written_through = 0

    def wake_later(self) -> None:
        self.woken += 1

    def hurry(self) -> None:
        self.hurried += 1

    def write_through(self) -> None:
        self.written_through += 1

    async def committed(self) -> None:
        pass

    def leave_to_parent(self) -> None:
        pass


def read(batch: Batch) -> list[StoredEvent]:
    """Read a batch back, in the order of its numbers, each transition as one that won."""
    outcomes: list[StoredEvent] = [read_outcome(batch.writer_id, row) for row in batch.outcomes]
    won = [replace(transition, position=transition.version) for _, transition in batch.transitions]
    return sorted(outcomes + won, key=lambda event: event.event_id)


def read_outcome(writer_id: int, row: OutcomeRow) -> Outcome:
    at, _, seq, duration_us, generation, era, kind, verdict, probe, count, attempt, trace_id, *texts = row
    return Outcome(
        kind=Kind(kind),  # type: ignore[arg-type]
        event_id=EventId(writer_id, seq),
        at=at,
        permit=Permit(generation, era, probe or 0),
        verdict=Verdict(verdict),
        duration_us=duration_us,
        operation=texts[0],
        error_type=texts[1],
        error_message=texts[2],
        attempt=attempt,
        trace_id=trace_id,
        count=count,
    )


def transitions(events: list[StoredEvent]) -> list[Transition]:
    return [event for event in events if isinstance(event, Transition)]


class Heard:
    """A listener that keeps what it hears, and can be awaited until it has heard so much."""

    def __init__(self) -> None:
        self.news: list[tuple[int | None, Kind]] = []
        self._waiting: list[tuple[int, asyncio.Event]] = []

    def __call__(self, user_id: int | None, transition: Transition) -> None:
        self.news.append((user_id, transition.kind))
        for count, event in self._waiting:
            if len(self.news) >= count:
                event.set()

    @property
    def kinds(self) -> list[Kind]:
        return [kind for _, kind in self.news]

    async def have(self, count: int) -> list[Kind]:
        event = asyncio.Event()
        self._waiting.append((count, event))
        if len(self.news) < count:
            async with asyncio.timeout(5):
                await event.wait()
        return self.kinds
