"""Every event is somewhere, and `stats` says where; what is missing is said and told (DESIGN rule 17)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from breaker_store.ports import Gap, GapReason
from breaker_store.runtime.recorder import BATCH_SIZE
from breaker_store.runtime.tally import RecorderStats, Tally, count_gap, numbers
from breaker_store.settings import Durability
from tests.runtime.driving import START, Recording, fail_times, succeed, trip
from tests.runtime.recorders import LeapingLoop, RuledLog, files, pass_time, recording

LOOP = LeapingLoop
FULL, REFUSED = GapReason.QUEUE_FULL, GapReason.REFUSED


def test_what_is_missing_for_one_reason_in_a_row_is_one_gap() -> None:
    tally = Tally()
    for gap in (
        Gap(FULL, 5, 6, successes=1, unknown=1),
        Gap(FULL, 3, 9, failures=2),
        Gap(REFUSED, 4, 4, transitions=1),
        Gap(FULL, 10, 11, refusals=4),
    ):
        tally.lose(gap)
    assert tally.gaps == [
        Gap(FULL, 3, 9, successes=1, failures=2, unknown=1),
        Gap(REFUSED, 4, 4, transitions=1),
        Gap(FULL, 10, 11, refusals=4),
    ]
    assert tally.lost == {FULL: 8, REFUSED: 1}


def test_what_is_told_and_not_lost_is_no_loss() -> None:
    tally = Tally()
    tally.tell(Gap(REFUSED, START, START, successes=1))
    assert (tally.lost.total(), tally.lost_why) == (0, None)
    assert tally.gaps


@pytest.mark.parametrize("reason", GapReason)
def test_every_reason_can_be_said(reason: GapReason) -> None:
    tally = Tally()
    tally.lose(Gap(reason, START, START, successes=1))
    assert tally.lost_why == reason.in_words


def test_all_reasons_are_said() -> None:
    tally = Tally()
    tally.lose(Gap(FULL, START, START, successes=1))
    tally.lose(Gap(REFUSED, START, START, successes=1))
    assert tally.lost_why == "the queue was full; the database refused them"


async def test_gaps_go_with_one_batch_and_no_other() -> None:
    recording, tally = Recording(), Tally()
    tally.lose(Gap(FULL, START, START, successes=1))
    for gaps in ((Gap(FULL, START, START, successes=1),), ()):
        await recording.breaker.call(succeed)
        assert tally.tell_gaps(recording.cut()).gaps == gaps


def test_gaps_that_go_alone_have_their_times_and_no_number() -> None:
    tally = Tally()
    tally.lose(Gap(FULL, 5, 6, successes=1))
    tally.lose(Gap(REFUSED, 3, 4, successes=1))
    batch = tally.gaps_alone(7, 100)
    assert (batch.writer_id, batch.first_seq, batch.last_seq, batch.event_count) == (7, 101, 100, 0)
    assert (batch.earliest, batch.latest, len(batch.gaps), tally.gaps) == (3, 6, 2, [])


async def test_what_a_batch_would_leave_missing_is_counted_by_kind_and_each_refusal_on_its_own() -> None:
    recording = Recording()
    await recording.breaker.call(succeed)
    await trip(recording.breaker)
    for _ in range(3):
        with pytest.raises(Exception, match="is open"):
            await recording.breaker.call(succeed)
    batch = recording.cut()
    assert count_gap(batch, REFUSED) == Gap(
        REFUSED, batch.earliest, batch.latest, successes=1, refusals=3, failures=5, transitions=1
    )
    assert numbers(batch) == {1, 2, 3, 4, 5, 6, 7, 8}


# `Recorder.stats`.


async def test_at_first_there_is_nothing_to_say(log: RuledLog) -> None:
    async with recording(log) as process:
        assert process.recorder.stats() == RecorderStats(0, 0, 0, 0, 0, None, None, None)


@pytest.mark.parametrize("durability", Durability)
async def test_an_event_is_queued_then_spooled_then_flushed(
    log: RuledLog, directory: Path, durability: Durability
) -> None:
    def places() -> tuple[int, int, int]:
        stats = process.recorder.stats()
        return stats.queued, stats.spooled, stats.flushed

    async with recording(log, directory, durability) as process:
        log.hold()
        behind = process.breaker.with_durability("behind")
        for _ in range(10):
            await behind.call(succeed)
        assert places() == (10, 0, 0)
        await log.be_asked()
        for _ in range(4):
            await behind.call(succeed)
        assert places() == (14, 0, 0)
        await pass_time(1)
        assert places() == (10, 4, 0)
        await log.release(1)
        await log.be_asked(2)
        await pass_time(0.1)
        assert places() == (4, 0, 10)
        await log.release()
        await process.recorder.flush()
        assert places() == (0, 0, 14)


async def test_the_age_of_the_oldest_event_counts_on_until_it_is_stored(
    log: RuledLog, directory: Path
) -> None:
    def oldest() -> float | None:
        return process.recorder.stats().oldest_waiting_seconds

    async with recording(log, directory) as process:
        log.is_away = True
        await process.call(1)
        assert oldest() == 0
        for seconds in range(1, 20):
            await pass_time(1)
            await process.call(1)
            assert oldest() == pytest.approx(seconds)
        log.is_away = False
        await process.recorder.flush()
        assert oldest() is None


@pytest.mark.parametrize("correction_us", [3_600_000_000, -3_600_000_000])
async def test_the_age_of_the_oldest_event_does_not_depend_on_what_the_databases_clock_says(
    log: RuledLog, directory: Path, correction_us: int
) -> None:
    async with recording(log, directory) as process:
        log.correction = correction_us
        for _ in range(2):
            log.is_away = True
            await process.call(50, seconds_apart=0.1)
            oldest = process.recorder.stats().oldest_waiting_seconds
            assert oldest == pytest.approx(5, abs=0.1)
            log.is_away = False
            await process.recorder.flush()


async def test_the_age_of_the_oldest_event_is_known_though_the_log_never_answered(directory: Path) -> None:
    class LogThatTellsNoTime(RuledLog):
        async def keep_time(self) -> None:
            await asyncio.get_running_loop().create_future()

    async with recording(LogThatTellsNoTime(), directory) as process:
        await process.call(50, seconds_apart=0.1)
        assert process.recorder.stats().oldest_waiting_seconds == pytest.approx(5, abs=0.1)


async def test_after_a_close_stats_tell_what_is_left_on_disk(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory) as process:
        await process.call(5)
        await process.recorder.flush()
        log.is_away = True
        await process.call(7)
        await process.close(0)
        stats = process.recorder.stats()
        assert (stats.queued, stats.flushed, stats.lost) == (0, 5, 0)
        assert stats.spooled == 7
        assert files(directory)


async def test_after_a_close_that_stored_everything_nothing_is_left(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory) as process:
        await process.call(5)
        await process.close(10)
        assert process.recorder.stats() == RecorderStats(0, 5, 0, 0, 0, None, None, None)


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("limit_bytes", [2_000, 50_000, 2**30])
async def test_everything_that_happened_is_in_one_place(
    log: RuledLog, directory: Path, durability: Durability, limit_bytes: int
) -> None:
    happened = 0
    async with recording(log, directory, durability, limit_bytes=limit_bytes, queue_limit=500) as process:
        behind = process.breaker.with_durability("behind")
        for round_ in range(40):
            log.is_away = round_ % 10 > 3
            for _ in range(30):
                await behind.call(succeed)
            await fail_times(behind, 1)
            happened += 31
            stats = process.recorder.stats()
            assert stats.queued + stats.spooled + stats.flushed + stats.lost == happened
            assert stats.queued <= 500 + BATCH_SIZE
            await pass_time(0.05)
        log.is_away = False
        await process.recorder.flush()
        stats = process.recorder.stats()
        assert (stats.flushed + stats.lost, stats.flushed) == (happened, len(log.stored()))
        await process.close(10)
    assert sum(gap.event_count for gap in log.told()) == stats.lost


@pytest.mark.parametrize("has_spool", [False, True])
async def test_what_is_missing_is_told_before_the_store_is_closed(
    log: RuledLog, directory: Path, *, has_spool: bool
) -> None:
    """Without a spool there is no later start that could tell it."""
    async with recording(log, directory if has_spool else None) as process:
        log.refuses = lambda batch: any(row[2] == 3 for row in batch.outcomes)
        await process.call(3)
        await process.close(10)
    assert log.numbers() == [1, 2]
    assert [gap.reason for gap in log.told()] == [REFUSED]
    assert not has_spool or files(directory) == []
