"""Those who hear of transitions where no event loop runs, such as in a script that resets a breaker."""

from __future__ import annotations

from collections.abc import Coroutine

import pytest

from breaker_store import CircuitBreakerRegistry, Kind, Transition
from breaker_store.runtime.clock import ManualClock
from tests.runtime.driving import USER, Heard, succeed, trip


def run_by_hand(coroutine: Coroutine[object, None, object]) -> object:
    """Run a coroutine that never waits, where no event loop runs."""
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        return stopped.value
    raise AssertionError("it waits")


async def raise_soon(_user_id: int | None, _transition: Transition) -> None:
    raise ValueError("a bad listener")


def raise_at_once(_user_id: int | None, _transition: Transition) -> None:
    raise ValueError("a bad listener")


def test_where_no_loop_runs_a_plain_listener_is_called_at_once(registry: CircuitBreakerRegistry) -> None:
    heard = Heard()
    registry.subscribe(raise_at_once)
    registry.subscribe(heard)
    registry.get_breaker(USER).reset()
    assert heard.kinds == [Kind.RESET]


def test_where_no_loop_runs_an_async_listener_is_not_called_and_that_is_said(
    registry: CircuitBreakerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.subscribe(raise_soon)
    registry.get_breaker(USER).reset()
    assert "is async and was not called: no event loop runs" in caplog.text


def test_where_no_loop_runs_a_listener_may_reset_the_breaker_it_hears_of(
    registry: CircuitBreakerRegistry, clock: ManualClock
) -> None:
    breaker = registry.get_breaker(USER)

    def reset_what_half_opens(_user_id: int | None, transition: Transition) -> None:
        if transition.kind is Kind.HALF_OPENED:
            breaker.reset()

    run_by_hand(trip(breaker))
    registry.subscribe(reset_what_half_opens)
    clock.advance(60)
    assert run_by_hand(breaker.call(succeed)) == "sent"
    assert breaker.get_state()["state"] == "closed"


def test_where_no_loop_runs_a_listener_that_leaves_does_not_make_the_next_one_miss(
    registry: CircuitBreakerRegistry,
) -> None:
    heard = Heard()
    unsubscribe = registry.subscribe(lambda *_: unsubscribe())
    registry.subscribe(heard)
    registry.get_breaker(USER).reset()
    assert heard.kinds == [Kind.RESET]
