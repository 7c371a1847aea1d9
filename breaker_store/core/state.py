"""What is: the state of a breaker, and the one way in which an event changes it.

=============  ==========================  =============================  ===========================
event          closed                      open                           half-open
=============  ==========================  =============================  ===========================
success        failures in a row: none     nothing                        one more counted success
failure        one more in a row           nothing                        one more failure
rejected       nothing                     nothing                        nothing
transition     what it says, in every state, if its version is newer
forced open    open, whatever it was; the wait is the one that was said, not the policy's, and may have no end
released       closed, as after a reset; it follows on a breaker that is forced open alone
suspended      open without an end, whatever it was; until it is resumed, nothing but rules and erasure changes it
resumed        closed, as after a reset; it follows on a breaker that is suspended alone
carried over   as it was, in a count of its own that begins with what had been counted
policy         the rules alone; the count goes on, and the wait of one that is forced open stays as it is
probe started  an error                    an error                       its slot is taken
probe left     nothing                     nothing                        its slot is free again
=============  ==========================  =============================  ===========================

An outcome of another generation or era, or one that was judged not to count, changes nothing in any state.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, assert_never

from breaker_store.core.events import (
    CAUSES_LIMIT,
    CircuitState,
    Event,
    EventId,
    Failure,
    Kind,
    Outcome,
    ProbeAbandoned,
    ProbeStarted,
    Suspension,
    Transition,
    Verdict,
)
from breaker_store.core.policy import Policy


class Start(NamedTuple):
    """What a count begins with; the outcomes of the count are counted on top.

    failures: the newest of them, oldest first, as far as a later trip is to name them.
    """

    failure_count: int = 0
    failures: tuple[Failure, ...] = ()
    success_count: int = 0


FROM_NOTHING: Final = Start()


class Probe(NamedTuple):
    """A call of a half-open breaker that is still running."""

    number: int
    started_at: int


@dataclass(frozen=True, slots=True)
class BreakerState:
    """All that a breaker knows. The first state of a breaker is `BreakerState(policy)`.

    Attributes:
        policy_is_own: the policy was set for this user, not taken from the registry's default.
        version, generation, era: 0 before the first transition; see `Transition`.
        failure_count: closed: failures after the last success; open and half-open: also those that opened it.
        success_count: half-open: successful probes of this round; 0 otherwise.
        failures: the current run of failures, oldest first, at most `CAUSES_LIMIT`.
        since: when the last transition was; None before the first.
        retry_at, forced, suspension: see `Transition`.
        start: what the current count began with.
        probes: those that hold a slot now.
        calm: closed and without a failure: a success changes nothing.

    """

    policy: Policy
    policy_is_own: bool = False
    state: CircuitState = CircuitState.CLOSED
    version: int = 0
    last_transition: EventId | None = None
    generation: int = 0
    era: int = 0
    failure_count: int = 0
    success_count: int = 0
    failures: tuple[Failure, ...] = ()
    last_failure: Failure | None = None
    since: int | None = None
    opened_at: int | None = None
    opened_by: EventId | None = None
    retry_at: int | None = None
    forced: bool = False
    suspension: Suspension | None = None
    start: Start = FROM_NOTHING
    probes: tuple[Probe, ...] = ()
    probes_started: int = 0
    calm: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        calm = self.state is CircuitState.CLOSED and self.failure_count == 0
        object.__setattr__(self, "calm", calm)

    def remaining_us(self, now: int) -> int:
        """Tell how long an open breaker still refuses, from 0; 0 also if it isn't open or has no end set."""
        if self.state is not CircuitState.OPEN or self.retry_at is None:
            return 0
        return max(0, self.retry_at - now)

    @property
    def longest_wait_us(self) -> int:
        """How long an open breaker waits in all: whoever reads a wait clamps it to this, whatever the clocks say."""
        if self.forced and self.retry_at is not None and self.opened_at is not None:
            return self.retry_at - self.opened_at
        return self.policy.timeout_us

    def shifted(self, by_us: int) -> BreakerState:
        """Give the same on another clock."""

        def moved(time: int | None) -> int | None:
            return None if time is None else time + by_us

        return replace(
            self,
            failures=tuple(failure.shifted(by_us) for failure in self.failures),
            last_failure=self.last_failure and self.last_failure.shifted(by_us),
            since=moved(self.since),
            opened_at=moved(self.opened_at),
            retry_at=moved(self.retry_at),
            suspension=self.suspension and self.suspension.shifted(by_us),
            start=self.start._replace(
                failures=tuple(failure.shifted(by_us) for failure in self.start.failures)
            ),
            probes=tuple(Probe(probe.number, probe.started_at + by_us) for probe in self.probes),
        )

    def holds(self, probe: int) -> bool:
        return any(running.number == probe for running in self.probes)

    def without_calls_in_flight(self) -> BreakerState:
        """Give what is left of the state when the process ends: what a rebuild can know."""
        return replace(self, probes=(), probes_started=0)


def evolve(state: BreakerState, event: Event) -> BreakerState:
    """Give the state after an event; the same object if it changes nothing.

    Raises:
        ValueError: a probe started in a breaker that is not half-open.

    """
    match event:
        case Outcome():
            return _after_outcome(state, event)
        case Transition():
            return _after_transition(state, event)
        case ProbeStarted():
            return _after_probe_started(state, event)
        case ProbeAbandoned():
            return _without_probe(state, event.probe)
        case _:
            assert_never(event)


def _after_outcome(state: BreakerState, outcome: Outcome) -> BreakerState:
    permit = outcome.permit
    if outcome.verdict is not Verdict.COUNTED or (permit.generation, permit.era) != (
        state.generation,
        state.era,
    ):
        return state
    if state.state is CircuitState.OPEN or outcome.kind is Kind.REJECTED:
        return state
    freed = _without_probe(state, permit.probe)
    if outcome.kind is Kind.FAILURE:
        return _after_failure(freed, outcome.as_failure())
    if state.state is CircuitState.HALF_OPEN:
        return replace(freed, success_count=freed.success_count + 1)
    return freed if freed.calm else replace(freed, failure_count=0, failures=())


def _after_failure(state: BreakerState, failure: Failure) -> BreakerState:
    return replace(
        state,
        failure_count=state.failure_count + 1,
        failures=(*state.failures, failure)[-CAUSES_LIMIT:],
        last_failure=failure,
    )


def _after_transition(state: BreakerState, transition: Transition) -> BreakerState:
    if transition.version <= state.version:
        return state
    if transition.kind is Kind.UNRECOGNIZED:
        return _after_unrecognized(state, transition)
    same_count = (transition.generation, transition.era) == (state.generation, state.era)
    if transition.kind is Kind.POLICY_CHANGED and same_count:
        return replace(
            state,
            policy=transition.policy,
            policy_is_own=transition.policy_is_own,
            version=transition.version,
            since=transition.at,
            last_transition=transition.event_id,
            retry_at=transition.retry_at,
        )
    start = _start_of(transition)
    return BreakerState(
        policy=transition.policy,
        policy_is_own=transition.policy_is_own,
        state=transition.to_state,
        version=transition.version,
        generation=transition.generation,
        era=transition.era,
        failure_count=start.failure_count,
        success_count=start.success_count,
        failures=start.failures,
        last_failure=transition.last_failure,
        since=transition.at,
        last_transition=transition.event_id,
        opened_at=transition.opened_at,
        opened_by=transition.opened_by,
        retry_at=transition.retry_at,
        forced=transition.forced,
        suspension=transition.suspension,
        start=start,
    )


def _start_of(transition: Transition) -> Start:
    # The causes of any other transition made it, and were counted in the count before.
    goes_on = transition.kind in {Kind.CARRIED_OVER, Kind.POLICY_CHANGED}
    causes = transition.causes if goes_on else ()
    return Start(transition.failure_count, causes, transition.success_count)


def _after_unrecognized(state: BreakerState, transition: Transition) -> BreakerState:
    return replace(
        state,
        version=transition.version,
        last_transition=transition.event_id,
        generation=transition.generation,
        era=transition.era,
    )


def _after_probe_started(state: BreakerState, event: ProbeStarted) -> BreakerState:
    if state.state is not CircuitState.HALF_OPEN:
        raise ValueError(f"a probe can't start in a breaker that is {state.state}")
    kept = tuple(probe for probe in state.probes if probe.number not in event.displaced)
    return replace(state, probes=(*kept, Probe(event.probe, event.at)), probes_started=event.probe)


def _without_probe(state: BreakerState, number: int) -> BreakerState:
    if not state.holds(number):
        return state
    return replace(state, probes=tuple(probe for probe in state.probes if probe.number != number))
