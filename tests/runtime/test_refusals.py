"""The error of a refused call: what it tells, and that it is new each time (DESIGN rule 5)."""

from __future__ import annotations

import gc
import traceback
import weakref

import pytest

from breaker_store import (
    BotSuspendedError,
    CircuitBreaker,
    CircuitBreakerOpenError,
    NotSuspendedError,
    SuspendedError,
)
from breaker_store.core.events import Kind, Outcome
from breaker_store.runtime.clock import ManualClock
from tests.runtime.driving import (
    SECOND,
    START,
    USER,
    Recording,
    Way,
    begin,
    by_call,
    half_open,
    succeed,
    transitions,
    trip,
)


async def refuse(breaker: CircuitBreaker, way: Way) -> CircuitBreakerOpenError:
    with pytest.raises(CircuitBreakerOpenError) as refused:
        await way(breaker, succeed)
    return refused.value


async def test_a_refusal_tells_who_how_long_since_when_and_why(recording: Recording, way: Way) -> None:
    recording.clock.advance(10)
    await trip(recording.breaker, way)
    recording.clock.advance(12.5)
    error = await refuse(recording.breaker, way)
    assert (error.user_id, error.timeout_remaining) == (USER, 47.5)
    assert error.open_since == START / SECOND + 10
    assert error.last_failure.error_message == "no answer"
    assert error.last_failure.at == START + 10 * SECOND


async def test_a_refusal_names_the_events_as_the_log_will(recording: Recording, way: Way) -> None:
    """Their ids are known before anything is stored."""
    await trip(recording.breaker, way)
    error = await refuse(recording.breaker, way)
    *failures, opened, _ = recording.events()
    assert opened.kind is Kind.OPENED
    assert error.opened_by == opened.event_id
    assert error.last_failure.event_id == failures[-1].event_id


async def test_a_refusal_of_a_half_open_breaker_tells_what_opened_it(recording: Recording, way: Way) -> None:
    probe = await half_open(recording.breaker, recording.clock, way)
    error = await refuse(recording.breaker, way)
    opened, half_opened = transitions(recording.events())
    assert half_opened.kind is Kind.HALF_OPENED
    assert (error.opened_by, error.open_since) == (opened.event_id, opened.at / SECOND)
    assert error.timeout_remaining == 0.0
    await probe.succeed()


async def test_a_refusal_after_a_failed_probe_tells_of_that_one(recording: Recording, way: Way) -> None:
    await (await half_open(recording.breaker, recording.clock, way)).fail()
    error = await refuse(recording.breaker, way)
    opened = transitions(recording.events())[-1]
    assert (error.opened_by, error.open_since) == (opened.event_id, START / SECOND + 60)


async def test_the_refusal_of_a_suspended_bot_gives_the_reason(recording: Recording, way: Way) -> None:
    recording.clock.advance(10)
    recording.breaker.suspend(actor="ann", reason="unpaid bill")
    recording.clock.advance(1_000)
    error = await refuse(recording.breaker, way)
    assert type(error) is BotSuspendedError
    [suspended] = transitions(recording.events())
    assert (error.user_id, error.actor, error.reason) == (USER, "ann", "unpaid bill")
    assert (error.suspended_since, error.opened_by) == (START / SECOND + 10, suspended.event_id)
    assert error.timeout_remaining is None


async def test_a_suspended_bot_is_only_resumed(recording: Recording, way: Way) -> None:
    breaker = recording.breaker
    breaker.suspend(actor="ann", reason="token 123456789:AAF-abcdefghijklmnopqrstuvwxyz0123456")
    for act in (breaker.reset, breaker.force_open, breaker.release):
        with pytest.raises(SuspendedError, match="user 101's bot is suspended: resume it first"):
            act()
    assert "AAF" not in str(await refuse(breaker, way))
    breaker.resume(actor="bob", reason="paid")
    await way(breaker, succeed)
    with pytest.raises(NotSuspendedError):
        breaker.resume()
    assert [each.kind for each in transitions(recording.events())] == [Kind.SUSPENDED, Kind.RESUMED]


async def test_a_breaker_of_nobody_refuses_in_nobodys_name(breaker: CircuitBreaker, way: Way) -> None:
    await trip(breaker, way)
    error = await refuse(breaker, way)
    assert error.user_id is None
    assert error.opened_by == error.last_failure.event_id._replace(writer_seq=6)


async def test_each_of_two_hundred_refusals_is_an_error_of_its_own_with_a_traceback_as_short_as_the_first(
    breaker: CircuitBreaker, way: Way
) -> None:
    await trip(breaker, way)
    errors = [await refuse(breaker, way) for _ in range(200)]
    assert len({id(error) for error in errors}) == 200
    depths = {len(traceback.extract_tb(error.__traceback__)) for error in errors}
    assert len(depths) == 1
    assert {(error.__cause__, error.__context__) for error in errors} == {(None, None)}


async def test_a_refusal_is_gone_when_its_caller_drops_it(breaker: CircuitBreaker) -> None:
    """Nothing has to be collected: a storm of refusals leaves no garbage behind."""
    await trip(breaker)
    gc.disable()
    try:
        try:
            await breaker.call(succeed)
        except CircuitBreakerOpenError as error:
            reference = weakref.ref(error)
        assert reference() is None
    finally:
        gc.enable()


async def test_refusals_of_one_flush_are_one_event_with_their_count_and_span(
    recording: Recording, way: Way
) -> None:
    await trip(recording.breaker)
    recording.events()
    for _ in range(3):
        await refuse(recording.breaker, way)
        recording.clock.advance(2)
    (event,) = recording.events()
    assert isinstance(event, Outcome)
    assert (event.kind, event.count, event.duration_us) == (Kind.REJECTED, 3, 4 * SECOND)
    assert event.at == START
    assert event.permit == (recording.breaker.state.generation, recording.breaker.state.era, 0)


async def test_refusals_of_the_next_flush_are_another_event(recording: Recording) -> None:
    await trip(recording.breaker)
    await refuse_times(recording.breaker, 2)
    counts = [event.count for event in recording.events() if event.kind is Kind.REJECTED]
    await refuse_times(recording.breaker, 5)
    counts += [event.count for event in recording.events()]
    assert counts == [2, 5]


async def test_refusals_of_a_long_outage_are_an_event_a_minute(recording: Recording) -> None:
    """Else what was refused for an hour without a flush would all count for its first minute."""
    recording.breaker.force_open()
    for _ in range(150):
        await refuse(recording.breaker, by_call)
        recording.clock.advance(1)
    counts = [event.count for event in recording.events() if event.kind is Kind.REJECTED]
    assert counts == [60, 60, 30]


async def test_refusals_are_counted_apart_where_the_breaker_changed_between_them(
    recording: Recording,
) -> None:
    breaker = recording.breaker
    await trip(breaker)
    await refuse_times(breaker, 2)
    recording.clock.advance(60)
    probe = await begin(breaker)
    await refuse_times(breaker, 3)
    await probe.fail()
    await refuse_times(breaker, 4)
    rejected = [event for event in recording.events() if event.kind is Kind.REJECTED]
    assert [event.count for event in rejected] == [2, 3, 4]
    assert [event.permit.generation for event in rejected] == [1, 2, 3]


async def test_refusals_counted_on_while_a_part_of_the_queue_is_taken_are_not_lost(
    recording: Recording,
) -> None:
    """The first entry is taken, the second is still being counted and waits."""
    breaker = recording.breaker
    await trip(breaker)
    await refuse_times(breaker, 2)
    recording.clock.advance(60)
    probe = await begin(breaker)
    await refuse_times(breaker, 3)
    taken = list(recording.cut(limit=7).outcomes)
    await refuse_times(breaker, 4)
    taken += recording.cut().outcomes
    assert sum(row[9] or 0 for row in taken) == 9
    await probe.succeed()


async def refuse_times(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(CircuitBreakerOpenError):
            await breaker.call(succeed)


async def test_refusals_change_no_state(breaker: CircuitBreaker, clock: ManualClock) -> None:
    await trip(breaker)
    before = breaker.state
    await refuse_times(breaker, 3)
    assert breaker.state is before
