"""What a spool near its limit does not take, and who hears of it (DESIGN rules 16 and 17)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from breaker_store import Policy
from breaker_store.ports import Batch, GapReason
from breaker_store.runtime.thinning import thin
from breaker_store.settings import Durability
from tests.runtime.driving import (
    SECOND,
    START,
    NoAnswerError,
    Recording,
    fail,
    fail_times,
    read,
    succeed,
    trip,
)
from tests.runtime.recorders import LeapingLoop, Process, RuledLog, pass_time, recording, restart

LOOP = LeapingLoop
JOURNALED = Durability.JOURNALED
QUICK = Policy(failure_threshold=2, timeout_seconds=30, success_threshold=1)


def a_batch_of_everything() -> Batch:
    """Two plain successes, three failures, one success that ends a run, refusals, and a trip."""
    recording = Recording(QUICK)

    async def happen() -> None:
        breaker = recording.breaker
        await breaker.call(succeed)
        await fail_times(breaker, 1)
        await breaker.call(succeed)
        await breaker.call(succeed)
        await trip(breaker)
        with pytest.raises(Exception, match="is open"):
            await breaker.call(succeed)

    asyncio.run(happen())
    return recording.cut()


ALL = ["success", "failure", "success", "success", "failure", "failure", "opened", "rejected"]
WITHOUT_SUCCESSES = ["failure", "success", "failure", "failure", "opened"]


@pytest.mark.parametrize(
    ("full_share", "left"),
    [
        (0.0, ALL),
        (0.799, ALL),
        (0.8, WITHOUT_SUCCESSES),
        (0.949, WITHOUT_SUCCESSES),
        (0.95, ["opened"]),
        (1.0, ["opened"]),
        (1.249, ["opened"]),
        (1.25, []),
        (7.0, []),
    ],
)
def test_the_fuller_the_spool_the_more_an_event_must_tell_to_be_kept(
    full_share: float, left: list[str]
) -> None:
    batch = a_batch_of_everything()
    kept = thin(batch, full_share)
    assert [event.kind.label for event in read(kept)] == left
    assert (kept is batch) == (left == ALL)
    numbers = {event.event_id.writer_seq for event in read(kept)}
    assert [mark for mark in batch.marks if mark.writer_seq in numbers] == list(kept.marks)
    assert kept.newcomers == batch.newcomers


@pytest.mark.parametrize("durability", [Durability.BEHIND, JOURNALED])
@pytest.mark.parametrize("ends", ["caught up", "closed"])
async def test_what_finds_no_room_is_counted_and_told_to_the_log_exactly_once(
    log: RuledLog, directory: Path, durability: Durability, ends: str
) -> None:
    async with recording(log, directory, durability, limit_bytes=30_000) as process:
        log.is_away = True
        await happen_for_long(process)
        assert process.spool is not None
        assert 0.95 <= process.spool.full_share < 1.3
        if ends == "closed":
            await process.close(0)
        log.is_away = False
        if ends == "closed":
            await restart(log, directory)
        else:
            await process.recorder.flush()
    stats = process.recorder.stats()
    assert (stats.lost, stats.lost_why) == (3_010 - len(log.stored()), "the spool was full")
    assert stats.lost > 1_000
    assert sum(gap.event_count for gap in log.told()) == stats.lost
    assert {gap.reason for gap in log.told()} == {GapReason.SPOOL_FULL}
    assert min(gap.first_at for gap in log.told()) >= START
    assert max(gap.last_at for gap in log.told()) <= START + 20 * SECOND
    assert are_in_order_and_once(log)


@pytest.mark.parametrize("durability", [Durability.BEHIND, JOURNALED])
async def test_it_is_said_once_that_successes_are_not_kept_and_once_that_failures_are_not(
    log: RuledLog, directory: Path, durability: Durability, caplog: pytest.LogCaptureFixture
) -> None:
    patient = Policy(failure_threshold=1_000_000)
    async with recording(log, directory, durability, limit_bytes=30_000, policy=patient) as process:
        log.is_away = True
        await process.call(600, seconds_apart=0.01)
        for _ in range(100):
            await fail_times(process.breaker, 1)
            await pass_time(0.03)
        assert process.recorder.stats().lost > 10
    assert caplog.text.count("full: successes are not kept") == 1
    assert caplog.text.count("full: successes and failures are not kept") == 1


async def happen_for_long(process: Process) -> None:
    """2,000 successes, 1,000 failures and 10 transitions, in 10 seconds."""
    patient = Policy(failure_threshold=1_000_000)
    for user_id in range(10):
        process.registry.set_policy(user_id, patient)
    for _ in range(10):
        for user_id in range(10):
            for _ in range(10):
                await process.registry.get_breaker(user_id).call(succeed)
                await process.registry.get_breaker(user_id).call(succeed)
                with pytest.raises(NoAnswerError):
                    await process.registry.get_breaker(user_id).call(fail)
            await pass_time(0.1)
    await pass_time(0.1)


def are_in_order_and_once(log: RuledLog) -> bool:
    numbers = [
        row_number
        for _, sealed in sorted(log.batches.items())
        for row_number in sorted(event.event_id.writer_seq for event in read(sealed.batch))
    ]
    return numbers == sorted(set(numbers))


async def test_what_is_left_out_last_is_told_though_nothing_is_kept_after_it(
    log: RuledLog, directory: Path
) -> None:
    """The store closes while the log is away: the next start has to know."""
    async with recording(log, directory, limit_bytes=4_000) as process:
        log.is_away = True
        await process.call(400, seconds_apart=0.01)
        assert process.recorder.stats().lost > 0
        await process.close(0)
        lost = process.recorder.stats().lost
        log.is_away = False
        await restart(log, directory)
    assert lost + len(log.stored()) == 400
    assert sum(gap.event_count for gap in log.told()) == lost


async def test_a_spool_that_has_room_again_takes_everything_again(log: RuledLog, directory: Path) -> None:
    async with recording(log, directory, limit_bytes=4_000) as process:
        log.is_away = True
        await process.call(400, seconds_apart=0.01)
        log.is_away = False
        await process.recorder.flush()
        lost = process.recorder.stats().lost
        await process.call(50, seconds_apart=0.01)
        log.is_away = True
        await process.call(30, seconds_apart=0.01)
        log.is_away = False
        await process.recorder.flush()
        assert process.recorder.stats().lost == lost
        assert log.numbers()[-80:] == list(range(401, 481))
