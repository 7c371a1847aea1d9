"""The table in `breaker_store.core.state`, row by row: state before, event, state after."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breaker_store.core.events import (
    CAUSES_LIMIT,
    CircuitState,
    Event,
    EventId,
    Kind,
    Outcome,
    OutcomeKind,
    Permit,
    ProbeAbandoned,
    ProbeStarted,
    Transition,
    Verdict,
)
from breaker_store.core.policy import Policy
from breaker_store.core.state import BreakerState, Probe, evolve
from tests.core.scenario import SECOND, START, WRITER, failure

GENERATION, ERA = 4, 77
OTHERS_COUNTS = [Permit(GENERATION - 1, ERA), Permit(GENERATION, ERA + 1), Permit(GENERATION + 1, ERA)]


def state_in(state: CircuitState) -> BreakerState:
    return BreakerState(Policy(), state=state, version=6, generation=GENERATION, era=ERA, since=START)


CALM = state_in(CircuitState.CLOSED)
FAILING = replace(CALM, failure_count=2, failures=(failure(1), failure(2)), last_failure=failure(2))
OPEN = replace(
    state_in(CircuitState.OPEN), failure_count=5, last_failure=failure(5), retry_at=START + 60 * SECOND
)
HALF_OPEN = replace(
    state_in(CircuitState.HALF_OPEN),
    failure_count=5,
    last_failure=failure(5),
    probes=(Probe(1, START), Probe(2, START)),
    probes_started=2,
)
ALL_STATES = [CALM, FAILING, OPEN, HALF_OPEN]


def outcome(kind: OutcomeKind, permit: Permit, verdict: Verdict = Verdict.COUNTED) -> Outcome:
    return Outcome(kind, EventId(WRITER, 9), START, permit, verdict, error_type="TimeoutError")


def success(probe: int = 0) -> Outcome:
    return outcome(Kind.SUCCESS, Permit(GENERATION, ERA, probe))


def failed(probe: int = 0) -> Outcome:
    return outcome(Kind.FAILURE, Permit(GENERATION, ERA, probe))


def rejected() -> Outcome:
    return outcome(Kind.REJECTED, Permit(GENERATION, ERA))


ONE_FAILED = replace(CALM, failure_count=1, failures=(failure(9),), last_failure=failure(9))
THREE_FAILED = replace(
    FAILING, failure_count=3, failures=(failure(1), failure(2), failure(9)), last_failure=failure(9)
)
PROBE_ONE_LEFT = replace(HALF_OPEN, probes=(Probe(2, START),))

TABLE: list[tuple[BreakerState, Event, BreakerState]] = [
    (CALM, success(), CALM),
    (CALM, failed(), ONE_FAILED),
    (CALM, rejected(), CALM),
    (CALM, ProbeAbandoned(1), CALM),
    (FAILING, success(), replace(FAILING, failure_count=0, failures=())),
    (FAILING, failed(), THREE_FAILED),
    (FAILING, rejected(), FAILING),
    (FAILING, ProbeAbandoned(1), FAILING),
    (OPEN, success(), OPEN),
    (OPEN, failed(), OPEN),
    (OPEN, rejected(), OPEN),
    (OPEN, ProbeAbandoned(1), OPEN),
    (HALF_OPEN, success(1), replace(PROBE_ONE_LEFT, success_count=1)),
    (
        HALF_OPEN,
        failed(1),
        replace(PROBE_ONE_LEFT, failure_count=6, failures=(failure(9),), last_failure=failure(9)),
    ),
    (HALF_OPEN, rejected(), HALF_OPEN),
    (
        HALF_OPEN,
        ProbeStarted(3, START + 1),
        replace(
            HALF_OPEN,
            probes=(Probe(1, START), Probe(2, START), Probe(3, START + 1)),
            probes_started=3,
        ),
    ),
    (
        HALF_OPEN,
        ProbeStarted(3, START + 1, displaced=(1,)),
        replace(HALF_OPEN, probes=(Probe(2, START), Probe(3, START + 1)), probes_started=3),
    ),
    (
        HALF_OPEN,
        ProbeStarted(5, START + 1, displaced=(1, 2)),
        replace(HALF_OPEN, probes=(Probe(5, START + 1),), probes_started=5),
    ),
    (HALF_OPEN, ProbeAbandoned(1), PROBE_ONE_LEFT),
    (HALF_OPEN, ProbeAbandoned(7), HALF_OPEN),
]


@pytest.mark.parametrize(("before", "event", "after"), TABLE)
def test_each_row_of_the_table_holds(before: BreakerState, event: Event, after: BreakerState) -> None:
    assert evolve(before, event) == after


@pytest.mark.parametrize(
    ("before", "event"),
    [(before, event) for before, event, after in TABLE if before == after],
)
def test_an_event_that_changes_nothing_gives_the_same_object(before: BreakerState, event: Event) -> None:
    """The live breaker compares by identity, and a healthy one allocates nothing."""
    assert evolve(before, event) is before


@pytest.mark.parametrize("before", [CALM, FAILING, OPEN])
def test_a_probe_that_starts_outside_half_open_is_an_error(before: BreakerState) -> None:
    with pytest.raises(ValueError, match=f"a probe can't start in a breaker that is {before.state}"):
        evolve(before, ProbeStarted(1, START))


@pytest.mark.parametrize("before", ALL_STATES)
@pytest.mark.parametrize("kind", [Kind.SUCCESS, Kind.FAILURE, Kind.REJECTED])
@pytest.mark.parametrize("permit", OTHERS_COUNTS)
def test_an_outcome_of_another_generation_or_era_changes_nothing(
    before: BreakerState, kind: OutcomeKind, permit: Permit
) -> None:
    assert evolve(before, outcome(kind, permit._replace(probe=1))) is before


@pytest.mark.parametrize("before", ALL_STATES)
@pytest.mark.parametrize("kind", [Kind.SUCCESS, Kind.FAILURE])
@pytest.mark.parametrize("verdict", [Verdict.NOT_COUNTED, Verdict.WOULD_BE_REFUSED])
def test_an_outcome_that_was_judged_not_to_count_changes_nothing(
    before: BreakerState, kind: OutcomeKind, verdict: Verdict
) -> None:
    assert evolve(before, outcome(kind, Permit(GENERATION, ERA, 1), verdict)) is before


def transition(to_state: CircuitState, version: int = 7, **changes: object) -> Transition:
    made = Transition(
        kind=Kind.OPENED,
        event_id=EventId(3, 30),
        at=START + SECOND,
        version=version,
        generation=GENERATION + 1,
        era=ERA + 1,
        follows=None,
        from_state=CircuitState.CLOSED,
        to_state=to_state,
        policy=Policy(failure_threshold=2),
        policy_is_own=True,
        failure_count=8,
        last_failure=failure(8),
        causes=(failure(8),),
        opened_at=START + 1,
        opened_by=EventId(3, 29),
        retry_at=START + 2,
    )
    return replace(made, **changes)


@pytest.mark.parametrize("before", [*ALL_STATES, BreakerState(Policy())])
@pytest.mark.parametrize("to_state", list(CircuitState))
def test_a_newer_transition_is_taken_on_as_it_says_in_every_state(
    before: BreakerState, to_state: CircuitState
) -> None:
    after = evolve(before, transition(to_state))
    assert after == evolve(BreakerState(Policy()), transition(to_state))
    assert (after.state, after.version, after.generation, after.era) == (
        to_state,
        7,
        GENERATION + 1,
        ERA + 1,
    )
    assert (after.policy, after.policy_is_own) == (Policy(failure_threshold=2), True)
    assert (after.failure_count, after.last_failure, after.failures) == (8, failure(8), ())
    assert (after.since, after.opened_at, after.opened_by, after.retry_at) == (
        START + SECOND,
        START + 1,
        EventId(3, 29),
        START + 2,
    )
    assert (after.success_count, after.probes, after.probes_started) == (0, (), 0)


@pytest.mark.parametrize("before", ALL_STATES)
@pytest.mark.parametrize("version", [1, 6])
@pytest.mark.parametrize("kind", [Kind.OPENED, Kind.POLICY_CHANGED])
def test_a_transition_of_a_version_already_seen_changes_nothing(
    before: BreakerState, version: int, kind: Kind
) -> None:
    assert evolve(before, transition(CircuitState.OPEN, version, kind=kind)) is before


def test_a_transition_after_a_gap_is_taken_on() -> None:
    assert evolve(CALM, transition(CircuitState.OPEN, version=20)).version == 20


@pytest.mark.parametrize("before", ALL_STATES)
def test_a_policy_change_in_the_same_count_changes_the_rules_alone(before: BreakerState) -> None:
    change = transition(
        before.state, kind=Kind.POLICY_CHANGED, generation=GENERATION, era=ERA, failure_count=0, at=START + 5
    )
    after = evolve(before, replace(change, retry_at=START + 9))
    assert (after.policy, after.policy_is_own) == (Policy(failure_threshold=2), True)
    assert (after.version, after.since) == (7, START + 5)
    unchanged = ("state", "generation", "era", "failure_count", "success_count", "failures", "last_failure")
    unchanged += ("opened_at", "opened_by", "probes", "probes_started", "calm")
    assert after.retry_at == START + 9
    assert [getattr(after, name) for name in unchanged] == [getattr(before, name) for name in unchanged]


def test_a_policy_change_of_a_count_not_seen_yet_is_taken_on_whole() -> None:
    change = transition(CircuitState.OPEN, kind=Kind.POLICY_CHANGED, version=9)
    after = evolve(FAILING, change)
    assert (after.state, after.generation, after.era) == (CircuitState.OPEN, GENERATION + 1, ERA + 1)
    assert (after.failure_count, after.failures) == (8, change.causes)


def test_the_run_of_failures_is_bounded_and_keeps_the_newest() -> None:
    state = BreakerState(Policy(failure_threshold=1_000))
    for number in range(1, CAUSES_LIMIT + 11):
        state = evolve(state, Outcome(Kind.FAILURE, EventId(WRITER, number), START, Permit(0, 0)))
    assert state.failure_count == CAUSES_LIMIT + 10
    assert [cause.event_id.writer_seq for cause in state.failures] == list(range(11, CAUSES_LIMIT + 11))


def test_only_a_closed_breaker_without_failures_is_calm() -> None:
    assert [state.calm for state in ALL_STATES] == [True, False, False, False]
    assert not replace(OPEN, failure_count=0).calm
    assert not replace(FAILING, failures=()).calm
    assert evolve(FAILING, success()).calm


@pytest.mark.parametrize(
    ("state", "now", "remaining_us"),
    [
        (OPEN, START, 60 * SECOND),
        (OPEN, START + 60 * SECOND - 1, 1),
        (OPEN, START + 60 * SECOND, 0),
        (OPEN, START + 90 * SECOND, 0),
        (replace(OPEN, retry_at=None), START, 0),
        (CALM, START, 0),
        (replace(HALF_OPEN, retry_at=START + SECOND), START, 0),
    ],
)
def test_the_remaining_wait_is_that_of_an_open_breaker_and_never_below_zero(
    state: BreakerState, now: int, remaining_us: int
) -> None:
    assert state.remaining_us(now) == remaining_us


def test_what_is_left_without_calls_in_flight_is_all_but_the_probes() -> None:
    assert HALF_OPEN.without_calls_in_flight() == replace(HALF_OPEN, probes=(), probes_started=0)
    assert HALF_OPEN.holds(2)
    assert not HALF_OPEN.without_calls_in_flight().holds(2)
