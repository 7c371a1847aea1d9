"""How many calls a half-open breaker lets through, and what gives a slot back (DESIGN rule 3)."""

from __future__ import annotations

import asyncio

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerOpenError
from breaker_store.core.events import CircuitState, Kind
from breaker_store.runtime.clock import ManualClock
from tests.runtime.driving import Recording, Way, begin, fail_times, half_open, succeed, trip


async def count_admitted(breaker: CircuitBreaker, callers: int, way: Way) -> int:
    """Have so many callers come at once, and see how many reach the function."""
    everyone_has_come = asyncio.Event()
    admitted = came = 0

    def come(_refused: object = None) -> None:
        nonlocal came
        came += 1
        if came == callers:
            everyone_has_come.set()

    async def probe() -> None:
        nonlocal admitted
        admitted += 1
        come()
        await everyone_has_come.wait()

    tasks = [asyncio.ensure_future(way(breaker, probe)) for _ in range(callers)]
    for task in tasks:
        task.add_done_callback(come)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(answer, CircuitBreakerOpenError) for answer in answers) == callers - admitted
    return admitted


async def test_of_fifty_callers_at_the_moment_of_half_open_one_is_admitted(
    breaker: CircuitBreaker, clock: ManualClock, way: Way
) -> None:
    await trip(breaker)
    clock.advance(60)
    assert await count_admitted(breaker, 50, way) == 1
    assert breaker.state.success_count == 1


async def test_half_open_max_calls_is_how_many_probes_run_at_once(clock: ManualClock, way: Way) -> None:
    breaker = CircuitBreaker(success_threshold=10, half_open_max_calls=3, clock=clock)
    await trip(breaker)
    clock.advance(60)
    assert [await count_admitted(breaker, 50, way) for _ in range(2)] == [3, 3]
    assert breaker.state.success_count == 6


async def test_a_call_refused_while_a_probe_runs_says_so(breaker: CircuitBreaker, clock: ManualClock) -> None:
    probe = await half_open(breaker, clock)
    with pytest.raises(CircuitBreakerOpenError) as refused:
        await breaker.call(succeed)
    assert refused.value.timeout_remaining == 0.0
    assert "while a probe is running" in str(refused.value)
    await probe.succeed()


async def test_a_cancelled_probe_gives_its_slot_back_at_once_and_counts_as_nothing(
    recording: Recording, way: Way
) -> None:
    probe = await half_open(recording.breaker, recording.clock, way)
    recording.events()
    await probe.cancel()
    assert (recording.breaker.state.probes, recording.breaker.state.success_count) == ((), 0)
    assert recording.events() == []
    assert await way(recording.breaker, succeed) == "sent"


async def test_a_cancelled_call_of_a_closed_breaker_counts_as_nothing(recording: Recording, way: Way) -> None:
    await fail_times(recording.breaker, 4, way)
    recording.events()
    await (await begin(recording.breaker, way)).cancel()
    assert (recording.breaker.state.failure_count, recording.events()) == (4, [])


async def test_a_probe_that_is_cancelled_after_it_lost_its_slot_leaves_its_successors_alone(
    breaker: CircuitBreaker, clock: ManualClock, way: Way
) -> None:
    late = await half_open(breaker, clock, way)
    clock.advance(60)
    successor = await begin(breaker, way)
    await late.cancel()
    with pytest.raises(CircuitBreakerOpenError):
        await way(breaker, succeed)
    await successor.succeed()


async def test_a_probe_cancelled_in_an_earlier_round_leaves_this_one_alone(clock: ManualClock) -> None:
    """Both are the first of their round."""
    breaker = CircuitBreaker(half_open_max_calls=2, clock=clock)
    late = await half_open(breaker, clock)
    await fail_times(breaker, 1)
    clock.advance(60)
    current = await begin(breaker)
    await late.cancel()
    assert len(breaker.state.probes) == 1
    await current.succeed()


async def test_a_probe_that_never_ends_keeps_its_slot_for_the_timeout_and_not_longer(
    breaker: CircuitBreaker, clock: ManualClock, way: Way
) -> None:
    endless = await half_open(breaker, clock, way)
    clock.advance(59.999999)
    with pytest.raises(CircuitBreakerOpenError):
        await way(breaker, succeed)
    clock.advance(0.000001)
    assert await way(breaker, succeed) == "sent"
    await endless.cancel()


async def test_probes_that_never_end_do_not_lock_the_breaker_for_ever(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    endless = [await half_open(breaker, clock)]
    for _ in range(3):
        clock.advance(60)
        endless.append(await begin(breaker))
    assert len(breaker.state.probes) == 1
    for probe in endless:
        await probe.cancel()
    await breaker.call(succeed)
    await breaker.call(succeed)
    assert breaker.state.state is CircuitState.CLOSED


async def test_a_slow_probe_that_nobody_waits_behind_still_counts(
    breaker: CircuitBreaker, clock: ManualClock, way: Way
) -> None:
    slow = await half_open(breaker, clock, way)
    clock.advance(3_600)
    await slow.succeed()
    assert breaker.state.success_count == 1


async def test_a_failed_probe_opens_the_breaker_though_others_still_run(clock: ManualClock) -> None:
    breaker = CircuitBreaker(half_open_max_calls=3, clock=clock)
    first = await half_open(breaker, clock)
    second, third = await begin(breaker), await begin(breaker)
    await second.fail()
    await first.succeed()
    await third.succeed()
    assert (breaker.state.state, breaker.state.success_count) == (CircuitState.OPEN, 0)


async def test_a_probe_ends_with_an_error_that_is_no_outcome_and_its_slot_is_free(
    breaker: CircuitBreaker, clock: ManualClock, way: Way
) -> None:
    async def leave() -> None:
        raise GeneratorExit

    await trip(breaker)
    clock.advance(60)
    with pytest.raises(GeneratorExit):
        await way(breaker, leave)
    assert (breaker.state.state, breaker.state.probes) == (CircuitState.HALF_OPEN, ())


async def test_a_probe_whose_coroutine_is_closed_gives_its_slot_back(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """So ends a call that nobody awaits any more."""

    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    await trip(breaker)
    clock.advance(60)
    call = breaker.call(wait_for_ever)
    call.send(None)
    assert len(breaker.state.probes) == 1
    call.close()
    assert breaker.state.probes == ()


async def test_the_records_of_a_recovery_name_each_probe(recording: Recording) -> None:
    await trip(recording.breaker)
    recording.events()
    recording.clock.advance(60)
    await (await begin(recording.breaker)).cancel()
    await recording.breaker.call(succeed)
    await recording.breaker.call(succeed)
    events = recording.events()
    assert [event.kind for event in events] == [Kind.HALF_OPENED, Kind.SUCCESS, Kind.SUCCESS, Kind.CLOSED]
    assert [event.permit.probe for event in events[1:3]] == [2, 3]
