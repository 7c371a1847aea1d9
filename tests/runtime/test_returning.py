"""What a log that comes back, late or by and by, is told: everything, once, and what is missing (DESIGN rules 12 and 16)."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from breaker_store import BreakerStore, CircuitState, Policy
from breaker_store.memory import MemoryBatch
from breaker_store.ports import Fate, GapReason
from breaker_store.runtime.clock import ManualClock
from breaker_store.runtime.recorder import BATCH_SIZE
from breaker_store.runtime.recovering import deliver_leftovers
from breaker_store.runtime.tally import Tally
from breaker_store.settings import Durability
from breaker_store.spool import Spool
from tests.postgres import living
from tests.postgres.proxy import Proxy
from tests.runtime.driving import START, NoAnswerError, fail_times, succeed, trip
from tests.runtime.recorders import (
    LeapingLoop,
    Process,
    RuledLog,
    are_consecutive,
    files,
    pass_time,
    recording,
    restart,
)

LOOP = LeapingLoop
TICK_SECONDS = 0.02
SLICE_BYTES = 65_536


class BusyLog(RuledLog):
    """A log during whose every answer something else happens."""

    async def meanwhile(self) -> None:
        """Do nothing, until a test says otherwise."""

    async def keep_time(self) -> None:
        await self.meanwhile()
        await super().keep_time()
        await self.meanwhile()

    async def append(self, sealed: MemoryBatch) -> list[Fate]:
        await self.meanwhile()
        try:
            return await super().append(sealed)
        finally:
            await self.meanwhile()


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("seed", range(6))
async def test_calls_at_every_moment_of_an_outage_and_a_return_are_stored_once(
    directory: Path, durability: Durability, seed: int
) -> None:
    log, dice = BusyLog(), random.Random(seed)
    calls: list[asyncio.Future[str]] = []

    async def call_some() -> None:
        for _ in range(dice.choice((0, 0, 1, 2, 7, 60)) if len(calls) < 3_000 else 0):
            calls.append(asyncio.ensure_future(process.breaker.call(succeed)))
        for _ in range(dice.randrange(3)):
            await asyncio.sleep(0)

    async with recording(log, directory, durability) as process:
        log.meanwhile = call_some  # type: ignore[method-assign]
        for _ in range(8):
            log.is_away, log.answers_to_lose = True, dice.randrange(2)
            for _ in range(dice.randrange(60)):
                await call_some()
                await pass_time(dice.random() * 0.03)
            log.is_away = False
            while len(calls) < 3_000 and dice.random() < 0.95:
                await call_some()
                await pass_time(dice.random() * 0.03)
        await asyncio.gather(*calls)
        await process.recorder.flush()
        stats = process.recorder.stats()
        assert (stats.set_aside, stats.lost, stats.spooled, stats.queued) == (0, 0, 0, 0)
        assert log.numbers() == list(range(1, len(calls) + 1))


async def test_a_journaled_event_that_still_waits_in_memory_is_not_sent_from_disk_as_well(
    directory: Path,
) -> None:
    """It is copied to the file while what is before it, and on disk alone, is on its way."""
    log = BusyLog()
    async with recording(log, directory, Durability.JOURNALED) as process:
        log.is_away = True
        await process.call(100, seconds_apart=0.01)
        log.meanwhile = lambda: process.call(3)  # type: ignore[method-assign]
        log.is_away = False
        await log.be_asked(len(log.asked) + 5)
        del log.meanwhile
        await process.recorder.flush()
        stats = process.recorder.stats()
        assert (stats.set_aside, stats.lost, stats.last_error) == (0, 0, "the log is away")
        assert are_consecutive(log.numbers())


async def call_steadily(process: Process, per_second: int, seconds: float) -> int:
    """Call so often; give how many events waited in memory at most."""
    most = 0
    for _ in range(round(seconds / TICK_SECONDS)):
        await process.call(round(per_second * TICK_SECONDS))
        await pass_time(TICK_SECONDS)
        most = max(most, len(process.journal.pending))
    return most


@pytest.mark.parametrize("per_second", [10_000, 20_000])
async def test_what_a_slow_log_can_not_take_in_time_goes_to_the_spool_and_nothing_is_lost(
    log: RuledLog, directory: Path, per_second: int
) -> None:
    """No batch takes as long as would show that the log is away."""
    log.seconds_per_batch = 0.15
    async with recording(log, directory, queue_limit=8_000) as process:
        most = await call_steadily(process, per_second, 4)
        stats = process.recorder.stats()
        assert (stats.lost, stats.set_aside) == (0, 0)
        assert most <= max(per_second * 0.3, BATCH_SIZE * 1.5)
        assert (stats.spooled > 0) == (per_second > BATCH_SIZE / 0.15)
        await process.recorder.flush()
        assert are_consecutive(log.numbers())
        assert len(log.numbers()) == 4 * per_second


@pytest.mark.parametrize("per_second", [2_000, 6_000, 12_000])
async def test_after_a_hiccup_a_load_that_went_directly_goes_directly_again(
    log: RuledLog, directory: Path, per_second: int
) -> None:
    """The log takes 20,000 a second, if nothing but it is waited for."""
    log.seconds_per_batch = 0.1
    async with recording(log, directory) as process:
        await call_steadily(process, per_second, 1)
        assert process.recorder.stats().spooled == 0
        log.hold()
        await call_steadily(process, per_second, 2)
        assert process.recorder.stats().spooled > 0
        await log.release()
        await call_steadily(process, per_second, 7)
        assert process.recorder.stats().spooled == 0
        assert files(directory) == []
        await call_steadily(process, per_second, 1)
        assert process.recorder.stats().spooled == 0
        await process.recorder.flush()
        assert log.numbers() == list(range(1, 11 * per_second + 1))


def test_a_breaker_whose_first_success_found_no_room_trips_for_everybody(
    database_url: str, directory: Path
) -> None:
    """In real time, by an event loop of its own."""
    asyncio.run(asyncio.wait_for(trip_after_a_success_that_found_no_room(database_url, directory), 50))


async def trip_after_a_success_that_found_no_room(database_url: str, directory: Path) -> None:
    newcomer = 777
    async with (
        Proxy.to(database_url) as proxy,
        BreakerStore.open(
            database_url=proxy.url, spool_dir=directory, spool_limit_bytes=100_000, policy=living.QUICK
        ) as store,
    ):
        await proxy.close()
        pending = store.registry.surroundings.journal.pending
        while not store.recorder.stats().lost:
            for _ in range(20):
                await store.registry.get_breaker(living.USER).call(living.ok)
            await asyncio.sleep(0.005)
        await until(lambda: not pending)
        lost = store.recorder.stats().lost
        await store.registry.get_breaker(newcomer).call(living.ok)
        await until(lambda: store.recorder.stats().lost == lost + 1)
        await living.trip(store.registry.get_breaker(newcomer))
        await until(lambda: not pending)
        await proxy.open()
        await store.flush()
        assert store.registry.get_breaker(newcomer).state.state is CircuitState.OPEN
    connection = await asyncpg.connect(database_url)
    try:
        row = "SELECT state FROM breaker_states WHERE user_id = $1"
        assert await connection.fetchval(row, newcomer) == 1
        position = "SELECT position FROM breaker_transitions WHERE user_id = $1"
        assert await connection.fetchval(position, newcomer) is not None
    finally:
        await connection.close()
    async with BreakerStore.open(database_url=database_url, policy=living.QUICK) as store:
        assert store.registry.get_open_breakers() == [newcomer]


async def until(holds: Callable[[], bool]) -> None:
    """Look again and again; in real time."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - it is no event that anybody tells of
            await asyncio.sleep(0.005)


# How much is read back at once.


async def fail_at_length(process: Process) -> None:
    async def fail_verbosely() -> None:
        text = "no answer " * 40
        raise NoAnswerError(text)

    for _ in range(500):
        with pytest.raises(NoAnswerError):
            await process.breaker.call(fail_verbosely)


async def trip_many(process: Process) -> None:
    for user_id in range(500):
        await fail_times(process.registry.get_breaker(user_id), 1)


@pytest.mark.parametrize(
    ("happening", "threshold", "count"), [(fail_at_length, 1_000, 500), (trip_many, 1, 1_000)]
)
async def test_documents_are_read_back_in_slices(
    log: RuledLog,
    directory: Path,
    happening: Callable[[Process], Awaitable[None]],
    threshold: int,
    count: int,
) -> None:
    async with recording(log, directory, policy=Policy(failure_threshold=threshold)) as process:
        log.is_away = True
        await process.call(1)
        await pass_time(1)
        await happening(process)
        await pass_time(1)
        (file,) = files(directory)
        bytes_per_event = file.stat().st_size / count
        already_asked = len(log.asked)
        log.is_away = False
        await process.recorder.flush()
        slices = [sealed.batch for sealed in log.asked[already_asked:]]
        assert max(batch.event_count for batch in slices) * bytes_per_event <= SLICE_BYTES * 1.1
        assert bytes_per_event * count > 2 * SLICE_BYTES
        assert log.numbers() == list(range(1, count + 2))


# What is missing is told, whoever delivers.


async def left_by_a_dead_process(directory: Path, events: int) -> None:
    """Have a process journal so many successes, and be killed."""
    log = RuledLog()
    log.hold()
    alive = directory.with_name("alive")
    async with recording(log, alive, Durability.JOURNALED) as process:
        await process.call(events, seconds_apart=0.01)
        shutil.copytree(alive, directory)


async def deliver(directory: Path, log: RuledLog) -> Tally:
    tally = Tally()
    with closing(Spool(directory)) as spool:
        await deliver_leftovers(spool, log, tally, ManualClock(START))
    return tally


@pytest.mark.parametrize("events", [10, 1_001])
async def test_damage_at_the_very_end_is_told_by_whoever_delivers(
    log: RuledLog, directory: Path, events: int
) -> None:
    await left_by_a_dead_process(directory, events)
    (file,) = files(directory)
    file.write_bytes(file.read_bytes()[:-5])
    tally = await deliver(directory, log)
    assert [gap[:1] + gap[3:] for gap in log.told()] == [(GapReason.DAMAGED, 0, 0, 0, 0, 1)]
    assert tally.gaps == []
    assert log.numbers() == list(range(1, events))


async def test_a_last_event_that_the_log_refuses_is_told_by_whoever_delivers(
    log: RuledLog, directory: Path
) -> None:
    await left_by_a_dead_process(directory, 10)
    log.refuses = lambda batch: any(row[2] == 10 for row in batch.outcomes)
    tally = await deliver(directory, log)
    assert [gap[:1] + gap[3:] for gap in log.told()] == [(GapReason.REFUSED, 1, 0, 0, 0, 0)]
    assert (tally.gaps, tally.set_aside) == ([], 1)
    assert log.numbers() == list(range(1, 10))


async def test_what_found_no_room_is_told_though_the_process_is_killed(
    log: RuledLog, directory: Path
) -> None:
    """What was left out in the second before it is killed at the most is told by nobody."""
    log.hold()
    async with recording(log, directory, limit_bytes=20_000) as process:
        await call_steadily(process, 1_000, 2)
        await trip(process.breaker)
        await pass_time(1)
        breaker = process.registry.get_breaker(7)
        for _ in range(100):
            await breaker.call(succeed)
            await pass_time(TICK_SECONDS)
        lost = process.recorder.stats().lost
        heir = RuledLog()
        await restart(heir, directory)
    told = sum(gap.event_count for gap in heir.told())
    assert {gap.reason for gap in heir.told()} == {GapReason.SPOOL_FULL}
    assert lost - 1.1 / TICK_SECONDS <= told <= lost


# The end.


def lost_because_of_the_end(process: Process) -> int:
    return process.recorder.tally.lost[GapReason.ENDED]


@pytest.mark.parametrize("has_spool", [False, True])
@pytest.mark.parametrize("waiting", [10, 3 * BATCH_SIZE])
async def test_a_close_among_calls_stores_what_was_before_it_and_counts_what_comes_after(
    log: RuledLog, directory: Path, *, has_spool: bool, waiting: int
) -> None:
    log.seconds_per_batch = 0.05
    process = Process(log, directory if has_spool else None)
    await process.start()
    await process.call(waiting)
    before = process.journal.last_seq
    closing_ = asyncio.ensure_future(process.close(10))
    await asyncio.sleep(0)
    calls = 0
    while not closing_.done():
        await process.call(1)
        calls += 1
        await pass_time(0.001)
    assert await closing_ == 0
    assert log.numbers() == list(range(1, before + 1))
    stats = process.recorder.stats()
    assert calls - 2 <= stats.lost <= calls
    assert lost_because_of_the_end(process) == stats.lost
    assert stats.lost_why == "the store was closed before they could be stored"
