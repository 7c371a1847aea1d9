"""Late results are recorded and change nothing (DESIGN rule 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from breaker_store.core.events import CircuitState, Kind, Permit, Verdict
from breaker_store.core.policy import Policy
from tests.core.scenario import Scenario, kinds, outcome_in

Ending: TypeAlias = Callable[[Scenario, Permit], Scenario]
ENDINGS = [Scenario.succeed, Scenario.fail]


def assert_recorded_and_not_counted(breaker: Scenario, permit: Permit, ending: Ending) -> None:
    before = breaker.state
    ending(breaker, permit)
    assert len(breaker.last) == 1
    late = outcome_in(breaker.last)
    assert (late.verdict, late.permit) == (Verdict.NOT_COUNTED, permit)
    assert breaker.state is before


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("state", list(CircuitState))
def test_a_call_from_before_a_reset_is_late_in_every_state(state: CircuitState, ending: Ending) -> None:
    breaker = Scenario()
    slow = breaker.admitted()
    breaker.reset().in_state(state)
    assert_recorded_and_not_counted(breaker, slow, ending)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("state", [CircuitState.OPEN, CircuitState.HALF_OPEN])
def test_a_call_from_before_the_opening_is_late(state: CircuitState, ending: Ending) -> None:
    """A slow call that fails after the breaker opened can't lengthen the wait, nor reopen a half-open one."""
    breaker = Scenario()
    slow = breaker.admitted()
    breaker.in_state(state)
    assert_recorded_and_not_counted(breaker, slow, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_call_from_before_the_opening_is_late_after_the_recovery(ending: Ending) -> None:
    breaker = Scenario(Policy(success_threshold=1))
    slow = breaker.admitted()
    breaker.succeed(breaker.half_opened()).fail()
    assert breaker.state.state is CircuitState.CLOSED
    assert_recorded_and_not_counted(breaker, slow, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_probe_of_an_earlier_round_is_not_credited_to_this_one(ending: Ending) -> None:
    """Its number is even that of a probe that holds a slot now."""
    breaker = Scenario(Policy(half_open_max_calls=2, success_threshold=1))
    old, failing = breaker.half_opened(), breaker.admitted()
    breaker.fail(failing).wait(60)
    assert breaker.admitted().probe == old.probe
    assert_recorded_and_not_counted(breaker, old, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_probe_is_late_once_the_breaker_has_closed(ending: Ending) -> None:
    breaker = Scenario(Policy(half_open_max_calls=2, success_threshold=1))
    first, second = breaker.half_opened(), breaker.admitted()
    breaker.succeed(first).fail()
    assert_recorded_and_not_counted(breaker, second, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_call_of_a_history_that_lost_is_late_though_its_generation_is_the_current_one(
    ending: Ending,
) -> None:
    breaker = Scenario().reset()
    parted = Permit(breaker.state.generation, breaker.state.era + 1)
    assert_recorded_and_not_counted(breaker, parted, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_call_of_another_generation_is_late_though_its_era_is_the_current_one(ending: Ending) -> None:
    """Eras are drawn at random: two of them may be equal by chance."""
    breaker = Scenario().reset()
    older = Permit(breaker.state.generation - 1, breaker.state.era)
    assert_recorded_and_not_counted(breaker, older, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_call_of_a_generation_not_reached_here_is_late(ending: Ending) -> None:
    """A process that lost a compare-and-set may go back to a lower generation than its calls were admitted under."""
    breaker = Scenario().reset()
    ahead = Permit(breaker.state.generation + 3, 4)
    assert_recorded_and_not_counted(breaker, ahead, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_ordinary_call_is_no_probe_though_it_names_the_current_count(ending: Ending) -> None:
    breaker = Scenario()
    probe = breaker.half_opened()
    assert_recorded_and_not_counted(breaker, probe._replace(probe=0), ending)


def test_calls_of_one_count_are_counted_in_the_order_of_their_ends() -> None:
    """A call that began before a success and fails after it counts as a failure after the success."""
    breaker = Scenario()
    slow = breaker.admitted()
    breaker.fail().succeed().fail(slow)
    assert (kinds(breaker.last), breaker.state.failure_count) == ([Kind.FAILURE], 1)
