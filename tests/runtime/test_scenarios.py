"""The seven scenarios of a breaker's life, in each of the three ways to use it."""

from __future__ import annotations

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerOpenError, CircuitBreakerRegistry
from breaker_store.core.events import CircuitState
from breaker_store.runtime.clock import ManualClock
from tests.runtime.driving import Way, begin, by_call, fail, fail_times, half_open, succeed, trip


async def test_a_closed_breaker_lets_calls_through_and_gives_what_they_give(
    breaker: CircuitBreaker, way: Way
) -> None:
    assert [await way(breaker, succeed) for _ in range(3)] == ["sent"] * 3
    assert breaker.get_state()["state"] == "closed"


async def test_four_failures_in_a_row_leave_it_closed(breaker: CircuitBreaker, way: Way) -> None:
    await fail_times(breaker, 4, way)
    assert (breaker.get_state()["state"], breaker.get_state()["failure_count"]) == ("closed", 4)


async def test_a_success_begins_the_count_of_failures_anew(breaker: CircuitBreaker, way: Way) -> None:
    await fail_times(breaker, 4, way)
    await way(breaker, succeed)
    assert breaker.get_state()["failure_count"] == 0
    await fail_times(breaker, 4, way)
    assert breaker.get_state()["state"] == "closed"


async def test_the_fifth_failure_in_a_row_opens_it(breaker: CircuitBreaker, way: Way) -> None:
    await fail_times(breaker, 5, way)
    assert breaker.get_state()["state"] == "open"


async def test_an_open_breaker_refuses_and_does_not_call_the_function(
    breaker: CircuitBreaker, way: Way
) -> None:
    await trip(breaker, way)
    called = []

    async def func() -> None:
        called.append(1)

    with pytest.raises(CircuitBreakerOpenError):
        await way(breaker, func)
    assert not called


async def test_an_open_breaker_refuses_until_its_wait_is_over_to_the_microsecond(
    breaker: CircuitBreaker, clock: ManualClock, way: Way
) -> None:
    await trip(breaker, way)
    clock.advance(59.999999)
    with pytest.raises(CircuitBreakerOpenError):
        await way(breaker, succeed)
    clock.advance(0.000001)
    assert await way(breaker, succeed) == "sent"


async def test_the_first_call_after_the_wait_makes_it_half_open(
    breaker: CircuitBreaker, clock: ManualClock, way: Way
) -> None:
    probe = await half_open(breaker, clock, way)
    assert breaker.get_state()["state"] == "half_open"
    await probe.succeed()


async def test_two_successes_close_a_half_open_breaker(
    breaker: CircuitBreaker, clock: ManualClock, way: Way
) -> None:
    await (await half_open(breaker, clock, way)).succeed()
    assert (breaker.get_state()["state"], breaker.get_state()["success_count"]) == ("half_open", 1)
    await way(breaker, succeed)
    state = breaker.get_state()
    assert (state["state"], state["success_count"], state["failure_count"]) == ("closed", 0, 0)


@pytest.mark.parametrize("successes_before", [0, 1])
async def test_any_failure_of_a_half_open_breaker_opens_it_and_the_wait_starts_anew(
    breaker: CircuitBreaker, clock: ManualClock, way: Way, successes_before: int
) -> None:
    await trip(breaker, way)
    clock.advance(100)
    for _ in range(successes_before):
        await way(breaker, succeed)
    await fail_times(breaker, 1, way)
    assert (breaker.get_state()["state"], breaker.get_state()["timeout_remaining"]) == ("open", 60.0)
    clock.advance(59.999999)
    with pytest.raises(CircuitBreakerOpenError):
        await way(breaker, succeed)


async def test_successes_of_a_failed_recovery_are_not_credited_to_the_next(
    breaker: CircuitBreaker, clock: ManualClock, way: Way
) -> None:
    await (await half_open(breaker, clock, way)).succeed()
    await fail_times(breaker, 1, way)
    clock.advance(60)
    await way(breaker, succeed)
    assert breaker.state.state is CircuitState.HALF_OPEN


async def test_a_registry_keeps_one_breaker_a_user_and_they_do_not_touch_each_other() -> None:
    registry = CircuitBreakerRegistry(clock=ManualClock())
    await trip(registry.get_breaker(101))
    assert await registry.get_breaker(102).call(succeed) == "sent"
    assert registry.get_breaker(101) is registry.get_breaker(101)
    assert (registry.get_open_breakers(), registry.get_half_open_breakers()) == ([101], [])


async def test_the_numbers_are_the_users_to_choose(clock: ManualClock) -> None:
    breaker = CircuitBreaker(2, 0.5, 1, clock=clock)
    await fail_times(breaker, 2)
    clock.advance(0.5)
    assert await breaker.call(succeed) == "sent"
    assert breaker.get_state()["state"] == "closed"


async def test_an_open_breaker_past_its_wait_stays_open_until_it_is_called(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    await trip(breaker)
    clock.advance(3_600)
    before = breaker.state
    assert (breaker.get_state()["state"], breaker.get_state()["timeout_remaining"]) == ("open", 0.0)
    assert breaker.state is before


async def test_a_breaker_that_is_used_in_all_three_ways_counts_one_run_of_failures(
    breaker: CircuitBreaker,
) -> None:
    await fail_times(breaker, 3, by_call)
    with pytest.raises(Exception, match="no answer"):
        async with breaker:
            await fail()
    with pytest.raises(Exception, match="no answer"):
        await breaker(fail)()
    assert breaker.get_state()["state"] == "open"
    with pytest.raises(CircuitBreakerOpenError):
        await begin(breaker)
