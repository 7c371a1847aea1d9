"""Results that come when the breaker has moved on: they are recorded, and change nothing (DESIGN rule 2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from breaker_store import CircuitBreaker, Policy
from breaker_store.core.events import CircuitState, Verdict
from breaker_store.runtime.clock import ManualClock
from tests.runtime.driving import Call, Recording, Way, begin, fail_times, half_open, recover, succeed, trip

Move = Callable[[CircuitBreaker, ManualClock], Awaitable[object]]


async def trip_it(breaker: CircuitBreaker, _clock: ManualClock) -> None:
    await trip(breaker)


async def reset_it(breaker: CircuitBreaker, _clock: ManualClock) -> None:
    breaker.reset()


async def fail_a_probe(breaker: CircuitBreaker, clock: ManualClock) -> None:
    await fail_times(breaker, 1)


async def begin_another_round(breaker: CircuitBreaker, clock: ManualClock) -> Call:
    await fail_a_probe(breaker, clock)
    clock.advance(60)
    return await begin(breaker)


async def close_it(breaker: CircuitBreaker, _clock: ManualClock) -> None:
    for _ in range(2):
        await breaker.call(succeed)


async def reset_and_fail(breaker: CircuitBreaker, _clock: ManualClock) -> None:
    breaker.reset()
    await fail_times(breaker, 4)


async def trip_and_close(breaker: CircuitBreaker, clock: ManualClock) -> None:
    await recover(breaker, clock)


def policy_for(probes: int) -> Policy:
    return Policy(half_open_max_calls=probes)


@pytest.mark.parametrize("ending", [Call.succeed, Call.fail])
@pytest.mark.parametrize(
    ("move", "state"),
    [
        (trip_it, CircuitState.OPEN),
        (half_open, CircuitState.HALF_OPEN),
        (trip_and_close, CircuitState.CLOSED),
        (reset_it, CircuitState.CLOSED),
        (reset_and_fail, CircuitState.CLOSED),
    ],
)
async def test_a_call_admitted_while_closed_that_ends_after_the_breaker_moved_on_changes_nothing(
    recording: Recording, way: Way, move: Move, state: CircuitState, ending: Callable[[Call], Awaitable[None]]
) -> None:
    late = await begin(recording.breaker, way)
    still_running = await move(recording.breaker, recording.clock)
    recording.events()
    before = recording.breaker.state
    assert before.state is state

    await ending(late)

    assert recording.breaker.state is before
    assert recording.verdicts() == [Verdict.NOT_COUNTED]
    if isinstance(still_running, Call):
        await still_running.succeed()


@pytest.mark.parametrize("ending", [Call.succeed, Call.fail])
@pytest.mark.parametrize(
    ("move", "state"),
    [
        (fail_a_probe, CircuitState.OPEN),
        (begin_another_round, CircuitState.HALF_OPEN),
        (close_it, CircuitState.CLOSED),
        (reset_it, CircuitState.CLOSED),
    ],
)
async def test_a_probe_of_an_earlier_round_changes_nothing(
    way: Way, move: Move, state: CircuitState, ending: Callable[[Call], Awaitable[None]]
) -> None:
    recording = Recording(policy_for(2))
    late = await half_open(recording.breaker, recording.clock, way)
    still_running = await move(recording.breaker, recording.clock)
    recording.events()
    before = recording.breaker.state
    assert before.state is state

    await ending(late)

    assert recording.breaker.state is before
    assert recording.verdicts() == [Verdict.NOT_COUNTED]
    if isinstance(still_running, Call):
        await still_running.succeed()


@pytest.mark.parametrize("ending", [Call.succeed, Call.fail])
async def test_a_probe_that_lost_its_slot_changes_nothing(
    recording: Recording, way: Way, ending: Callable[[Call], Awaitable[None]]
) -> None:
    late = await half_open(recording.breaker, recording.clock, way)
    recording.clock.advance(60)
    successor = await begin(recording.breaker, way)
    recording.events()
    before = recording.breaker.state

    await ending(late)

    assert recording.breaker.state is before
    assert recording.verdicts() == [Verdict.NOT_COUNTED]
    await successor.succeed()
    assert recording.breaker.state.success_count == 1


async def test_a_late_failure_does_not_make_an_open_breaker_wait_longer(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    late = await begin(breaker)
    await trip(breaker)
    clock.advance(59)
    await late.fail()
    assert breaker.get_state()["timeout_remaining"] == 1.0


async def test_a_late_result_is_recorded_under_the_count_it_was_admitted_in(recording: Recording) -> None:
    late = await begin(recording.breaker)
    await recover(recording.breaker, recording.clock)
    recording.events()
    await late.fail()
    (event,) = recording.events()
    assert event.permit[:2] == (0, 0)


async def test_a_call_under_way_while_the_policy_changes_counts(recording: Recording) -> None:
    """A change of policy begins no count."""
    call = await begin(recording.breaker)
    recording.breaker.set_policy(Policy(failure_threshold=1))
    await call.fail()
    assert recording.breaker.state.state is CircuitState.OPEN
    assert recording.verdicts() == [Verdict.COUNTED]


async def test_successes_under_way_together_end_a_run_of_failures_only_if_they_come_after_it(
    breaker: CircuitBreaker,
) -> None:
    slow = await begin(breaker)
    await fail_times(breaker, 4)
    await slow.succeed()
    assert breaker.state.failure_count == 0
