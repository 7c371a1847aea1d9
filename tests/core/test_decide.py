"""Given these events, when this command, then exactly these events, or nothing, or this error."""

from __future__ import annotations

from uuid import UUID

import pytest

from breaker_store.core.commands import Admit, Report
from breaker_store.core.decide import decide
from breaker_store.core.events import (
    CAUSES_LIMIT,
    CircuitState,
    EventId,
    Kind,
    Outcome,
    Permit,
    ProbeStarted,
    Transition,
    Verdict,
)
from breaker_store.core.policy import GREATEST_TIMEOUT_SECONDS, Policy
from breaker_store.core.state import BreakerState, Probe, evolve
from tests.core.scenario import (
    SECOND,
    START,
    WRITER,
    Scenario,
    failure,
    kinds,
    outcome_in,
    transition_in,
)

FIRST = EventId(WRITER, 1)


class TestClosed:
    def test_a_call_is_admitted_without_an_event(self) -> None:
        breaker = Scenario()
        assert breaker.admit() == Permit(0, 0)
        assert breaker.last == ()

    def test_a_success_is_recorded_and_changes_nothing(self) -> None:
        breaker = Scenario()
        before = breaker.state
        breaker.succeed()
        assert breaker.last == (Outcome(Kind.SUCCESS, FIRST, START, Permit(0, 0)),)
        assert breaker.state is before

    def test_a_failure_under_the_threshold_is_recorded_and_counted(self) -> None:
        breaker = Scenario().fail()
        assert breaker.last == (Outcome(Kind.FAILURE, FIRST, START, Permit(0, 0), error_type="TimeoutError"),)
        assert (breaker.state.state, breaker.state.failure_count) == (CircuitState.CLOSED, 1)

    def test_a_success_ends_the_run_of_failures(self) -> None:
        """Only consecutive failures open the breaker."""
        breaker = Scenario()
        for _ in range(3):
            breaker.fail().fail().fail().fail().succeed()
        assert (breaker.state.state, breaker.state.failure_count) == (CircuitState.CLOSED, 0)

    def test_an_outcome_carries_all_that_was_reported_of_the_call(self) -> None:
        told = {
            "duration_us": 1_500,
            "operation": "send_message",
            "error_type": "BadRequest",
            "error_message": "chat not found",
            "attempt": 2,
            "trace_id": UUID(int=5),
        }
        report = Report(START, FIRST, 9, Kind.SUCCESS, Permit(0, 0), **told)
        assert decide(BreakerState(Policy()), report) == (
            Outcome(Kind.SUCCESS, FIRST, START, Permit(0, 0), Verdict.COUNTED, **told),
        )


class TestOpening:
    def test_the_fifth_failure_in_a_row_opens_the_breaker(self) -> None:
        breaker = Scenario()
        for _ in range(4):
            breaker.fail().wait(1)
        permit = breaker.admitted()
        breaker.fail(permit)
        fifth = START + 4 * SECOND
        causes = tuple(failure(number, START + (number - 1) * SECOND) for number in range(1, 6))
        assert breaker.last == (
            Outcome(Kind.FAILURE, EventId(WRITER, 5), fifth, Permit(0, 0), error_type="TimeoutError"),
            Transition(
                kind=Kind.OPENED,
                event_id=EventId(WRITER, 6),
                at=fifth,
                version=1,
                generation=1,
                era=breaker.state.era,
                follows=None,
                from_state=CircuitState.CLOSED,
                to_state=CircuitState.OPEN,
                policy=Policy(),
                reason="5 failures in a row",
                failure_count=5,
                last_failure=causes[-1],
                causes=causes,
                opened_at=fifth,
                opened_by=EventId(WRITER, 6),
                retry_at=fifth + 60 * SECOND,
            ),
        )

    def test_the_failure_count_still_stands_while_open(self) -> None:
        assert Scenario().opened().state.failure_count == 5

    def test_a_threshold_of_one_opens_at_the_first_failure(self) -> None:
        assert kinds(Scenario(Policy(failure_threshold=1)).fail().last) == [Kind.FAILURE, Kind.OPENED]

    def test_the_causes_are_the_run_alone(self) -> None:
        """Failures before the last success did not make the trip."""
        breaker = Scenario(Policy(failure_threshold=2)).fail(error="Old").succeed().opened()
        assert [cause.event_id.writer_seq for cause in transition_in(breaker.last).causes] == [3, 4]

    def test_the_causes_are_bounded_and_the_newest(self) -> None:
        breaker = Scenario(Policy(failure_threshold=CAUSES_LIMIT + 7)).opened()
        opened = transition_in(breaker.last)
        assert opened.failure_count == CAUSES_LIMIT + 7
        assert [cause.event_id.writer_seq for cause in opened.causes] == list(range(8, CAUSES_LIMIT + 8))

    def test_only_a_failure_trips_a_breaker_that_stands_over_its_threshold(self) -> None:
        """A policy change or a second process can leave it there."""
        breaker = Scenario().fail().fail().fail().change_policy(Policy(failure_threshold=2))
        permit = breaker.admitted()
        assert breaker.state.state is CircuitState.CLOSED
        assert kinds(breaker.succeed(permit).last) == [Kind.SUCCESS]
        breaker.fail().fail()
        assert kinds(breaker.last) == [Kind.FAILURE, Kind.OPENED]

    def test_a_failure_beyond_the_threshold_trips_too(self) -> None:
        breaker = Scenario().fail().fail().fail().change_policy(Policy(failure_threshold=2)).fail()
        assert transition_in(breaker.last).reason == "4 failures in a row"

    def test_the_longest_wait_is_a_time_that_the_database_can_hold(self) -> None:
        breaker = Scenario(Policy(timeout_seconds=GREATEST_TIMEOUT_SECONDS)).opened()
        assert breaker.state.remaining_us(breaker.now) == GREATEST_TIMEOUT_SECONDS * SECOND < 2**63


class TestRejection:
    def test_an_open_breaker_refuses_and_records_the_refusal(self) -> None:
        breaker = Scenario().opened()
        before, event_id = breaker.state, breaker.event_id
        assert breaker.admit() is None
        permit = Permit(before.generation, before.era)
        assert breaker.last == (Outcome(Kind.REJECTED, event_id, START, permit, count=1),)
        assert breaker.state is before

    @pytest.mark.parametrize(("waited", "admitted"), [(0, False), (59.999999, False), (60, True), (61, True)])
    def test_the_wait_ends_to_the_microsecond(self, waited: float, admitted: bool) -> None:
        breaker = Scenario().opened().wait(waited)
        assert (breaker.admit() is not None) is admitted

    def test_refusals_do_not_lengthen_the_wait(self) -> None:
        breaker = Scenario().opened()
        for _ in range(59):
            assert breaker.wait(1).admit() is None
        assert breaker.wait(1).admit() is not None

    def test_without_a_wait_the_next_call_is_a_probe(self) -> None:
        breaker = Scenario(Policy(timeout_seconds=0)).opened()
        assert breaker.admitted().probe == 1

    @pytest.mark.parametrize("waited", [0, 60, GREATEST_TIMEOUT_SECONDS])
    def test_one_that_only_a_person_can_release_refuses_for_ever(self, waited: float) -> None:
        breaker = Scenario()
        breaker.state = evolve(
            breaker.state,
            Transition(
                kind=Kind.FORCED_OPEN,
                event_id=FIRST,
                at=START,
                version=1,
                generation=1,
                era=50,
                follows=None,
                from_state=CircuitState.CLOSED,
                to_state=CircuitState.OPEN,
                policy=Policy(),
                opened_at=START,
                opened_by=FIRST,
                retry_at=None,
            ),
        )
        assert breaker.wait(waited).admit() is None
        assert kinds(breaker.last) == [Kind.REJECTED]


class TestRecoveryToHalfOpen:
    def test_the_first_call_after_the_wait_half_opens_the_breaker_and_is_its_probe(self) -> None:
        breaker = Scenario().opened()
        opened, event_id = breaker.state, breaker.event_id
        permit = breaker.wait(60).admit()
        half_opened = Transition(
            kind=Kind.HALF_OPENED,
            event_id=event_id,
            at=START + 60 * SECOND,
            version=2,
            generation=2,
            era=breaker.state.era,
            follows=opened.last_transition,
            from_state=CircuitState.OPEN,
            to_state=CircuitState.HALF_OPEN,
            policy=Policy(),
            reason="the wait of 60 s is over",
            failure_count=5,
            last_failure=opened.last_failure,
            opened_at=START,
            opened_by=opened.opened_by,
            retry_at=None,
        )
        assert breaker.last == (half_opened, ProbeStarted(1, START + 60 * SECOND))
        assert permit == Permit(2, half_opened.era, probe=1)
        assert breaker.state.probes == (Probe(1, START + 60 * SECOND),)

    def test_an_open_breaker_past_its_wait_stays_open_until_it_is_called(self) -> None:
        breaker = Scenario().opened().wait(3_600)
        assert breaker.state.state is CircuitState.OPEN
        assert breaker.state.remaining_us(breaker.now) == 0


class TestRecovery:
    def test_enough_successful_probes_close_the_breaker(self) -> None:
        breaker = Scenario()
        breaker.succeed(breaker.half_opened())
        assert kinds(breaker.last) == [Kind.SUCCESS]
        assert (breaker.state.state, breaker.state.success_count) == (CircuitState.HALF_OPEN, 1)
        before, event_id = breaker.state, breaker.event_id
        breaker.wait(1).succeed()
        now = START + 61 * SECOND
        assert breaker.last == (
            Outcome(Kind.SUCCESS, event_id, now, Permit(2, before.era, 2)),
            Transition(
                kind=Kind.CLOSED,
                event_id=event_id._replace(writer_seq=event_id.writer_seq + 1),
                at=now,
                version=3,
                generation=3,
                era=breaker.state.era,
                follows=before.last_transition,
                from_state=CircuitState.HALF_OPEN,
                to_state=CircuitState.CLOSED,
                policy=Policy(),
                reason="2 probes in a row succeeded",
                last_failure=before.last_failure,
            ),
        )
        assert breaker.state.calm
        assert breaker.admitted() == Permit(3, breaker.state.era)

    def test_a_breaker_that_closed_needs_a_whole_run_of_failures_again(self) -> None:
        breaker = Scenario()
        breaker.succeed(breaker.half_opened()).succeed().fail().fail().fail().fail()
        assert breaker.state.state is CircuitState.CLOSED
        assert kinds(breaker.fail().last) == [Kind.FAILURE, Kind.OPENED]
        assert len(transition_in(breaker.last).causes) == 5

    def test_a_failed_probe_reopens_the_breaker_and_the_wait_starts_anew(self) -> None:
        breaker = Scenario()
        permit = breaker.half_opened()
        probe_failed = breaker.event_id
        breaker.wait(2).fail(permit, error="ConnectionError")
        opened = transition_in(breaker.last)
        assert kinds(breaker.last) == [Kind.FAILURE, Kind.OPENED]
        assert (opened.version, opened.generation, opened.from_state) == (3, 3, CircuitState.HALF_OPEN)
        assert (opened.reason, [cause.event_id for cause in opened.causes]) == (
            "a probe failed",
            [probe_failed],
        )
        assert (opened.opened_at, opened.opened_by) == (START + 62 * SECOND, opened.event_id)
        assert breaker.state.remaining_us(breaker.now) == 60 * SECOND
        assert breaker.wait(59.999999).admit() is None
        assert breaker.wait(0.000001).admitted().probe == 1

    def test_a_failed_probe_wipes_out_the_successes_of_its_round(self) -> None:
        breaker = Scenario()
        breaker.succeed(breaker.half_opened()).fail().wait(60).succeed()
        assert (breaker.state.state, breaker.state.success_count) == (CircuitState.HALF_OPEN, 1)

    def test_a_success_threshold_of_one_closes_at_the_first_probe(self) -> None:
        breaker = Scenario(Policy(success_threshold=1))
        assert kinds(breaker.succeed(breaker.half_opened()).last) == [Kind.SUCCESS, Kind.CLOSED]


class TestSense:
    @pytest.mark.parametrize("kind", [Kind.SUCCESS, Kind.FAILURE])
    def test_a_permit_that_an_open_breaker_cannot_have_given_is_an_error(self, kind: Kind) -> None:
        state = Scenario().opened().state
        permit = Permit(state.generation, state.era)
        with pytest.raises(ValueError, match="can't have been given: the breaker is open"):
            decide(state, Report(START, FIRST, 1, kind, permit))

    def test_the_same_command_in_the_same_state_gives_the_same_events(self) -> None:
        breaker = Scenario().opened().wait(60)
        command = Admit(breaker.now, breaker.event_id, 123)
        assert decide(breaker.state, command) == decide(breaker.state, command)

    @pytest.mark.parametrize("state", list(CircuitState))
    @pytest.mark.parametrize("kind", [Kind.SUCCESS, Kind.FAILURE])
    def test_what_would_have_been_refused_is_told_apart_and_never_counts(
        self, state: CircuitState, kind: Kind
    ) -> None:
        """An import reports a call without a permit when `Admit` was refused."""
        before = Scenario().in_state(state).state
        events = decide(before, Report(START, FIRST, 1, kind, None, error_message="503"))
        outcome = outcome_in(events)
        assert len(events) == 1
        assert (outcome.kind, outcome.verdict, outcome.error_message) == (
            kind,
            Verdict.WOULD_BE_REFUSED,
            "503",
        )
        assert outcome.permit == Permit(before.generation, before.era)
        assert evolve(before, outcome) is before
