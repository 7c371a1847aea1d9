"""What a breaker tells of itself, and what somebody may do to it by hand."""

from __future__ import annotations

import asyncio

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerOpenError, Policy, StateDict
from breaker_store.core.events import CircuitState, Kind
from breaker_store.runtime.clock import ManualClock
from tests.runtime.driving import SECOND, START, Recording, begin, fail_times, half_open, succeed, trip

FRESH: StateDict = {
    "state": "closed",
    "failure_count": 0,
    "success_count": 0,
    "failure_threshold": 5,
    "success_threshold": 2,
    "timeout_seconds": 60.0,
    "timeout_remaining": 0.0,
    "last_failure_time": None,
}
TYPES = {
    "state": str,
    "failure_count": int,
    "success_count": int,
    "failure_threshold": int,
    "success_threshold": int,
    "timeout_seconds": float,
    "timeout_remaining": float,
    "last_failure_time": float,
}


def test_a_fresh_breaker_tells_the_defaults(breaker: CircuitBreaker) -> None:
    assert breaker.get_state() == FRESH
    assert list(breaker.get_state()) == list(FRESH)


async def test_an_open_breaker_tells_the_count_that_opened_it_and_the_wait(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    await trip(breaker)
    clock.advance(12.5)
    changed = {
        "state": "open",
        "failure_count": 5,
        "timeout_remaining": 47.5,
        "last_failure_time": START / SECOND,
    }
    assert breaker.get_state() == FRESH | changed
    assert {key: type(value) for key, value in breaker.get_state().items()} == TYPES


async def test_a_half_open_breaker_tells_its_successes_and_no_wait(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    await (await half_open(breaker, clock)).succeed()
    changed = {
        "state": "half_open",
        "failure_count": 5,
        "success_count": 1,
        "last_failure_time": START / SECOND,
    }
    assert breaker.get_state() == FRESH | changed


async def test_the_last_failure_is_told_after_a_success_and_after_a_recovery(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    await trip(breaker)
    clock.advance(60)
    await breaker.call(succeed)
    await breaker.call(succeed)
    assert breaker.get_state() == FRESH | {"last_failure_time": START / SECOND}


def test_numbers_are_told_in_the_types_that_they_are_declared_in() -> None:
    breaker = CircuitBreaker(failure_threshold=3, timeout_seconds=30, success_threshold=1)
    state = breaker.get_state()
    assert (state["failure_threshold"], state["timeout_seconds"], state["success_threshold"]) == (3, 30.0, 1)
    assert isinstance(state["timeout_seconds"], float)


@pytest.mark.parametrize("moment", ["fresh", "failing", "open", "half_open"])
async def test_a_reset_closes_the_breaker_and_forgets_its_failures(recording: Recording, moment: str) -> None:
    breaker = recording.breaker
    if moment == "failing":
        await fail_times(breaker, 4)
    elif moment == "open":
        await trip(breaker)
    elif moment == "half_open":
        await (await half_open(breaker, recording.clock)).succeed()
    recording.events()

    breaker.reset(actor="ada", reason="the service is back")

    assert breaker.get_state() == FRESH
    (reset,) = recording.events()
    assert (reset.kind, reset.actor, reset.reason) == (Kind.RESET, "ada", "the service is back")
    assert await breaker.call(succeed) == "sent"


async def test_a_reset_frees_the_slots_of_probes(breaker: CircuitBreaker, clock: ManualClock) -> None:
    probe = await half_open(breaker, clock)
    breaker.reset()
    await trip(breaker)
    clock.advance(60)
    await (await begin(breaker)).succeed()
    await probe.succeed()
    assert breaker.state.success_count == 1


def test_who_resets_and_why_is_clean_in_the_log(recording: Recording) -> None:
    recording.breaker.reset(actor="ada\x00", reason="token=abcdef\ud800 is new")
    (reset,) = recording.events()
    assert (reset.actor, reset.reason) == ("ada", "token=[hidden] is new")


async def test_a_policy_of_its_own_holds_from_the_next_result_on(recording: Recording) -> None:
    breaker = recording.breaker
    await fail_times(breaker, 3)
    breaker.set_policy(Policy(failure_threshold=2), actor="ada", reason="it is fragile")
    assert breaker.get_state()["state"] == "closed"
    assert breaker.get_state()["failure_threshold"] == 2
    await fail_times(breaker, 1)
    assert breaker.get_state()["state"] == "open"
    changed = recording.events()[3]
    assert (changed.kind, changed.actor, changed.reason) == (Kind.POLICY_CHANGED, "ada", "it is fragile")


def test_a_policy_that_is_in_force_already_is_no_event(recording: Recording) -> None:
    recording.breaker.set_policy(Policy(failure_threshold=2))
    recording.events()
    recording.breaker.set_policy(Policy(failure_threshold=2))
    assert recording.events() == []


def test_a_default_that_is_made_a_users_own_is_an_event(recording: Recording) -> None:
    """It will outlive a change of the default."""
    recording.breaker.set_policy(Policy())
    assert recording.kinds() == [Kind.POLICY_CHANGED]
    assert recording.breaker.state.policy_is_own


def test_a_policy_takes_the_place_of_the_four_numbers() -> None:
    policy = Policy(failure_threshold=2, half_open_max_calls=4)
    assert CircuitBreaker(9, policy=policy).state.policy is policy


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"failure_threshold": 0}, ValueError),
        ({"timeout_seconds": -1}, ValueError),
        ({"timeout_seconds": float("nan")}, ValueError),
        ({"success_threshold": 1.5}, TypeError),
        ({"half_open_max_calls": True}, TypeError),
    ],
)
def test_numbers_that_make_no_sense_are_refused(arguments: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        CircuitBreaker(**arguments)  # type: ignore[arg-type]


async def test_a_breaker_shows_whose_it_is_and_its_state(recording: Recording) -> None:
    assert repr(recording.breaker) == "<CircuitBreaker user_id=101 closed>"
    await trip(recording.breaker)
    assert repr(recording.breaker) == "<CircuitBreaker user_id=101 open>"


async def test_breakers_made_alone_share_nothing() -> None:
    clock = ManualClock()
    one, other = CircuitBreaker(clock=clock), CircuitBreaker(clock=clock)
    await trip(one)
    with pytest.raises(CircuitBreakerOpenError):
        await one.call(succeed)
    assert (other.state.state, await other.call(succeed)) == (CircuitState.CLOSED, "sent")


def test_a_breaker_may_be_used_in_one_event_loop_after_another() -> None:
    breaker = CircuitBreaker(clock=ManualClock())
    asyncio.run(fail_times(breaker, 4))
    asyncio.run(fail_times(breaker, 1))
    assert breaker.get_state()["state"] == "open"
