"""What a set of stored events means (DESIGN rules 13 and 14)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breaker_store.core.events import (
    CAUSES_LIMIT,
    CircuitState,
    EventId,
    Kind,
    Outcome,
    OutcomeKind,
    Permit,
    StoredEvent,
    Transition,
    Verdict,
)
from breaker_store.core.policy import Policy
from breaker_store.core.rebuild import ChainHead, rebuild, rebuild_from
from breaker_store.core.state import BreakerState
from tests.core.scenario import DEFAULT, START, WRITER, Scenario, head_after, transition_in

FIRST_COUNT = Permit(0, 0)


def outcome(
    kind: OutcomeKind,
    at: int,
    writer: int = WRITER,
    writer_seq: int | None = None,
    permit: Permit = FIRST_COUNT,
    *,
    verdict: Verdict = Verdict.COUNTED,
) -> Outcome:
    return Outcome(kind, EventId(writer, at if writer_seq is None else writer_seq), at, permit, verdict)


def transitions(breaker: Scenario) -> list[Transition]:
    return [event for event in breaker.stored if isinstance(event, Transition)]


def test_no_events_mean_the_first_state() -> None:
    assert rebuild(DEFAULT, []) == BreakerState(DEFAULT)


def histories() -> list[Scenario]:
    tight = Policy(half_open_max_calls=2, success_threshold=2)
    recovered = Scenario(tight)
    first = recovered.half_opened()
    recovered.succeed(first).succeed().fail().fail()
    probing = Scenario(tight)
    probing.succeed(probing.half_opened()).admitted()
    reopened = Scenario(tight)
    slow = reopened.admitted()
    reopened.fail(reopened.half_opened()).succeed(slow).wait(1).admit()
    ruled = Scenario().fail().change_policy(tight).fail().wait(1).change_policy(DEFAULT).fail()
    ruled_open = Scenario().opened().change_policy(tight)
    ruled_probing = Scenario()
    ruled_probing.succeed(ruled_probing.half_opened()).change_policy(Policy(success_threshold=3)).succeed()
    return [
        Scenario().fail().fail(),
        Scenario().fail().succeed().fail(),
        Scenario().opened(),
        recovered,
        probing,
        reopened,
        Scenario().opened().reset().fail(),
        ruled,
        ruled_open,
        ruled_probing,
    ]


@pytest.mark.parametrize("live", histories())
@pytest.mark.parametrize("backwards", [False, True])
def test_a_history_means_the_state_that_was_live(live: Scenario, backwards: bool) -> None:
    stored = live.stored[::-1] if backwards else live.stored
    assert rebuild(live.default_policy, stored) == live.state.without_calls_in_flight()


def test_the_last_of_the_chain_is_the_one_of_the_highest_version_whenever_it_arrived() -> None:
    breaker = Scenario(Policy(failure_threshold=1)).opened().wait(60).fail()
    opened, half_opened, reopened = transitions(breaker)
    assert rebuild(DEFAULT, [reopened, opened, half_opened]).opened_by == reopened.event_id


def test_a_transition_that_lost_means_nothing_and_neither_do_the_outcomes_under_it() -> None:
    lost = replace(transitions(Scenario().opened())[0], version=9, position=None)
    under_it = outcome(Kind.FAILURE, START, permit=Permit(lost.generation, lost.era))
    assert rebuild(DEFAULT, [lost, under_it]) == BreakerState(DEFAULT)


def test_outcomes_count_in_the_order_of_their_times_whenever_they_arrived() -> None:
    arrived = [outcome(Kind.FAILURE, 30), outcome(Kind.FAILURE, 10), outcome(Kind.SUCCESS, 20)]
    state = rebuild(DEFAULT, arrived)
    assert (state.failure_count, [cause.at for cause in state.failures]) == (1, [30])


@pytest.mark.parametrize(
    ("success", "failures_after_it"),
    [(EventId(1, 5), 2), (EventId(2, 4), 2), (EventId(2, 6), 1), (EventId(3, 1), 0)],
)
def test_outcomes_of_one_instant_count_in_the_order_of_writer_and_number(
    success: EventId, failures_after_it: int
) -> None:
    events = [
        outcome(Kind.FAILURE, 10, writer=2, writer_seq=5),
        outcome(Kind.FAILURE, 10, writer=2, writer_seq=10),
        outcome(Kind.SUCCESS, 10, *success),
    ]
    assert rebuild(DEFAULT, events).failure_count == failures_after_it


def test_the_outcomes_of_two_processes_are_one_run() -> None:
    """Each saw two failures; together they are four, and the next one trips."""
    events = [outcome(Kind.FAILURE, at, writer=1 + at % 2) for at in range(4)]
    assert rebuild(DEFAULT, events).failure_count == 4


def test_the_time_of_an_outcome_comes_before_its_writer() -> None:
    failed, succeeded = outcome(Kind.FAILURE, 10, writer=9), outcome(Kind.SUCCESS, 20, writer=1)
    assert rebuild(DEFAULT, [succeeded, failed]).failure_count == 0


def test_a_success_that_arrives_late_does_not_undo_a_trip() -> None:
    breaker = Scenario(Policy(failure_threshold=2)).fail().wait(2).fail()
    late = outcome(Kind.SUCCESS, START + 1, writer=99)
    assert rebuild(breaker.default_policy, [*breaker.stored, late]) == breaker.state


def test_half_open_counts_the_successes_of_its_round_that_were_counted() -> None:
    breaker = Scenario(Policy(success_threshold=9))
    probe = breaker.half_opened()
    count = probe._replace(probe=0)
    lost_slot = outcome(Kind.SUCCESS, breaker.now, 1, 1, probe._replace(probe=3), verdict=Verdict.NOT_COUNTED)
    would_be_refused = outcome(Kind.SUCCESS, breaker.now, 1, 2, count, verdict=Verdict.WOULD_BE_REFUSED)
    earlier = outcome(Kind.SUCCESS, breaker.now, 1, 3, Permit(probe.generation, probe.era - 1, 1))
    counted = outcome(Kind.SUCCESS, breaker.now, 1, 4, probe._replace(probe=2))
    state = rebuild(DEFAULT, [*breaker.stored, lost_slot, would_be_refused, earlier, counted])
    assert (state.state, state.success_count) == (CircuitState.HALF_OPEN, 1)


def test_refusals_mean_nothing() -> None:
    breaker = Scenario().opened()
    before = rebuild(DEFAULT, breaker.stored)
    breaker.admit()
    assert rebuild(DEFAULT, breaker.stored) == before


def test_outcomes_from_before_the_last_success_may_be_missing() -> None:
    breaker = Scenario().fail().fail().succeed().fail()
    assert rebuild_from(DEFAULT, [], breaker.stored[3:]) == breaker.state


def test_the_outcomes_that_an_opening_ended_may_be_missing() -> None:
    """Retention may have dropped them: the transition is complete in itself."""
    breaker = Scenario().opened()
    (opened,) = transitions(breaker)
    assert rebuild_from(DEFAULT, [opened], []) == breaker.state


def test_the_run_of_failures_is_bounded() -> None:
    events = [outcome(Kind.FAILURE, at) for at in range(CAUSES_LIMIT + 3)]
    state = rebuild(Policy(failure_threshold=1_000), events)
    assert (state.failure_count, len(state.failures)) == (CAUSES_LIMIT + 3, CAUSES_LIMIT)


@pytest.mark.parametrize("opened", [False, True])
def test_todays_default_policy_holds_for_a_user_without_one_of_their_own(opened: bool) -> None:
    """A deployment may change the default; the wait that runs keeps its end."""
    breaker = Scenario(Policy(failure_threshold=2)).fail()
    if opened:
        breaker.fail()
    today = Policy(failure_threshold=7, timeout_seconds=5)
    state = rebuild(today, breaker.stored)
    assert (state.policy, state.policy_is_own) == (today, False)
    assert state == replace(breaker.state, policy=today)


def test_a_users_own_policy_holds_whatever_the_default_is_today() -> None:
    own = Policy(failure_threshold=2)
    breaker = Scenario().change_policy(own).opened()
    state = rebuild(Policy(failure_threshold=7), breaker.stored)
    assert (state.policy, state.policy_is_own) == (own, True)


@pytest.mark.parametrize("counted_failures", [1, 2])
def test_a_policy_change_counts_a_failed_probe_once_though_its_opening_lost(counted_failures: int) -> None:
    """The failure belongs to the round, which goes on: it is counted again on top of the change."""
    breaker = Scenario()
    probe = breaker.half_opened()
    failed = [outcome(Kind.FAILURE, breaker.now, 3, seq + 1, probe) for seq in range(counted_failures)]
    stored: list[StoredEvent] = [*breaker.stored, *failed]
    taken_on = Scenario()
    taken_on.state = rebuild(DEFAULT, stored)
    assert taken_on.state.failure_count == 5 + counted_failures
    taken_on.change_policy(Policy(failure_threshold=3))
    assert rebuild(DEFAULT, [*stored, *taken_on.stored]) == taken_on.state


def test_the_first_head_admits_any_first_transition_and_no_other() -> None:
    breaker = Scenario(Policy(failure_threshold=1)).opened().wait(60).succeed()
    opened, half_opened = transitions(breaker)
    assert ChainHead().admits(opened)
    assert not ChainHead().admits(half_opened)


def test_a_head_admits_what_was_decided_on_it_alone() -> None:
    breaker = Scenario(Policy(failure_threshold=1, success_threshold=1)).opened().wait(60).succeed()
    opened, half_opened, closed = transitions(breaker)
    assert head_after(opened).admits(half_opened)
    assert not head_after(opened).admits(opened)
    assert not head_after(opened).admits(closed)
    assert not head_after(closed).admits(half_opened)


def test_a_head_does_not_admit_what_was_decided_on_a_twin_of_it() -> None:
    """Two processes open the same breaker at once, and the loser goes on."""
    winner = Scenario(Policy(failure_threshold=1), writer=1).opened()
    loser = Scenario(Policy(failure_threshold=1), writer=2).opened().wait(60)
    loser.admitted()
    assert not head_after(transition_in(winner.last[1:])).admits(transition_in(loser.last))


def test_a_head_does_not_admit_what_was_decided_on_a_policy_change_that_lost() -> None:
    """A policy change begins no count, so its era doesn't tell it from another one of the same version."""
    winner = Scenario(writer=1).change_policy(Policy(failure_threshold=1))
    loser = Scenario(writer=2).change_policy(Policy(failure_threshold=100))
    loser.reset()
    assert not head_after(transition_in(winner.last)).admits(transition_in(loser.last))
