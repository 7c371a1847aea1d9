"""How the recorder flushes and ends, over a log whose answers a test keeps back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerRegistry, LedgerError
from breaker_store.memory import MemoryBatch, MemoryEventLog
from breaker_store.ports import Batch, Fate
from breaker_store.runtime.recorder import Recorder
from breaker_store.settings import Durability
from tests.runtime.driving import USER, fail_times, succeed
from tests.runtime.recorders import (
    LeapingLoop,
    RuledLog,
    files,
    numbers_on_disk,
    pass_time,
    recording,
    restart,
)

LOOP = LeapingLoop
EVERY_DURABILITY = pytest.mark.parametrize("durability", Durability)


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


async def call_behind(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        await breaker.with_durability("behind").call(succeed)


@EVERY_DURABILITY
async def test_a_close_stores_what_waits_and_leaves_no_file(
    log: RuledLog, directory: Path, durability: Durability
) -> None:
    async with recording(log, directory, durability) as process:
        await call_behind(process.breaker, 2_500)
        assert await process.close(10) == 0
    assert log.numbers() == list(range(1, 2_501))
    assert files(directory) == []


@EVERY_DURABILITY
@pytest.mark.parametrize("drain_seconds", [0, 3])
async def test_a_close_that_can_not_store_spools_and_says_how_much_and_the_next_start_delivers_it(
    log: RuledLog,
    directory: Path,
    durability: Durability,
    drain_seconds: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with recording(log, directory, durability) as process:
        await call_behind(process.breaker, 2)
        await process.recorder.flush()
        log.is_away = True
        await call_behind(process.breaker, 7)
        await pass_time(0.5)
        await call_behind(process.breaker, 5)
        assert await process.close(drain_seconds) == 12
    assert f"12 events were not stored and are kept in {directory}: the next start stores them" in caplog.text
    assert numbers_on_disk(directory) == list(range(3, 15))
    log.is_away = False
    next_process = await restart(log, directory)
    assert next_process.recorder.stats().flushed == 12
    assert log.numbers() == list(range(1, 15))


@EVERY_DURABILITY
@pytest.mark.parametrize("seconds", [0.03, 0.5], ids=["a moment ago", "long ago"])
@pytest.mark.parametrize("stored", [False, True])
async def test_a_batch_that_was_under_way_when_the_store_closed_is_stored_once(
    log: RuledLog, directory: Path, durability: Durability, seconds: float, *, stored: bool
) -> None:
    """Whether the log had it and lost the answer, or never got it."""
    async with recording(log, directory, durability) as process:
        if stored:
            log.answers_to_lose = 1_000
        else:
            log.hold()
        await call_behind(process.breaker, 3)
        await fail_times(process.registry.get_breaker(7).with_durability("behind"), 1)
        await pass_time(seconds)
        await call_behind(process.breaker, 2)
        await process.close(0)
        log.answers_to_lose = 0
        await log.release()
    assert log.numbers() == ([1, 2, 3, 4] if stored else [])
    await restart(log, directory)
    assert log.numbers() == [1, 2, 3, 4, 5, 6]


async def test_a_close_waits_for_an_outage_that_ends_in_time(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory) as process:
        log.is_away = True
        await process.call(100, seconds_apart=0.01)
        closing = asyncio.ensure_future(process.close(30))
        await pass_time(5)
        assert not closing.done()
        log.is_away = False
        assert await closing == 0
    assert log.numbers() == list(range(1, 101))
    assert files(directory) == []


async def test_a_close_without_a_spool_says_how_much_is_lost_and_why(
    log: RuledLog, caplog: pytest.LogCaptureFixture
) -> None:
    async with recording(log) as process:
        log.is_away = True
        await process.call(7)
        await pass_time(1)
        assert await process.close(1) == 7
        stats = process.recorder.stats()
        assert (stats.lost, stats.lost_why) == (7, "the store was closed before they could be stored")
    assert "7 events were not stored and are lost: the log is away" in caplog.text


async def test_what_comes_during_a_close_that_stores_all_that_waits_is_said_to_have_come_too_late(
    log: RuledLog, caplog: pytest.LogCaptureFixture
) -> None:
    async with recording(log) as process:
        await process.call(7)
        process.recorder.subscribe(lambda _batch, _seconds: process.breaker.call_sync(int))
        assert await process.close(10) == 0
    assert log.numbers() == [1, 2, 3, 4, 5, 6, 7]
    assert "1 events were not stored and are lost: they came while the store was being closed" in caplog.text


async def test_a_close_that_is_cancelled_spools_what_waits(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory) as process:
        log.hold()
        await process.call(10)
        closing = asyncio.ensure_future(process.close(3_600))
        await pass_time(1)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
    assert numbers_on_disk(directory) == list(range(1, 11))


async def test_closing_twice_is_as_closing_once(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory) as process:
        log.is_away = True
        await process.call(3)
        assert await process.close(0) == 3
        assert await process.close(0) == 0
    assert numbers_on_disk(directory) == [1, 2, 3]


async def test_what_a_defect_keeps_from_being_stored_is_spooled_and_tried_again(
    log: RuledLog, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(_batch: object) -> bool:
        raise ZeroDivisionError("our own mistake")

    async with recording(log, directory) as process:
        await process.call(1)
        await process.recorder.flush()
        log.refuses = stumble
        await process.call(3)
        await process.call(50, seconds_apart=0.01)
        await pass_time(0.05)
        assert numbers_on_disk(directory) == list(range(2, 55))
        assert "our own mistake" in str(process.recorder.stats().last_error)
        log.refuses = lambda _batch: False
        await process.recorder.flush()
    assert "failed unexpectedly, and is tried again" in caplog.text
    assert log.numbers() == list(range(1, 55))


async def test_a_recorder_that_was_closed_can_not_be_flushed(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory) as process:
        await process.call(1)
        await process.close(10)
        with pytest.raises(LedgerError):
            await process.recorder.flush()


async def test_a_listener_hears_of_what_was_stored_and_of_nothing_else() -> None:
    log, heard = RuledLog(), []
    log.refuses = lambda batch: any(row[2] == 2 for row in batch.outcomes)
    async with recording(log, drain_seconds=10) as process:
        unsubscribe = process.recorder.subscribe(lambda batch, _seconds: heard.append(batch))
        for _ in range(3):
            await process.breaker.call(succeed)
        await process.recorder.flush()
        unsubscribe()
        await process.breaker.call(succeed)
        await process.recorder.flush()
    assert [row[2] for batch in heard for row in batch.outcomes] == [1, 3]
    assert log.numbers() == [1, 3, 4]


async def test_a_listener_is_told_how_long_a_flush_took() -> None:
    log, heard = RuledLog(), []
    log.seconds_per_batch = 1.5
    async with recording(log, drain_seconds=10) as process:
        process.recorder.subscribe(lambda _batch, seconds: heard.append(seconds))
        await process.breaker.call(succeed)
        await process.recorder.flush()
    assert heard == [pytest.approx(1.5)]


async def test_a_listener_that_raises_is_logged_and_hurts_neither_recording_nor_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def complain(_batch: Batch, _seconds: float) -> None:
        raise ValueError("no room for more series")

    log, heard = RuledLog(), []
    async with recording(log, drain_seconds=10) as process:
        process.recorder.subscribe(complain)
        process.recorder.subscribe(lambda batch, _seconds: heard.append(batch.event_count))
        for _ in range(2):
            await process.breaker.call(succeed)
            await process.recorder.flush()
    assert (log.numbers(), heard) == ([1, 2], [1, 1])
    assert caplog.text.count("failed on what was stored") == 2
    assert "no room for more series" in caplog.text
