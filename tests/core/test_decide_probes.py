"""Half-open lets only so many probes run at once (DESIGN rule 3)."""

from __future__ import annotations

import pytest

from breaker_store.core.events import CircuitState, Kind, Permit, ProbeAbandoned, ProbeStarted, Verdict
from breaker_store.core.policy import Policy
from breaker_store.core.state import Probe
from tests.core.scenario import SECOND, START, Scenario, kinds, outcome_in

HALF_OPENED_AT = START + 60 * SECOND


def numbers(breaker: Scenario) -> list[int]:
    """Give the numbers of the probes that hold a slot."""
    return [probe.number for probe in breaker.state.probes]


def test_of_50_callers_at_the_moment_of_half_open_one_is_admitted() -> None:
    breaker = Scenario().opened().wait(60)
    permits = [breaker.admit() for _ in range(50)]
    assert permits == [Permit(2, breaker.state.era, 1)] + [None] * 49
    assert [kind for kind in kinds(breaker.stored) if kind is Kind.HALF_OPENED] == [Kind.HALF_OPENED]
    assert kinds(breaker.last) == [Kind.REJECTED]


def test_as_many_probes_run_at_once_as_the_policy_allows() -> None:
    breaker = Scenario(Policy(half_open_max_calls=3)).opened().wait(60)
    permits = [breaker.admit() for _ in range(50)]
    assert [permit.probe for permit in permits if permit] == [1, 2, 3]
    assert breaker.state.probes == tuple(Probe(number, HALF_OPENED_AT) for number in (1, 2, 3))


def test_a_refusal_while_probes_run_is_recorded_under_the_current_count() -> None:
    breaker = Scenario()
    probe = breaker.half_opened()
    breaker.admit()
    refused = outcome_in(breaker.last)
    assert (refused.kind, refused.count, refused.permit) == (Kind.REJECTED, 1, probe._replace(probe=0))


def test_a_successful_probe_leaves_its_slot_to_the_next() -> None:
    breaker = Scenario(Policy(success_threshold=3))
    breaker.succeed(breaker.half_opened())
    assert numbers(breaker) == []
    assert breaker.admitted().probe == 2
    assert breaker.last == (ProbeStarted(2, HALF_OPENED_AT),)


def test_a_cancelled_probe_gives_its_slot_back_at_once_and_counts_as_nothing() -> None:
    breaker = Scenario(Policy(half_open_max_calls=2))
    first = breaker.half_opened()
    second = breaker.admitted()
    stored = len(breaker.stored)
    breaker.cancel(first)
    assert breaker.last == (ProbeAbandoned(1),)
    assert len(breaker.stored) == stored
    assert (breaker.state.state, breaker.state.success_count) == (CircuitState.HALF_OPEN, 0)
    assert breaker.state.failure_count == 5
    assert breaker.admitted().probe == 3
    assert numbers(breaker) == [second.probe, 3]


def test_a_probe_cancelled_twice_frees_one_slot() -> None:
    breaker = Scenario()
    first = breaker.half_opened()
    breaker.cancel(first)
    second = breaker.admitted()
    assert breaker.cancel(first).last == ()
    assert numbers(breaker) == [second.probe]


@pytest.mark.parametrize("state", list(CircuitState))
def test_a_cancelled_ordinary_call_leaves_no_trace_in_any_state(state: CircuitState) -> None:
    breaker = Scenario()
    permit = breaker.admitted()
    before = breaker.in_state(state).state
    assert breaker.cancel(permit).last == ()
    assert breaker.state is before


def test_a_cancelled_probe_of_an_earlier_round_leaves_this_rounds_slot_alone() -> None:
    breaker = Scenario(Policy(half_open_max_calls=2))
    old, failing = breaker.half_opened(), breaker.admitted()
    breaker.fail(failing).wait(60)
    assert breaker.admitted().probe == old.probe
    assert breaker.cancel(old).last == ()
    assert numbers(breaker) == [1]


@pytest.mark.parametrize(("waited", "admitted"), [(59.999999, False), (60, True)])
def test_a_probe_that_never_returns_loses_its_slot_after_the_timeout(waited: float, admitted: bool) -> None:
    breaker = Scenario()
    breaker.half_opened()
    breaker.wait(waited)
    assert (breaker.admit() is not None) is admitted
    if admitted:
        assert breaker.last == (ProbeStarted(2, breaker.now, displaced=(1,)),)
        assert numbers(breaker) == [2]


def test_an_overdue_probe_keeps_its_slot_while_another_is_free() -> None:
    """A slow answer that nobody waits behind is still an answer."""
    breaker = Scenario(Policy(half_open_max_calls=2, success_threshold=1))
    slow = breaker.half_opened()
    breaker.wait(60)
    assert breaker.admitted().probe == 2
    assert numbers(breaker) == [1, 2]
    assert kinds(breaker.succeed(slow).last) == [Kind.SUCCESS, Kind.CLOSED]


def test_an_overdue_probe_that_nobody_displaced_still_counts() -> None:
    breaker = Scenario()
    slow = breaker.half_opened()
    breaker.wait(3_600).succeed(slow)
    assert breaker.state.success_count == 1


def test_each_caller_takes_one_overdue_slot_the_oldest_first() -> None:
    breaker = Scenario(Policy(half_open_max_calls=2))
    breaker.half_opened()
    breaker.wait(1).admitted()
    breaker.wait(60).admitted()
    assert numbers(breaker) == [2, 3]
    breaker.admitted()
    assert numbers(breaker) == [3, 4]
    assert breaker.admit() is None


@pytest.mark.parametrize("kind", [Kind.SUCCESS, Kind.FAILURE])
def test_a_probe_that_lost_its_slot_is_recorded_and_not_counted(kind: Kind) -> None:
    breaker = Scenario(Policy(success_threshold=1))
    lost = breaker.half_opened()
    breaker.wait(60).admitted()
    before = breaker.state
    (breaker.succeed if kind is Kind.SUCCESS else breaker.fail)(lost)
    assert (kinds(breaker.last), outcome_in(breaker.last).verdict) == ([kind], Verdict.NOT_COUNTED)
    assert outcome_in(breaker.last).permit == lost
    assert breaker.state is before


def test_a_probe_reported_twice_counts_once() -> None:
    breaker = Scenario()
    probe = breaker.half_opened()
    breaker.succeed(probe).succeed(probe)
    assert (breaker.state.state, breaker.state.success_count) == (CircuitState.HALF_OPEN, 1)


def test_a_cancelled_probe_that_answers_after_all_is_not_counted() -> None:
    breaker = Scenario()
    probe = breaker.half_opened()
    breaker.cancel(probe).fail(probe)
    assert outcome_in(breaker.last).verdict is Verdict.NOT_COUNTED
    assert breaker.state.state is CircuitState.HALF_OPEN


def test_probes_that_run_while_another_fails_are_late() -> None:
    breaker = Scenario(Policy(half_open_max_calls=3))
    first, second, third = breaker.half_opened(), breaker.admitted(), breaker.admitted()
    breaker.succeed(first).fail(second)
    opened = breaker.state
    breaker.fail(third)
    assert (kinds(breaker.last), outcome_in(breaker.last).verdict) == ([Kind.FAILURE], Verdict.NOT_COUNTED)
    assert breaker.state is opened


def test_a_smaller_limit_holds_for_the_next_probe_though_more_are_running() -> None:
    breaker = Scenario(Policy(half_open_max_calls=3))
    first = breaker.half_opened()
    second, third = breaker.admitted(), breaker.admitted()
    breaker.change_policy(Policy(half_open_max_calls=1, success_threshold=3))
    breaker.succeed(first).succeed(second)
    assert breaker.admit() is None
    breaker.cancel(third)
    assert breaker.admitted().probe == 4


def test_a_smaller_limit_holds_when_overdue_probes_are_displaced() -> None:
    """Each of 3 overdue ones must not make room for one more: one probe may run at a time."""
    breaker = Scenario(Policy(half_open_max_calls=3))
    breaker.half_opened()
    breaker.admitted()
    breaker.admitted()
    breaker.change_policy(Policy(half_open_max_calls=1)).wait(60)
    permits = [breaker.admit() for _ in range(3)]
    assert [permit.probe for permit in permits if permit] == [4]
    assert numbers(breaker) == [4]


def test_too_few_overdue_probes_make_no_room_under_a_smaller_limit() -> None:
    breaker = Scenario(Policy(half_open_max_calls=3))
    breaker.half_opened()
    breaker.wait(1).admitted()
    breaker.admitted()
    breaker.change_policy(Policy(half_open_max_calls=1)).wait(59)
    assert breaker.admit() is None
    assert numbers(breaker) == [1, 2, 3]
    assert breaker.wait(1).admit() is not None
    assert numbers(breaker) == [4]


def test_a_larger_limit_holds_at_once() -> None:
    breaker = Scenario()
    breaker.half_opened()
    breaker.change_policy(Policy(half_open_max_calls=2))
    assert [breaker.admit() is not None for _ in range(2)] == [True, False]


def test_without_a_timeout_each_caller_displaces_the_one_before() -> None:
    breaker = Scenario(Policy(timeout_seconds=0))
    breaker.half_opened()
    assert breaker.admitted().probe == 2
    assert numbers(breaker) == [2]


def test_probes_are_numbered_from_one_in_each_round() -> None:
    breaker = Scenario(Policy(success_threshold=9))
    breaker.succeed(breaker.half_opened()).succeed().fail().wait(60)
    assert breaker.admitted().probe == 1
