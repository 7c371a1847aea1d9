"""The moment in which events get the database's time and are frozen (DESIGN rule 12)."""

from __future__ import annotations

import pytest

from breaker_store import CircuitBreakerOpenError, Policy
from breaker_store.core.events import EventId, Kind, Outcome, Permit, Verdict
from breaker_store.ports import Batch, MarkKind, Source
from breaker_store.runtime.cutting import BatchCutter, outcome_row
from tests.runtime.driving import (
    SECOND,
    START,
    USER,
    Call,
    Recording,
    begin,
    fail_times,
    half_open,
    read,
    recover,
    succeed,
    trip,
)

HOUR = 3_600 * SECOND


def times(batch: Batch) -> list[int]:
    return [event.at for event in read(batch)]


async def test_an_event_gets_the_databases_time_of_its_end(recording: Recording) -> None:
    for ending in (Call.succeed, Call.fail):
        call = await begin(recording.breaker)
        recording.clock.advance(2)
        await ending(call)
    recording.breaker.reset()
    recording.clock.advance(100)
    assert times(recording.cut(HOUR)) == [START + HOUR + seconds * SECOND for seconds in (2, 4, 4)]


async def test_the_time_that_an_error_takes_to_be_printed_is_not_the_calls(recording: Recording) -> None:
    class LongStoryError(Exception):
        def __str__(self) -> str:
            recording.clock.advance(1)
            return "a long story"

    async def fail_at_length() -> None:
        raise LongStoryError

    with pytest.raises(LongStoryError):
        await recording.breaker.call(fail_at_length)
    (event,) = recording.events()
    assert (event.at, event.duration_us, event.error_message) == (START, 0, "a long story")


async def test_a_batch_is_not_touched_by_what_happens_after_it_was_cut(recording: Recording) -> None:
    await trip(recording.breaker)
    with pytest.raises(CircuitBreakerOpenError):
        await recording.breaker.call(succeed)
    batch = recording.cut()
    before = (tuple(batch.outcomes), tuple(batch.transitions))
    recording.clock.advance(1)
    with pytest.raises(CircuitBreakerOpenError):
        await recording.breaker.call(succeed)
    recording.breaker.reset()
    assert (tuple(batch.outcomes), tuple(batch.transitions)) == before


async def test_times_never_run_backwards_though_the_databases_clock_does(recording: Recording) -> None:
    """A correction that falls by an hour holds the last time until the clock has caught up with it."""
    told: list[int] = []
    for correction in (0, HOUR, 0, -HOUR, 0):
        await recording.breaker.call(succeed)
        await fail_times(recording.breaker, 1)
        recording.breaker.reset()
        told += times(recording.cut(correction))
        recording.clock.advance(1)
    assert told == sorted(told)
    assert told[3:6] == told[6:9] == told[-3:] == [START + HOUR + SECOND] * 3
    recording.clock.advance(3_600)
    await recording.breaker.call(succeed)
    assert times(recording.cut()) == [START + HOUR + 5 * SECOND]


async def test_times_never_run_backwards_for_refusals_and_transitions_either(recording: Recording) -> None:
    await trip(recording.breaker)
    told = times(recording.cut(HOUR))
    with pytest.raises(CircuitBreakerOpenError):
        await recording.breaker.call(succeed)
    recording.clock.advance(60)
    await recording.breaker.call(succeed)
    told += times(recording.cut(0))
    assert told == [START + HOUR] * 9


async def test_a_batch_tells_the_first_and_the_last_of_its_times_and_numbers(recording: Recording) -> None:
    for _ in range(3):
        await recording.breaker.call(succeed)
        recording.clock.advance(1)
    batch = recording.cut()
    assert (batch.earliest, batch.latest) == (START, START + 2 * SECOND)
    assert (batch.first_seq, batch.last_seq, batch.event_count) == (1, 3, 3)
    assert (batch.writer_id, batch.source) == (recording.journal.writer_id, Source.LIVE)


async def test_a_batch_takes_no_more_than_it_may_and_the_oldest_first(recording: Recording) -> None:
    for _ in range(5):
        await recording.breaker.call(succeed)
        recording.clock.advance(1)
    assert [times(recording.cut(limit=2)) for _ in range(3)] == [
        [START, START + SECOND],
        [START + 2 * SECOND, START + 3 * SECOND],
        [START + 4 * SECOND],
    ]


async def test_a_wait_is_put_on_the_databases_clock_as_well(recording: Recording) -> None:
    await trip(recording.breaker)
    opened = read(recording.cut(HOUR))[-1]
    assert (opened.at, opened.opened_at) == (START + HOUR, START + HOUR)
    assert opened.retry_at == START + HOUR + 60 * SECOND
    assert {cause.at for cause in opened.causes} == {START + HOUR}


async def test_a_transition_carries_the_failures_that_made_it(recording: Recording) -> None:
    await trip(recording.breaker)
    *failures, opened = recording.events()
    assert [cause.event_id for cause in opened.causes] == [failure.event_id for failure in failures]
    assert [cause.error_message for cause in opened.causes] == ["no answer"] * 5


async def test_a_user_is_a_newcomer_in_the_first_batch_that_has_an_event_of_theirs(
    recording: Recording,
) -> None:
    own = Policy(failure_threshold=9)
    recording.registry.set_policy(102, own)
    await recording.breaker.call(succeed)
    await recording.breaker.call(succeed)
    assert recording.cut().newcomers == {102: own, USER: Policy()}
    await recording.breaker.call(succeed)
    assert recording.cut().newcomers == {}


async def test_a_breaker_that_is_stored_already_is_no_newcomer(recording: Recording) -> None:
    recording.registry.take_over({USER: recording.registry.first_state}, {})
    await recording.breaker.call(succeed)
    assert recording.cut().newcomers == {}


def marks_in(batch: Batch) -> list[tuple[int, MarkKind]]:
    return [(mark.writer_seq, mark.kind) for mark in batch.marks]


async def test_every_counted_failure_and_the_success_that_ends_the_run_are_marked(
    recording: Recording,
) -> None:
    await recording.breaker.call(succeed)
    await fail_times(recording.breaker, 2)
    await recording.breaker.call(succeed)
    await recording.breaker.call(succeed)
    batch = recording.cut()
    assert marks_in(batch) == [(2, MarkKind.FAILED), (3, MarkKind.FAILED), (4, MarkKind.RUN_ENDED)]
    assert [mark.last_failure.event_id.writer_seq for mark in batch.marks] == [2, 3, 3]
    assert {mark.user_id for mark in batch.marks} == {USER}


async def test_a_mark_is_on_the_databases_clock_and_never_runs_backwards(recording: Recording) -> None:
    await fail_times(recording.breaker, 1)
    await recording.breaker.call(succeed)
    began, ended = recording.cut(HOUR).marks
    assert (began.at, ended.at) == (START + HOUR, START + HOUR)
    assert ended.last_failure.at == START + HOUR
    await fail_times(recording.breaker, 1)
    (began_again,) = recording.cut(0).marks
    assert began_again.at == START + HOUR


async def test_a_run_after_a_transition_is_marked_anew(recording: Recording) -> None:
    await fail_times(recording.breaker, 1)
    recording.breaker.reset()
    await fail_times(recording.breaker, 1)
    assert marks_in(recording.cut()) == [(1, MarkKind.FAILED), (3, MarkKind.FAILED)]


async def test_a_run_that_a_store_knows_of_is_marked_again_by_this_process(recording: Recording) -> None:
    """The mark of the process that began it may be gone by now."""
    await fail_times(recording.breaker, 2)
    recording.registry.take_over({USER: recording.breaker.state}, {})
    recording.cut()
    await fail_times(recording.breaker, 1)
    assert marks_in(recording.cut()) == [(3, MarkKind.FAILED)]


async def test_successful_probes_are_marked_and_late_results_are_not(recording: Recording) -> None:
    late = await begin(recording.breaker)
    await (await half_open(recording.breaker, recording.clock)).succeed()
    recording.events()
    await late.fail()
    await recording.breaker.call(succeed)
    batch = recording.cut()
    assert [row[7] for row in batch.outcomes] == [Verdict.NOT_COUNTED, Verdict.COUNTED]
    assert [mark.kind for mark in batch.marks] == [MarkKind.PROBE_SUCCEEDED]
    assert batch.marks[0].era == batch.outcomes[-1][5]


async def test_a_failed_probe_is_not_marked_for_the_transition_says_it(recording: Recording) -> None:
    probe = await half_open(recording.breaker, recording.clock)
    recording.events()
    await probe.fail()
    batch = recording.cut()
    assert (batch.marks, batch.event_count) == ([], 2)


async def test_the_row_of_a_calm_success_is_that_of_the_outcome_it_stands_for(recording: Recording) -> None:
    call = await begin(recording.breaker)
    recording.clock.advance(1)
    await call.succeed()
    (row,) = recording.cut().outcomes
    outcome = Outcome(
        Kind.SUCCESS,
        EventId(recording.journal.writer_id, 1),
        START + SECOND,
        Permit(0, 0),
        duration_us=SECOND,
        operation="_serve",
    )
    assert outcome_row(USER, outcome, START + SECOND) == row


async def test_the_source_of_a_batch_is_the_cutters(recording: Recording) -> None:
    await recording.breaker.call(succeed)
    cutter = BatchCutter(recording.journal, recording.clock, Source.OPERATOR)
    assert cutter.cut(1, 0).source is Source.OPERATOR


async def test_events_of_a_recovery_are_read_back_in_the_order_in_which_they_happened(
    recording: Recording,
) -> None:
    await recover(recording.breaker, recording.clock)
    assert recording.kinds() == [
        *[Kind.FAILURE] * 5,
        Kind.OPENED,
        Kind.HALF_OPENED,
        Kind.SUCCESS,
        Kind.SUCCESS,
        Kind.CLOSED,
    ]
