"""For any history of commands: the state that is live is the one that the stored events mean."""

from __future__ import annotations

import functools
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from breaker_store.core.commands import (
    Abandon,
    Admit,
    CarryOver,
    ChangePolicy,
    Command,
    ForceOpen,
    Release,
    Report,
    Reset,
    Resume,
    Suspend,
)
from breaker_store.core.decide import decide, permit_of
from breaker_store.core.events import (
    CAUSES_LIMIT,
    PERMANENT_REASON,
    CircuitState,
    Event,
    EventId,
    Kind,
    Outcome,
    Permit,
    ProbeStarted,
    StoredEvent,
    Suspension,
    Transition,
    Verdict,
)
from breaker_store.core.policy import MICROSECONDS, Policy
from breaker_store.core.rebuild import rebuild, rebuild_from
from breaker_store.core.state import BreakerState, evolve
from tests.core.scenario import START
from tests.depth import DEPTH

policies = st.builds(
    Policy,
    failure_threshold=st.sampled_from([1, 2, 3, CAUSES_LIMIT + 2]),
    timeout_seconds=st.sampled_from([0.0, 0.000001, 1.0, 60.0]),
    success_threshold=st.integers(1, 3),
    half_open_max_calls=st.integers(1, 3),
)
endings = st.sampled_from([Kind.SUCCESS, Kind.FAILURE, Kind.FAILURE])
steps_us = st.sampled_from([0, 1, MICROSECONDS - 1, MICROSECONDS, 59_999_999, 60 * MICROSECONDS])


class AnyHistory(RuleBasedStateMachine):
    """One writer after another drives one breaker; calls in flight may end at any later time, or never."""

    @initialize(policy=policies)
    def begin(self, policy: Policy) -> None:
        self.default_policy = policy
        self.state = BreakerState(policy)
        self.now = START
        self.writer_id = 500
        self.writer_seq = 1
        self.eras = 0
        self.in_flight: list[Permit] = []
        self.stored: list[StoredEvent] = []
        self.positions = 0

    def identity(self) -> tuple[int, EventId, int]:
        self.eras += 1
        return self.now, EventId(self.writer_id, self.writer_seq), self.eras

    def run_command(self, command: Command) -> tuple[Event, ...]:
        events = decide(self.state, command)
        for event in events:
            self.state = evolve(self.state, event)
            if isinstance(event, Outcome | Transition):
                self.store(event)
        return events

    def store(self, event: StoredEvent) -> None:
        assert event.event_id == (self.writer_id, self.writer_seq)
        self.writer_seq += 1
        self.stored.append(self.positioned(event))

    def positioned(self, event: StoredEvent) -> StoredEvent:
        if isinstance(event, Outcome):
            return event
        self.positions += 1
        fields = {name: getattr(event, name) for name in Transition.__dataclass_fields__}
        return Transition(**(fields | {"position": self.positions}))

    @rule()
    def admit(self) -> None:
        events = self.run_command(Admit(*self.identity()))
        permit = permit_of(self.state, events)
        if permit is not None:
            self.in_flight.append(permit)
        if events and isinstance(events[-1], ProbeStarted):
            assert len(self.state.probes) <= self.state.policy.half_open_max_calls

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), kind=endings)
    def end_a_call(self, data: st.DataObject, kind: Kind) -> None:
        permit = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.run_command(Report(*self.identity(), kind, permit))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def be_answered_that_calls_come_too_fast(self, data: st.DataObject) -> None:
        """Nothing is known of the bot: the call was as good as cancelled, but that it is recorded."""
        permit = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        cancelled = functools.reduce(evolve, decide(self.state, Abandon(permit)), self.state)
        self.run_command(Report(*self.identity(), Kind.SUCCESS, permit, counts=False))
        assert self.state == cancelled

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def fail_for_good(self, data: st.DataObject) -> None:
        permit = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        before = self.state
        report = Report(*self.identity(), Kind.FAILURE, permit, opens_at_once=PERMANENT_REASON)
        outcome, *transitions = self.run_command(report)
        assert isinstance(outcome, Outcome)
        assert len(transitions) == (outcome.verdict is Verdict.COUNTED)
        assert self.state is before or self.state.state is CircuitState.OPEN

    @precondition(lambda self: self.state.state is CircuitState.CLOSED)
    @rule(kinds=st.lists(endings, min_size=1, max_size=CAUSES_LIMIT + 5))
    def make_calls_at_once(self, kinds: list[Kind]) -> None:
        permit = Permit(self.state.generation, self.state.era)
        for kind in kinds:
            self.run_command(Report(*self.identity(), kind, permit))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def cancel_a_call(self, data: st.DataObject) -> None:
        permit = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.run_command(Abandon(permit))
        assert not (permit.probe and self.holds_slot(permit))

    def holds_slot(self, permit: Permit) -> bool:
        current = (permit.generation, permit.era) == (self.state.generation, self.state.era)
        return current and self.state.holds(permit.probe)

    @rule(kind=endings)
    def hear_of_a_call_made_elsewhere(self, kind: Kind) -> None:
        before = self.state
        self.run_command(Report(*self.identity(), kind, None))
        assert self.state is before

    @rule(step_us=steps_us)
    def wait(self, step_us: int) -> None:
        self.now += step_us

    @precondition(lambda self: self.state.retry_at is not None)
    @rule(early_us=st.integers(0, 1))
    def wait_until_a_call_may_try(self, early_us: int) -> None:
        self.now = max(self.now, (self.state.retry_at or 0) - early_us)

    @precondition(lambda self: self.state.suspension is None)
    @rule()
    def reset(self) -> None:
        self.run_command(Reset(*self.identity()))
        assert self.state.calm

    @precondition(lambda self: self.state.suspension is None)
    @rule(wait_us=st.none() | st.sampled_from([1, MICROSECONDS, 3_600 * MICROSECONDS]))
    def force_open(self, wait_us: int | None) -> None:
        until = None if wait_us is None else self.now + wait_us
        self.run_command(ForceOpen(*self.identity(), until))
        assert (self.state.state, self.state.forced) == (CircuitState.OPEN, True)
        assert self.state.retry_at == until

    @precondition(lambda self: self.state.forced and self.state.suspension is None)
    @rule()
    def release(self) -> None:
        self.run_command(Release(*self.identity()))
        assert self.state.calm

    @rule(reason=st.sampled_from(["unpaid", "abuse"]))
    def suspend(self, reason: str) -> None:
        earlier = self.state.suspension
        self.run_command(Suspend(*self.identity(), "ann", reason))
        since = self.now if earlier is None else earlier.at
        assert self.state.suspension == Suspension("ann", reason, since)

    @precondition(lambda self: self.state.suspension is not None)
    @rule()
    def resume(self) -> None:
        self.run_command(Resume(*self.identity()))
        assert self.state.calm

    @rule()
    def carry_over(self) -> None:
        """Drop the outcomes afterwards, as retention does."""
        before = self.state
        self.run_command(CarryOver(*self.identity()))
        self.stored = [event for event in self.stored if isinstance(event, Transition)]
        changed = {
            "version",
            "last_transition",
            "generation",
            "era",
            "since",
            "start",
            "probes",
            "probes_started",
        }
        for name in BreakerState.__dataclass_fields__.keys() - changed:
            assert getattr(self.state, name) == getattr(before, name), name

    @rule(policy=policies)
    def change_policy(self, policy: Policy) -> None:
        now, event_id, _ = self.identity()
        before = self.state
        self.run_command(ChangePolicy(now, event_id, policy))
        assert (self.state.generation, self.state.era) == (before.generation, before.era)
        assert not before.forced or self.state.retry_at == before.retry_at
        assert self.state.suspension == before.suspension

    @rule()
    def go_back_to_the_default_policy(self) -> None:
        now, event_id, _ = self.identity()
        self.run_command(ChangePolicy(now, event_id, self.default_policy, is_own=False))
        assert (self.state.policy, self.state.policy_is_own) == (self.default_policy, False)

    @rule(writer_id=st.integers(1, 999))
    def restart(self, writer_id: int) -> None:
        """Go on with what is stored; the calls in flight are gone with the process."""
        self.state = rebuild(self.default_policy, self.stored)
        self.in_flight.clear()
        self.now += 1
        self.writer_id, self.writer_seq = 1_000 * writer_id + self.eras, 1

    @invariant()
    def live_state_is_what_the_stored_events_mean_in_any_order_of_arrival(self) -> None:
        arrived = self.stored.copy()
        random.Random(len(arrived)).shuffle(arrived)
        assert rebuild(self.default_policy, arrived) == self.state.without_calls_in_flight()

    @invariant()
    def the_last_transition_and_the_outcomes_of_its_count_are_enough(self) -> None:
        last = max(
            (event for event in self.stored if isinstance(event, Transition)),
            key=lambda event: event.version,
            default=None,
        )
        count = (last.generation, last.era) if last else (0, 0)
        outcomes = [
            event for event in self.stored if isinstance(event, Outcome) and event.permit[:2] == count
        ]
        assert (
            rebuild_from(self.default_policy, [] if last is None else [last], outcomes)
            == self.state.without_calls_in_flight()
        )

    @invariant()
    def a_transition_already_seen_changes_nothing(self) -> None:
        for event in self.stored:
            if isinstance(event, Transition):
                assert evolve(self.state, event) is self.state

    @invariant()
    def a_healthy_success_and_a_refusal_change_nothing(self) -> None:
        if self.state.calm:
            permit = Permit(self.state.generation, self.state.era)
            events = decide(self.state, Report(*self.identity(), Kind.SUCCESS, permit))
            assert len(events) == 1
            assert evolve(self.state, events[0]) is self.state
        elif self.state.remaining_us(self.now):
            events = decide(self.state, Admit(*self.identity()))
            assert len(events) == 1
            assert evolve(self.state, events[0]) is self.state

    @invariant()
    def only_an_open_breaker_is_forced_open(self) -> None:
        assert self.state.state is CircuitState.OPEN or not self.state.forced

    @invariant()
    def a_suspended_bot_is_forced_open_without_an_end(self) -> None:
        if self.state.suspension is not None:
            assert self.state.forced
            assert self.state.retry_at is None

    @invariant()
    def a_wait_is_never_longer_than_a_reader_of_the_log_clamps_it_to(self) -> None:
        assert self.state.remaining_us(self.now) <= self.state.longest_wait_us

    @invariant()
    def slots_are_held_by_calls_in_flight_alone(self) -> None:
        held = {permit.probe for permit in self.in_flight if self.holds_slot(permit)}
        assert {probe.number for probe in self.state.probes} == held
        assert len(self.state.probes) == len(held)
        assert self.state.state is CircuitState.HALF_OPEN or not held

    @invariant()
    def versions_count_transitions_without_a_gap(self) -> None:
        chain = [event for event in self.stored if isinstance(event, Transition)]
        assert [event.version for event in chain] == list(range(1, len(chain) + 1))
        begun = sum(event.kind is not Kind.POLICY_CHANGED for event in chain)
        assert (self.state.version, self.state.generation) == (len(chain), begun)

    @invariant()
    def causes_are_the_newest_failures_of_the_run_and_bounded(self) -> None:
        state = self.state
        if state.state is CircuitState.CLOSED:
            assert len(state.failures) == min(state.failure_count, CAUSES_LIMIT)
        assert not state.failures or state.failures[-1] == state.last_failure


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=40 * DEPTH, stateful_step_count=50, deadline=None)
