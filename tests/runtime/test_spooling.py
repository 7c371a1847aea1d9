"""What waits while the log is away is on disk, in order, and comes back from there (DESIGN rules 12, 16 and 17)."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from breaker_store import CircuitState, Policy
from breaker_store.core.events import Kind, StoredEvent
from breaker_store.core.rebuild import rebuild
from breaker_store.ports import GapReason
from breaker_store.runtime.recorder import BATCH_SIZE
from breaker_store.settings import Durability
from tests.postgres.living import fail_uncleaned
from tests.runtime.driving import (
    SECOND,
    START,
    USER,
    fail_times,
    succeed,
    trip,
)
from tests.runtime.recorders import (
    LeapingLoop,
    RuledLog,
    are_consecutive,
    batches_on_disk,
    files,
    numbers_on_disk,
    on_disk,
    pass_time,
    recording,
)

LOOP = LeapingLoop
JOURNALED = Durability.JOURNALED
QUICK = Policy(failure_threshold=2, timeout_seconds=30, success_threshold=1)
OUTAGES = ["silent", "refusing"]


def go_away(log: RuledLog, outage: str) -> None:
    if outage == "silent":
        log.hold()
    else:
        log.is_away = True


async def come_back(log: RuledLog) -> None:
    log.is_away = False
    await log.release()


@pytest.mark.parametrize("outage", OUTAGES)
async def test_what_waits_while_the_log_is_away_is_on_disk_in_order(
    log: RuledLog, directory: Path, outage: str
) -> None:
    async with recording(log, directory) as process:
        await process.call(1)
        await process.recorder.flush()
        go_away(log, outage)
        await process.call(100, seconds_apart=0.01)
        await pass_time(0.03)
        assert numbers_on_disk(directory) == list(range(2, 102))
        assert len(process.journal.pending) == 0


async def test_a_flush_that_is_not_outstanding_for_long_writes_nothing(
    log: RuledLog, directory: Path
) -> None:
    async with recording(log, directory, drain_seconds=10) as process:
        for _ in range(20):
            log.hold()
            await process.call(10, seconds_apart=0.015)
            assert files(directory) == []
            await log.release()
            await process.recorder.flush()


@pytest.mark.parametrize("events", [1, 7, 1_500])
async def test_a_batch_that_is_under_way_for_long_is_on_disk_though_nothing_else_happens(
    log: RuledLog, directory: Path, events: int
) -> None:
    async with recording(log, directory) as process:
        log.hold()
        await process.call(events)
        await pass_time(60)
        assert len(numbers_on_disk(directory)) == events


@pytest.mark.parametrize("outage", OUTAGES)
async def test_memory_holds_an_interval_and_a_batch_however_long_the_log_is_away(
    log: RuledLog, directory: Path, outage: str
) -> None:
    """2,000 calls a second, of which 40 come in an interval."""
    async with recording(log, directory) as process:
        go_away(log, outage)
        most = 0
        for _ in range(1_000):
            await process.call(10)
            await pass_time(0.005)
            most = max(most, len(process.journal.pending))
            assert process.recorder.stats().queued <= most + BATCH_SIZE
        assert most <= 2_000 * (0.2 + 0.02) + 10
        assert process.recorder.stats().lost == 0
        await pass_time(0.05)
        assert are_consecutive(numbers_on_disk(directory))
        assert len(process.journal.pending) == 0
        await come_back(log)
        await process.recorder.flush()
        assert log.numbers() == list(range(1, 10_001))


async def test_what_is_on_disk_is_delivered_in_order_with_its_times_and_once(
    log: RuledLog, directory: Path
) -> None:
    async with recording(log, directory, policy=QUICK) as process:
        process.registry.subscribe(lambda _user, _transition: None)
        go_away(log, "refusing")
        for _ in range(20):
            await process.call(2)
            await trip(process.breaker)
            await pass_time(30.5)
            await process.breaker.call(succeed)
        await pass_time(0.05)
        happened = on_disk(directory)
        log.is_away = False
        await process.recorder.flush()
        assert [timed(event) for event in log.stored()] == [timed(event) for event in happened]
        assert log.numbers() == list(range(1, 20 * 8 + 1))


def timed(event: StoredEvent) -> tuple[int, Kind, int]:
    return (event.event_id.writer_seq, event.kind, event.at)


async def test_new_events_go_behind_those_on_disk_until_the_log_has_caught_up(
    log: RuledLog, directory: Path
) -> None:
    async with recording(log, directory) as process:
        log.hold()
        await process.call(6_000, seconds_apart=0.0005)
        for _ in range(3):
            await log.release(1)
            await process.call(50, seconds_apart=0.001)
            await pass_time(0.05)
            assert len(process.journal.pending) == 0
        left = numbers_on_disk(directory)
        assert left == list(range(left[0], 6_151))
        await log.release()
        await process.recorder.flush()
        assert log.numbers() == list(range(1, 6_151))


@pytest.mark.parametrize("outage", OUTAGES)
async def test_after_the_log_has_caught_up_memory_is_used_again_and_the_files_are_gone(
    log: RuledLog, directory: Path, outage: str
) -> None:
    async with recording(log, directory) as process:
        for round_ in range(1, 4):
            go_away(log, outage)
            await process.call(200, seconds_apart=0.005)
            assert files(directory)
            await come_back(log)
            await process.recorder.flush()
            assert files(directory) == []
            await process.call(50, seconds_apart=0.005)
            assert files(directory) == []
            await process.recorder.flush()
            assert log.numbers() == list(range(1, 250 * round_ + 1))
        assert process.recorder.stats().spooled == 0


async def test_calls_that_never_stop_do_not_keep_the_log_from_catching_up(
    log: RuledLog, directory: Path
) -> None:
    async with recording(log, directory) as process:
        go_away(log, "refusing")
        await process.call(2_000, seconds_apart=0.001)
        log.is_away = False
        async with asyncio.timeout(60):
            while files(directory):
                await process.call(10, seconds_apart=0.001)


async def test_delivery_leaves_the_log_to_others_half_of_the_time(log: RuledLog, directory: Path) -> None:
    """Each batch takes 50 ms here, and as long a pause follows it."""
    loop = asyncio.get_running_loop()
    async with recording(log, directory) as process:
        log.is_away = True
        await process.call(5_000, seconds_apart=0.0005)
        log.is_away, log.seconds_per_batch = False, 0.05
        await log.be_asked(len(log.asked) + 1)
        before, began = len(log.asked), loop.time()
        await process.recorder.flush()
        batches = len(log.asked) - before + 1
        assert loop.time() - began >= batches * 0.1 - 0.2
        assert log.numbers() == list(range(1, 5_001))


@pytest.mark.parametrize("durability", [Durability.BEHIND, JOURNALED])
async def test_times_never_run_backwards_from_disk_to_memory_and_back(
    log: RuledLog, directory: Path, durability: Durability
) -> None:
    async with recording(log, directory, durability) as process:
        for correction_seconds in (3_600, 0, 1_800, -3_600, -7_200, 3_600):
            log.correction = correction_seconds * SECOND
            await process.call(3, seconds_apart=0.01)
            await fail_times(process.breaker, 1)
            process.breaker.reset()
            await pass_time(0.1)
            log.is_away = True
            await process.call(30, seconds_apart=0.01)
            process.breaker.reset()
            log.correction -= 600 * SECOND
            await process.call(30, seconds_apart=0.01)
            log.is_away = False
            await process.recorder.flush()
    times = [event.at for event in log.stored()]
    assert len(times) == 6 * 66
    assert times == sorted(times)


async def test_journaled_events_keep_the_time_at_which_they_were_written_when_they_are_delivered(
    log: RuledLog, directory: Path
) -> None:
    async with recording(log, directory, JOURNALED) as process:
        log.is_away = True
        await process.call(50, seconds_apart=0.01)
        log.correction = -3_600 * SECOND
        log.is_away = False
        await process.recorder.flush()
    times = [event.at for event in log.stored()]
    assert times == sorted(times)
    assert START <= times[0] < times[-1] < START + SECOND


async def test_what_became_of_a_spooled_transition_is_learned(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory, policy=QUICK) as process:
        log.is_away = True
        for user_id in range(5):
            await trip(process.registry.get_breaker(user_id))
            await pass_time(0.3)
        assert len(process.registry.surroundings.unconfirmed) == 5
        log.is_away = False
        await process.recorder.flush()
        assert process.registry.surroundings.unconfirmed == {}


async def test_a_spooled_transition_that_lost_gives_way_to_what_the_log_has(
    log: RuledLog, directory: Path, tmp_path: Path
) -> None:
    """The other process's reset stands, and this one's trip does not."""
    async with recording(log, directory, policy=QUICK) as mine, recording(log, tmp_path / "other") as other:
        await mine.call(1)
        await mine.recorder.flush()
        log.is_away = True
        await trip(mine.breaker)
        await pass_time(1)
        log.is_away = False
        log.hold()
        other.breaker.reset()
        await log.be_asked(len(log.asked) + 1)
        await log.release()
        await other.recorder.flush()
        await mine.recorder.flush()
        stored = rebuild(QUICK, log.events[USER])
        assert mine.breaker.state.last_transition == stored.last_transition
        assert mine.breaker.state.state is stored.state


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_breaker_that_nobody_knew_is_known_by_what_was_spooled(
    log: RuledLog, directory: Path, outage: str
) -> None:
    own = Policy(failure_threshold=9)
    async with recording(log, directory) as process:
        go_away(log, outage)
        process.registry.set_policy(7, own)
        await process.call(1)
        await pass_time(0.3)
        await process.call(1)
        await pass_time(0.05)
        (batch,) = batches_on_disk(directory)
        assert batch.newcomers == {7: own, USER: Policy()}
        await come_back(log)
        await process.recorder.flush()
        newcomers: dict[int, Policy] = {}
        for (_, _), sealed in log.batches.items():
            newcomers |= sealed.batch.newcomers
        assert newcomers == {7: own, USER: Policy()}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_journaled_events_are_not_written_twice_when_the_log_goes_away(
    log: RuledLog, directory: Path, outage: str
) -> None:
    async with recording(log, directory, JOURNALED) as process:
        go_away(log, outage)
        await process.call(200, seconds_apart=0.005)
        await fail_times(process.breaker, 1)
        assert numbers_on_disk(directory) == list(range(1, 202))
        assert len(process.journal.pending) <= 5
        await come_back(log)
        await process.recorder.flush()
        assert log.numbers() == list(range(1, 202))
        assert files(directory) == []


async def test_a_process_that_is_killed_in_an_outage_has_left_everything_on_disk(
    log: RuledLog, directory: Path, tmp_path: Path
) -> None:
    async with recording(log, directory) as process:
        go_away(log, "refusing")
        await process.call(100, seconds_apart=0.01)
        await trip(process.breaker)
        await pass_time(0.05)
        shutil.copytree(directory, tmp_path / "left")
    log.is_away = False
    async with recording(log, tmp_path / "left"):
        assert log.numbers() == list(range(1, 107))
        assert log.told() == []


# A disk that refuses.


@pytest.mark.parametrize("durability", [Durability.BEHIND, JOURNALED])
async def test_what_the_disk_refuses_waits_in_memory_until_it_takes_it(
    log: RuledLog, directory: Path, durability: Durability, caplog: pytest.LogCaptureFixture
) -> None:
    async with recording(log, directory, durability) as process:
        with unplugged(directory):
            log.is_away = True
            await process.call(100, seconds_apart=0.01)
            stats = process.recorder.stats()
            assert (stats.queued, stats.spooled, stats.lost) == (100, 0, 0)
            assert "No such file or directory" in str(stats.last_error)
        await process.call(20, seconds_apart=0.01)
        assert len(process.journal.pending) <= 2
        assert are_consecutive(numbers_on_disk(directory))
        assert len(numbers_on_disk(directory)) >= 118
        log.is_away = False
        await process.recorder.flush()
        assert log.numbers() == list(range(1, 121))
    assert caplog.text.count("can't be spooled and wait in memory") == 1


async def test_memory_is_bounded_though_the_disk_refuses(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory, queue_limit=40) as process:
        with unplugged(directory):
            log.is_away = True
            await process.call(200, seconds_apart=0.01)
            stats = process.recorder.stats()
            assert stats.queued <= 40 + BATCH_SIZE
            assert stats.queued + stats.lost == 200
            assert stats.lost_why == "the queue was full"
            log.is_away = False
            await process.recorder.flush()
        stats = process.recorder.stats()
        assert (stats.flushed + stats.lost, stats.queued) == (200, 0)
        await process.recorder.flush()
    (gap,) = log.told()
    assert gap[:1] + gap[3:] == (GapReason.QUEUE_FULL, stats.lost, 0, 0, 0, 0)


async def test_a_store_that_closes_while_log_and_disk_refuse_says_how_much_is_lost(
    log: RuledLog, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with recording(log, directory) as process:
        with unplugged(directory):
            log.is_away = True
            await process.call(30, seconds_apart=0.01)
            assert await process.close(0) == 30
            assert process.recorder.stats().lost == 30
    assert "30 events were not stored and are lost" in caplog.text


class unplugged:  # noqa: N801 - used like a function
    """Have a folder be away for a while, as a disk is that is not mounted."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._elsewhere = directory, directory.with_name("elsewhere")

    def __enter__(self) -> None:
        self._directory.rename(self._elsewhere)

    def __exit__(self, *_error: object) -> None:
        self._elsewhere.rename(self._directory)


# Events that no call can bring about.

ODD = {"NUL": "a\0b", "lone surrogate": "a\udc80b", "a megabyte": "x" * 2**20, "empty": ""}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
@pytest.mark.parametrize("field", ["error_message", "error_type", "operation"])
@pytest.mark.parametrize("durability", [Durability.BEHIND, JOURNALED])
async def test_an_event_with_uncleaned_texts_is_spooled_and_delivered_among_the_others(
    log: RuledLog, directory: Path, text: str, field: str, durability: Durability
) -> None:
    async with recording(log, directory, durability) as process:
        log.is_away = True
        await process.call(3)
        fail_uncleaned(process.registry, **{field: text})
        await process.call(30, seconds_apart=0.01)
        await pass_time(0.05)
        assert [event.kind for event in on_disk(directory)] == [
            *[Kind.SUCCESS] * 3, Kind.FAILURE, *[Kind.SUCCESS] * 30,
        ]  # fmt: skip
        log.is_away = False
        await process.recorder.flush()
        stats = process.recorder.stats()
        assert (stats.flushed, stats.lost, stats.set_aside) == (34, 0, 0)


async def test_an_event_that_can_not_be_spooled_at_all_is_lost_alone_and_told(
    log: RuledLog, directory: Path
) -> None:
    async with recording(log, directory) as process:
        log.is_away = True
        await process.call(3)
        fail_uncleaned(process.registry, at=2**80)
        await process.call(30, seconds_apart=0.01)
        await pass_time(0.05)
        log.is_away = False
        await process.recorder.flush()
        stats = process.recorder.stats()
        assert (stats.flushed + stats.lost, process.breaker.state.state) == (34, CircuitState.CLOSED)
