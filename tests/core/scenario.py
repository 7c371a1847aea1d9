"""One breaker driven by commands, as a process would drive it: given these, when this, then exactly these events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from typing import Any, Literal

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
    PERMANENT_REASON,
    CircuitState,
    Event,
    EventId,
    Failure,
    Kind,
    Outcome,
    Permit,
    StoredEvent,
    Transition,
)
from breaker_store.core.policy import Policy
from breaker_store.core.rebuild import ChainHead
from breaker_store.core.state import BreakerState, evolve

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
WRITER = 7
DEFAULT = Policy()


class Scenario:
    """A live breaker with its clock and its log. Each method runs one command and keeps what followed in `last`.

    Each transition is stored at once, as one that won.
    """

    def __init__(self, policy: Policy = DEFAULT, writer: int = WRITER) -> None:
        self.default_policy = policy
        self.state = BreakerState(policy)
        self._writer = writer
        self.now = START
        self.last: tuple[Event, ...] = ()
        self.stored: list[StoredEvent] = []
        self._writer_seq = 1
        self._eras = count(1_000 * writer)

    @property
    def event_id(self) -> EventId:
        """The id that the next stored event will have."""
        return EventId(self._writer, self._writer_seq)

    def run(self, command: Command) -> tuple[Event, ...]:
        self.last = decide(self.state, command)
        for event in self.last:
            self.state = evolve(self.state, event)
            if isinstance(event, Outcome | Transition):
                self._store(event)
        return self.last

    def _store(self, event: StoredEvent) -> None:
        self._writer_seq += 1
        if isinstance(event, Transition):
            event = replace(event, position=event.version)
        self.stored.append(event)

    def wait(self, seconds: float) -> Scenario:
        self.now += round(seconds * SECOND)
        return self

    def admit(self) -> Permit | None:
        events = self.run(Admit(self.now, self.event_id, next(self._eras)))
        return permit_of(self.state, events)

    def admitted(self) -> Permit:
        permit = self.admit()
        assert permit is not None, f"the call was refused: {self.state}"
        return permit

    def succeed(self, permit: Permit | None = None) -> Scenario:
        return self._report(Kind.SUCCESS, permit)

    def fail(self, permit: Permit | None = None, error: str | None = "TimeoutError") -> Scenario:
        return self._report(Kind.FAILURE, permit, error)

    def fail_for_good(self, permit: Permit | None = None, error: str | None = "Unauthorized") -> Scenario:
        """Fail with an error that opens the breaker at once."""
        return self._report(Kind.FAILURE, permit, error, opens_at_once=PERMANENT_REASON)

    def come_too_fast(self, permit: Permit | None = None) -> Scenario:
        """Be answered that calls come too fast, which says nothing of the bot."""
        return self._report(Kind.SUCCESS, permit, "http.TooManyRequests", counts=False)

    def _report(
        self,
        kind: Literal[Kind.SUCCESS, Kind.FAILURE],
        permit: Permit | None,
        error: str | None = None,
        **fields: Any,
    ) -> Scenario:
        """Report a call's end; without a permit it is admitted here first."""
        permit = permit or self.admitted()
        self.run(Report(self.now, self.event_id, next(self._eras), kind, permit, error_type=error, **fields))
        return self

    def cancel(self, permit: Permit) -> Scenario:
        self.run(Abandon(permit))
        return self

    def reset(self, actor: str | None = None, reason: str | None = None) -> Scenario:
        self.run(Reset(self.now, self.event_id, next(self._eras), actor, reason))
        return self

    def force_open(
        self, seconds: float | None = None, actor: str | None = None, reason: str | None = None
    ) -> Scenario:
        until = None if seconds is None else self.now + round(seconds * SECOND)
        self.run(ForceOpen(self.now, self.event_id, next(self._eras), until, actor, reason))
        return self

    def release(self, actor: str | None = None, reason: str | None = None) -> Scenario:
        self.run(Release(self.now, self.event_id, next(self._eras), actor, reason))
        return self

    def suspend(self, actor: str | None = None, reason: str | None = None) -> Scenario:
        self.run(Suspend(self.now, self.event_id, next(self._eras), actor, reason))
        return self

    def resume(self, actor: str | None = None, reason: str | None = None) -> Scenario:
        self.run(Resume(self.now, self.event_id, next(self._eras), actor, reason))
        return self

    def carry_over(self, reason: str | None = None) -> Scenario:
        self.run(CarryOver(self.now, self.event_id, next(self._eras), reason))
        return self

    def change_policy(self, policy: Policy, actor: str | None = None, reason: str | None = None) -> Scenario:
        self.run(ChangePolicy(self.now, self.event_id, policy, actor, reason))
        return self

    def opened(self) -> Scenario:
        """Fail as often as the policy bears."""
        for _ in range(self.state.policy.failure_threshold):
            self.fail()
        assert self.state.state is CircuitState.OPEN
        return self

    def half_opened(self) -> Permit:
        """Open, wait, and let the first probe in."""
        self.opened().wait(self.state.policy.timeout_seconds)
        probe = self.admitted()
        assert self.state.state is CircuitState.HALF_OPEN
        return probe

    def in_state(self, wanted: CircuitState) -> Scenario:
        """Go to a state by the ordinary way, with a count of its own behind it."""
        if wanted is CircuitState.OPEN:
            self.opened()
        elif wanted is CircuitState.HALF_OPEN:
            self.half_opened()
        else:
            self.fail()
        return self


def kinds(events: Iterable[Event]) -> list[Kind]:
    """Name the stored ones among events."""
    return [event.kind for event in events if isinstance(event, Outcome | Transition)]


def transition_in(events: Iterable[Event]) -> Transition:
    """Give the only transition among events."""
    (transition,) = (event for event in events if isinstance(event, Transition))
    return transition


def outcome_in(events: Iterable[Event]) -> Outcome:
    """Give the only outcome among events."""
    (outcome,) = (event for event in events if isinstance(event, Outcome))
    return outcome


def head_after(transition: Transition) -> ChainHead:
    """Give the head of a chain that ends with this transition."""
    return ChainHead(transition.version, transition.event_id)


def failure(number: int, at: int = START, error: str | None = "TimeoutError") -> Failure:
    return Failure(EventId(WRITER, number), at, error)
