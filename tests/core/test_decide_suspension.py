"""A bot is suspended and resumed: in which states, and what is refused meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from breaker_store.core.commands import Erase
from breaker_store.core.events import CircuitState, Kind, Suspension, Transition
from breaker_store.core.policy import GREATEST_TIMEOUT_SECONDS, Policy

from .scenario import SECOND, Scenario, transition_in


@pytest.mark.parametrize("before", list(CircuitState))
def test_a_suspension_opens_the_breaker_in_every_state_and_says_by_whom_and_why(before: CircuitState) -> None:
    breaker = Scenario().in_state(before)
    was, event_id = breaker.state, breaker.event_id
    breaker.wait(1).suspend("ann", "unpaid bill")
    assert breaker.last == (
        Transition(
            kind=Kind.SUSPENDED,
            event_id=event_id,
            at=breaker.now,
            version=was.version + 1,
            generation=was.generation + 1,
            era=breaker.state.era,
            follows=was.last_transition,
            from_state=before,
            to_state=CircuitState.OPEN,
            policy=Policy(),
            reason="unpaid bill",
            actor="ann",
            opened_at=breaker.now,
            opened_by=event_id,
            forced=True,
            suspension=Suspension("ann", "unpaid bill", breaker.now),
        ),
    )
    assert breaker.wait(GREATEST_TIMEOUT_SECONDS).admit() is None


@pytest.mark.parametrize("act", [Scenario.reset, Scenario.force_open, Scenario.release])
def test_nothing_but_a_resumption_ends_a_suspension(act: Callable[[Scenario], Scenario]) -> None:
    breaker = Scenario().suspend("ann", "unpaid bill")
    suspended = breaker.state
    with pytest.raises(ValueError, match="can only be resumed"):
        act(breaker)
    assert breaker.state is suspended


def test_suspended_again_it_has_the_new_reason_and_has_been_suspended_all_the_time() -> None:
    breaker = Scenario().suspend("ann", "unpaid bill")
    since = breaker.now
    breaker = breaker.wait(10).suspend("bob", "abuse")
    assert breaker.state.suspension == Suspension("bob", "abuse", since)


def test_a_change_of_policy_leaves_the_suspension_as_it_is() -> None:
    breaker = Scenario().suspend("ann", "unpaid bill")
    suspension = breaker.state.suspension
    changed = transition_in(breaker.wait(10).change_policy(Policy(timeout_seconds=1)).last)
    assert (changed.suspension, changed.forced, changed.retry_at) == (suspension, True, None)
    assert breaker.state.suspension == suspension


def test_resumed_it_is_closed_and_counts_nothing() -> None:
    breaker = Scenario().opened().suspend("ann").wait(10).resume("bob", "paid")
    resumed = transition_in(breaker.last)
    assert (resumed.kind, resumed.actor, resumed.reason) == (Kind.RESUMED, "bob", "paid")
    assert breaker.state.calm
    assert (breaker.state.suspension, breaker.state.forced) == (None, False)


@pytest.mark.parametrize("before", list(CircuitState))
def test_what_is_not_suspended_can_t_be_resumed(before: CircuitState) -> None:
    with pytest.raises(ValueError, match="not suspended"):
        Scenario().in_state(before).resume()


def test_an_erasure_ends_a_suspension() -> None:
    breaker = Scenario().suspend("ann", "unpaid bill")
    breaker.run(Erase(breaker.now, breaker.event_id, 5, "00"))
    assert (breaker.state.state, breaker.state.suspension) == (CircuitState.CLOSED, None)


def test_another_clock_moves_the_time_of_a_suspension_too() -> None:
    breaker = Scenario().suspend("ann")
    for shifted in (breaker.state.shifted(SECOND), transition_in(breaker.last).shifted(SECOND)):
        assert shifted.suspension == Suspension("ann", None, breaker.now + SECOND)
