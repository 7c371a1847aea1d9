"""What people do to a breaker: reset it and set its rules; and how its transitions are numbered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breaker_store.core.decide import Report, decide
from breaker_store.core.events import CircuitState, EventId, Kind, Permit, Transition
from breaker_store.core.policy import Policy
from breaker_store.core.state import BreakerState
from tests.core.scenario import SECOND, START, WRITER, Scenario, failure, kinds, transition_in


class TestReset:
    @pytest.mark.parametrize("before", list(CircuitState))
    def test_a_reset_closes_the_breaker_in_every_state(self, before: CircuitState) -> None:
        breaker = Scenario().in_state(before)
        was, event_id = breaker.state, breaker.event_id
        breaker.reset(actor="ann", reason="the bot was fixed")
        reset = transition_in(breaker.last)
        assert replace(reset, causes=()) == Transition(
            kind=Kind.RESET,
            event_id=event_id,
            at=breaker.now,
            version=was.version + 1,
            generation=was.generation + 1,
            era=breaker.state.era,
            follows=was.last_transition,
            from_state=before,
            to_state=CircuitState.CLOSED,
            policy=Policy(),
            reason="the bot was fixed",
            actor="ann",
        )
        assert was.last_failure in reset.causes
        assert breaker.state.calm
        assert breaker.state.last_failure is None
        assert breaker.admitted() == Permit(was.generation + 1, reset.era)

    def test_a_reset_of_a_closed_breaker_forgets_its_failures_and_keeps_them_as_causes(self) -> None:
        breaker = Scenario().fail().fail().reset()
        assert transition_in(breaker.last).causes == (failure(1), failure(2))
        breaker.fail().fail().fail().fail()
        assert breaker.state.state is CircuitState.CLOSED

    def test_a_reset_of_a_breaker_that_never_failed_is_an_event_too(self) -> None:
        breaker = Scenario().reset()
        assert (kinds(breaker.last), transition_in(breaker.last).causes) == ([Kind.RESET], ())

    def test_a_reset_keeps_the_policy_of_the_user(self) -> None:
        own = Policy(failure_threshold=1)
        breaker = Scenario().change_policy(own).reset()
        assert (breaker.state.policy, breaker.state.policy_is_own) == (own, True)


class TestPolicyChange:
    @pytest.mark.parametrize("before", list(CircuitState))
    def test_a_policy_change_sets_the_rules_and_leaves_the_count_in_every_state(
        self, before: CircuitState
    ) -> None:
        breaker = Scenario().in_state(before)
        was, event_id = breaker.state, breaker.event_id
        new = Policy(failure_threshold=9, timeout_seconds=5, success_threshold=3)
        breaker.wait(1).change_policy(new, actor="ann", reason="a slow network")
        retry_at = breaker.now + 5 * SECOND if before is CircuitState.OPEN else None
        assert breaker.last == (
            Transition(
                kind=Kind.POLICY_CHANGED,
                event_id=event_id,
                at=breaker.now,
                version=was.version + 1,
                generation=was.generation,
                era=was.era,
                follows=was.last_transition,
                from_state=before,
                to_state=before,
                policy=new,
                policy_is_own=True,
                reason="a slow network",
                actor="ann",
                failure_count=0 if before is CircuitState.CLOSED else was.failure_count,
                last_failure=was.last_failure,
                opened_at=was.opened_at,
                opened_by=was.opened_by,
                retry_at=retry_at,
            ),
        )
        assert breaker.state == replace(
            was,
            retry_at=retry_at,
            policy=new,
            policy_is_own=True,
            version=was.version + 1,
            last_transition=event_id,
            since=breaker.now,
        )

    def test_the_policy_goes_with_every_later_transition(self) -> None:
        own = Policy(failure_threshold=1, timeout_seconds=1, success_threshold=1)
        breaker = Scenario().change_policy(own).fail()
        opened = transition_in(breaker.last)
        assert (opened.policy, opened.policy_is_own) == (own, True)
        assert opened.retry_at == breaker.now + SECOND
        breaker.wait(1).succeed()
        assert (transition_in(breaker.last).policy, breaker.state.policy_is_own) == (own, True)

    def test_a_wait_that_has_begun_keeps_its_end_under_a_longer_timeout(self) -> None:
        breaker = Scenario().opened().change_policy(Policy(timeout_seconds=600))
        assert breaker.wait(59.999999).admit() is None
        assert breaker.wait(0.000001).admit() is not None

    def test_a_wait_that_has_begun_is_cut_to_a_shorter_timeout(self) -> None:
        """So live breakers agree with readers of the log, who never wait longer than the timeout in force."""
        breaker = Scenario().opened().wait(10).change_policy(Policy(timeout_seconds=1))
        assert breaker.wait(0.999999).admit() is None
        assert breaker.wait(0.000001).admit() is not None

    def test_a_call_in_flight_counts_under_the_new_rules(self) -> None:
        breaker = Scenario()
        permit = breaker.admitted()
        breaker.change_policy(Policy(failure_threshold=1)).fail(permit)
        assert kinds(breaker.last) == [Kind.FAILURE, Kind.OPENED]

    def test_a_probe_in_flight_keeps_its_slot_and_closes_under_the_new_rules(self) -> None:
        breaker = Scenario()
        permit = breaker.half_opened()
        breaker.change_policy(Policy(success_threshold=1))
        assert breaker.admit() is None
        assert kinds(breaker.succeed(permit).last) == [Kind.SUCCESS, Kind.CLOSED]


class TestCounts:
    def test_versions_count_all_transitions_and_generations_those_that_begin_a_count(self) -> None:
        breaker = Scenario(Policy(failure_threshold=1, success_threshold=1))
        breaker.opened().change_policy(Policy(failure_threshold=1, success_threshold=1)).wait(60).succeed()
        breaker.change_policy(Policy()).reset().fail().change_policy(Policy(failure_threshold=1)).fail()
        chain = [event for event in breaker.stored if isinstance(event, Transition)]
        assert [(step.kind, step.version, step.generation) for step in chain] == [
            (Kind.OPENED, 1, 1),
            (Kind.POLICY_CHANGED, 2, 1),
            (Kind.HALF_OPENED, 3, 2),
            (Kind.CLOSED, 4, 3),
            (Kind.POLICY_CHANGED, 5, 3),
            (Kind.RESET, 6, 4),
            (Kind.POLICY_CHANGED, 7, 4),
            (Kind.OPENED, 8, 5),
        ]
        assert [step.follows for step in chain] == [None, *(step.event_id for step in chain[:-1])]

    def test_a_new_count_takes_the_era_that_came_with_the_command(self) -> None:
        report = Report(START, EventId(WRITER, 1), -2_000_000_000, Kind.FAILURE, Permit(0, 0))
        opened = transition_in(decide(BreakerState(Policy(failure_threshold=1)), report))
        assert opened.era == -2_000_000_000

    def test_each_stored_event_has_the_next_number(self) -> None:
        breaker = Scenario(Policy(failure_threshold=1, success_threshold=1))
        breaker.opened().admit()
        breaker.wait(60).succeed().reset().change_policy(Policy())
        assert [event.event_id for event in breaker.stored] == [
            EventId(WRITER, number) for number in range(1, len(breaker.stored) + 1)
        ]
