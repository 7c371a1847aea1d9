"""How the recorder flushes and ends, over a log whose answers a test keeps back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerRegistry, LedgerError
from breaker_store.memory import MemoryBatch, MemoryEventLog
from breaker_store.ports import Fate
from breaker_store.runtime.recorder import Recorder
from tests.runtime.driving import USER, succeed


class SlowLog(MemoryEventLog):
    """A log whose appends wait for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def append(self, sealed: MemoryBatch) -> list[Fate]:
        self.asked.set()
        await self.go_on.wait()
        return await super().append(sealed)


class LoopThatKnowsItsTimers(asyncio.SelectorEventLoop):
    """An event loop that keeps the timers which were neither cancelled nor have come to their end."""

    def __init__(self) -> None:
        super().__init__()
        self._timers: list[tuple[asyncio.TimerHandle, list[None]]] = []

    @property
    def timers_set(self) -> int:
        return sum(1 for handle, ended in self._timers if not handle.cancelled() and not ended)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        ended: list[None] = []

        def end(*arguments: Any) -> None:
            ended.append(None)
            callback(*arguments)

        handle = super().call_later(delay, end, *args, context=context)
        self._timers.append((handle, ended))
        return handle


async def settle_nothing(_fates: list[Fate]) -> None:
    pass


def recorder_of(registry: CircuitBreakerRegistry, log: MemoryEventLog) -> Recorder:
    surroundings = registry.surroundings
    return Recorder(surroundings.journal, surroundings.clock, log, settle_nothing)


async def flush_while_calls_go_on(breaker: CircuitBreaker, log: SlowLog, recorder: Recorder) -> None:
    """Have a call come in while the one before it is being stored."""
    await breaker.call(succeed)
    flushing = asyncio.ensure_future(recorder.flush())
    await log.asked.wait()
    await breaker.call(succeed)
    log.go_on.set()
    await flushing
    log.asked.clear()
    log.go_on.clear()


def test_at_most_one_timer_waits_for_the_next_flush_however_many_there_were() -> None:
    async def count_timers() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, LoopThatKnowsItsTimers)
        registry, log = CircuitBreakerRegistry(), SlowLog()
        recorder = recorder_of(registry, log)
        recorder.start()
        most = 0
        for _ in range(20):
            await flush_while_calls_go_on(registry.get_breaker(USER), log, recorder)
            most = max(most, loop.timers_set)
        log.go_on.set()
        await recorder.close(10)
        return most

    with asyncio.Runner(loop_factory=LoopThatKnowsItsTimers) as runner:
        assert runner.run(count_timers()) <= 1


async def test_a_close_that_is_cancelled_ends_recording_all_the_same() -> None:
    registry, log, before = CircuitBreakerRegistry(), SlowLog(), asyncio.all_tasks()
    recorder = recorder_of(registry, log)
    recorder.start()
    await registry.get_breaker(USER).call(succeed)
    closing = asyncio.ensure_future(recorder.close(3_600))
    await log.asked.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert asyncio.all_tasks() == before
    assert not registry.surroundings.journal.kept
    with pytest.raises(LedgerError):
        await recorder.flush()
