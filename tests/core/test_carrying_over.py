"""A count goes on without the outcomes that made it: it is carried over by a transition."""

from __future__ import annotations

from breaker_store.core.events import CircuitState, Kind, Transition
from breaker_store.core.policy import Policy
from breaker_store.core.rebuild import rebuild

from .scenario import DEFAULT, Scenario, transition_in

REASON = "its outcomes of before 2026-10-27 are being dropped"


def without_outcomes(breaker: Scenario) -> Scenario:
    """Drop what is stored of calls, as retention does."""
    breaker.stored = [event for event in breaker.stored if isinstance(event, Transition)]
    return breaker


def test_failures_are_carried_over_as_its_causes_in_a_count_of_their_own() -> None:
    breaker = Scenario().fail(error="Old").fail().fail()
    before = breaker.state
    carried = transition_in(breaker.wait(86_400).carry_over(REASON).last)
    assert (carried.kind, carried.from_state, carried.to_state) == (
        Kind.CARRIED_OVER,
        CircuitState.CLOSED,
        CircuitState.CLOSED,
    )
    assert (carried.failure_count, carried.causes) == (3, before.failures)
    assert carried.reason == f"count of 3 failures carried over: {REASON}"
    assert carried.generation == before.generation + 1
    assert (breaker.state.failure_count, breaker.state.failures) == (3, before.failures)
    assert breaker.state.last_failure == before.last_failure


def test_a_trip_after_it_names_the_failures_that_were_carried_over() -> None:
    breaker = Scenario().fail(error="Old").fail().fail()
    without_outcomes(breaker.carry_over()).fail().fail()
    opened = transition_in(breaker.last)
    assert (opened.kind, opened.reason) == (Kind.OPENED, "5 failures in a row")
    assert (len(opened.causes), opened.causes[0].error_type) == (5, "Old")


def test_a_half_open_breaker_keeps_the_probes_that_succeeded() -> None:
    breaker = Scenario(Policy(success_threshold=2))
    breaker.succeed(breaker.half_opened())
    carried = transition_in(breaker.carry_over().last)
    assert (carried.success_count, carried.reason) == (1, "count of 1 success carried over")
    assert breaker.state.state is CircuitState.HALF_OPEN
    assert transition_in(breaker.succeed().last).kind is Kind.CLOSED


def test_a_change_of_policy_after_it_carries_it_on() -> None:
    breaker = without_outcomes(Scenario().fail().fail().carry_over())
    breaker.fail().change_policy(Policy(failure_threshold=9))
    changed = transition_in(breaker.last)
    assert (changed.failure_count, len(changed.causes)) == (2, 2)
    assert rebuild(DEFAULT, breaker.stored) == breaker.state
    assert breaker.state.failure_count == 3


def test_a_success_ends_a_run_that_was_carried_over() -> None:
    breaker = without_outcomes(Scenario().fail().fail().carry_over()).succeed()
    assert rebuild(DEFAULT, breaker.stored) == breaker.state
    assert breaker.state.calm


def test_a_call_that_was_in_flight_changes_nothing_when_it_ends() -> None:
    breaker = Scenario()
    permit = breaker.admitted()
    carried = breaker.fail().carry_over().state
    assert breaker.succeed(permit).state is carried


def test_a_suspension_outlasts_it() -> None:
    breaker = Scenario().suspend("ann", "unpaid bill")
    suspension = breaker.state.suspension
    assert breaker.carry_over().state.suspension == suspension
    assert breaker.state.forced
