"""What people do to a breaker: reset it, force it open, set its rules; and how its transitions are numbered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breaker_store.core.commands import ChangePolicy, ForceOpen, Report
from breaker_store.core.decide import decide
from breaker_store.core.events import CircuitState, EventId, Kind, Permit, Transition
from breaker_store.core.policy import GREATEST_TIMEOUT_SECONDS, Policy
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


class TestForceOpen:
    @pytest.mark.parametrize("before", list(CircuitState))
    @pytest.mark.parametrize("seconds", [None, 7_200])
    def test_it_opens_the_breaker_in_every_state_for_as_long_as_was_said(
        self, before: CircuitState, seconds: int | None
    ) -> None:
        breaker = Scenario().in_state(before)
        was, event_id = breaker.state, breaker.event_id
        breaker.wait(1).force_open(seconds, actor="ann", reason="the provider is down")
        assert breaker.last == (
            Transition(
                kind=Kind.FORCED_OPEN,
                event_id=event_id,
                at=breaker.now,
                version=was.version + 1,
                generation=was.generation + 1,
                era=breaker.state.era,
                follows=was.last_transition,
                from_state=before,
                to_state=CircuitState.OPEN,
                policy=Policy(),
                reason="the provider is down",
                actor="ann",
                opened_at=breaker.now,
                opened_by=event_id,
                retry_at=None if seconds is None else breaker.now + seconds * SECOND,
                forced=True,
            ),
        )
        assert (breaker.state.state, breaker.state.forced) == (CircuitState.OPEN, True)
        assert (breaker.state.failure_count, breaker.state.last_failure) == (0, None)

    def test_without_an_end_no_call_is_let_through_however_long_it_waits(self) -> None:
        assert Scenario().force_open().wait(GREATEST_TIMEOUT_SECONDS).admit() is None

    def test_with_an_end_the_next_call_from_then_on_is_a_probe(self) -> None:
        breaker = Scenario(Policy(timeout_seconds=60)).force_open(600)
        assert breaker.wait(599.999999).admit() is None
        assert breaker.wait(0.000001).admitted().probe == 1
        half_opened = transition_in(breaker.last)
        assert half_opened.reason == "the time for which it was forced open is over"
        assert (breaker.state.state, breaker.state.forced) == (CircuitState.HALF_OPEN, False)

    def test_a_probe_that_fails_after_it_opens_the_breaker_for_the_timeout_of_the_policy(self) -> None:
        breaker = Scenario(Policy(timeout_seconds=60)).force_open(600).wait(600).fail()
        assert (breaker.state.state, breaker.state.forced) == (CircuitState.OPEN, False)
        assert breaker.state.retry_at == breaker.now + 60 * SECOND

    def test_forced_open_again_it_has_the_new_end(self) -> None:
        breaker = Scenario().force_open(600, actor="ann").wait(10).force_open(5, actor="bob")
        assert breaker.state.retry_at == breaker.now + 5 * SECOND
        assert breaker.state.opened_by == transition_in(breaker.last).event_id

    @pytest.mark.parametrize("kind", [Kind.SUCCESS, Kind.FAILURE])
    @pytest.mark.parametrize("before", [CircuitState.CLOSED, CircuitState.HALF_OPEN])
    def test_calls_that_were_in_flight_change_nothing_when_they_end(
        self, before: CircuitState, kind: Kind
    ) -> None:
        breaker = Scenario(Policy(failure_threshold=1, success_threshold=1))
        permit = breaker.half_opened() if before is CircuitState.HALF_OPEN else breaker.admitted()
        forced = breaker.force_open(600).state
        breaker.succeed(permit) if kind is Kind.SUCCESS else breaker.fail(permit)
        assert breaker.state is forced
        assert kinds(breaker.last) == [kind]

    @pytest.mark.parametrize("timeout_seconds", [0, 1, 86_400])
    @pytest.mark.parametrize("seconds", [None, 600])
    def test_a_change_of_policy_leaves_the_end_as_it_was_said(
        self, timeout_seconds: int, seconds: int | None
    ) -> None:
        breaker = Scenario().force_open(seconds)
        forced = breaker.state
        breaker.wait(1).change_policy(Policy(timeout_seconds=timeout_seconds))
        assert breaker.state.policy.timeout_seconds == timeout_seconds
        assert (breaker.state.retry_at, breaker.state.forced) == (forced.retry_at, True)

    @pytest.mark.parametrize("seconds", [-1, 0, GREATEST_TIMEOUT_SECONDS + 0.000001])
    def test_an_end_that_has_passed_or_is_too_far_off_is_refused(self, seconds: float) -> None:
        with pytest.raises(ValueError, match="can't be forced open"):
            Scenario().force_open(seconds)

    def test_the_longest_end_is_taken(self) -> None:
        until = START + round(GREATEST_TIMEOUT_SECONDS * SECOND)
        assert ForceOpen(START, EventId(WRITER, 1), 1, until).until == until


class TestRelease:
    def test_a_release_closes_a_breaker_that_is_forced_open_with_no_failure_counted(self) -> None:
        breaker = Scenario().opened().force_open()
        breaker.wait(1).release(actor="ann", reason="the provider is back")
        released = transition_in(breaker.last)
        assert (released.kind, released.actor, released.reason) == (
            Kind.RELEASED,
            "ann",
            "the provider is back",
        )
        assert (released.from_state, released.to_state) == (CircuitState.OPEN, CircuitState.CLOSED)
        assert (released.opened_at, released.opened_by, released.retry_at) == (None, None, None)
        assert (breaker.state.calm, breaker.state.forced) == (True, False)
        assert breaker.admitted() == Permit(breaker.state.generation, released.era)

    def test_one_whose_time_is_over_can_be_released_before_the_next_call(self) -> None:
        assert Scenario().force_open(1).wait(5).release().state.calm

    @pytest.mark.parametrize("before", list(CircuitState))
    def test_a_breaker_that_is_not_forced_open_can_not_be_released(self, before: CircuitState) -> None:
        breaker = Scenario().in_state(before)
        with pytest.raises(ValueError, match="not forced open"):
            breaker.release()

    def test_a_reset_ends_it_too(self) -> None:
        breaker = Scenario().force_open().reset()
        assert (breaker.state.calm, breaker.state.forced) == (True, False)


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

    def test_a_user_can_go_back_to_the_default(self) -> None:
        breaker = Scenario().change_policy(Policy(failure_threshold=1))
        breaker.run(ChangePolicy(breaker.now, breaker.event_id, Policy(), is_own=False))
        assert (transition_in(breaker.last).policy_is_own, breaker.state.policy_is_own) == (False, False)
        assert breaker.state.policy == Policy()


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
