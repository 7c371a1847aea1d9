"""What was promised of an event is kept, or the caller hears that it is not (DESIGN rule 17)."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerOpenError, NotCommittedError, Policy
from breaker_store.core.events import Kind
from breaker_store.settings import Durability
from tests.runtime.driving import Way, begin, succeed, trip
from tests.runtime.recorders import LeapingLoop, Process, RuledLog, files, on_disk, pass_time, recording

LOOP = LeapingLoop
COMMITTED = Durability.COMMITTED
QUICK = Policy(failure_threshold=2)


async def outlast_damage(process: Process, directory: Path) -> Sequence[object]:
    """Make four calls in an outage, damage what was spooled of the third, and give how they end."""
    calls: list[asyncio.Future[str]] = []
    sizes: list[int] = []
    for _ in range(4):
        calls.append(asyncio.ensure_future(process.breaker.call(succeed)))
        await pass_time(0.5)
        (file,) = files(directory)
        sizes.append(file.stat().st_size)
    data = bytearray(file.read_bytes())
    data[(sizes[1] + sizes[2]) // 2] ^= 0xFF
    file.write_bytes(data)
    await process.log.release()
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_a_committed_call_whose_spooled_event_is_damaged_says_so_and_the_others_return(
    log: RuledLog, directory: Path
) -> None:
    async with recording(log, directory, COMMITTED) as process:
        await process.call(1)
        log.hold()
        ends = await outlast_damage(process, directory)
        assert [isinstance(end, NotCommittedError) for end in ends] == [False, False, True, False]
        assert ends[2].result == "sent"  # type: ignore[attr-defined]
        assert log.numbers() == [1, 2, 3, 5]


async def test_what_was_damaged_does_not_wait_any_more(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory, COMMITTED) as process:
        await process.call(1)
        log.hold()
        await outlast_damage(process, directory)
        stats = process.recorder.stats()
        assert (stats.flushed, stats.set_aside) == (4, 1)
        assert (stats.queued, stats.spooled, stats.oldest_waiting_seconds) == (0, 0, None)


def as_the_store(breaker: CircuitBreaker) -> CircuitBreaker:
    return breaker


def as_this_call(breaker: CircuitBreaker) -> CircuitBreaker:
    return breaker.with_durability("committed")  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("durability", "choose"), [(COMMITTED, as_the_store), (Durability.BEHIND, as_this_call)]
)
@pytest.mark.parametrize("has_spool", [False, True])
async def test_a_committed_call_during_which_the_store_closes_says_that_it_is_not_stored(
    log: RuledLog,
    directory: Path,
    way: Way,
    durability: Durability,
    choose: Callable[[CircuitBreaker], CircuitBreaker],
    *,
    has_spool: bool,
) -> None:
    async with recording(log, directory if has_spool else None, durability) as process:
        call = await begin(choose(process.breaker), way)
        await process.close(1)
        with pytest.raises(NotCommittedError, match="closed"):
            await call.succeed()
        assert log.numbers() == []


async def test_a_committed_call_that_ends_while_the_store_closes_says_that_it_is_not_stored(
    log: RuledLog, directory: Path, way: Way
) -> None:
    async with recording(log, directory, COMMITTED) as process:
        log.hold()
        await process.breaker.with_durability("behind").call(succeed)
        call = await begin(process.breaker, way)
        closing = asyncio.ensure_future(process.close(10))
        await pass_time(1)
        with pytest.raises(NotCommittedError):
            await call.succeed()
        await log.release()
        assert await closing == 0
        assert log.numbers() == [1]


def count_futures() -> int:
    gc.collect()
    return sum(type(each) is asyncio.Future for each in gc.get_objects())


async def test_callers_that_stop_waiting_for_a_commit_leave_nothing_behind(
    log: RuledLog, directory: Path
) -> None:
    async def be_impatient() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await process.breaker.call(succeed)

    async with recording(log, directory, COMMITTED) as process:
        log.hold()
        await be_impatient()
        before = count_futures()
        for _ in range(5):
            await asyncio.gather(*(be_impatient() for _ in range(200)))
        assert count_futures() <= before + 10


@pytest.mark.parametrize("durability", ["journaled", "committed"])
async def test_a_refusal_of_a_call_that_asks_for_more_is_on_disk_when_it_is_raised(
    log: RuledLog, directory: Path, way: Way, durability: str
) -> None:
    async with recording(log, directory, policy=QUICK) as process:
        log.hold()
        await trip(process.breaker)
        assert on_disk(directory) == []
        with pytest.raises(CircuitBreakerOpenError):
            await way(process.breaker.with_durability(durability), succeed)  # type: ignore[arg-type]
        assert [event.kind for event in on_disk(directory)] == [
            Kind.FAILURE,
            Kind.FAILURE,
            Kind.OPENED,
            Kind.REJECTED,
        ]
