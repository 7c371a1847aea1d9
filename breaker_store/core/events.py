"""What can happen to a breaker: outcomes of calls, and transitions of the breaker itself.

An event is a fact. An outcome says what became of one call; it counts for the state only if its `verdict` is COUNTED
and its generation and era are those of the state it meets. A transition is complete in itself: the state after it can
be told from it alone, without its predecessors and without the outcomes that caused it, so that it stays readable when
retention has dropped them.

Times are integers: microseconds on one clock that never runs backwards, whichever the caller uses throughout. A live
breaker's clock is its process's monotonic one, shifted to read like Unix time; in the log it is Unix time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import Final, Literal, NamedTuple, Self, TypeAlias
from uuid import UUID

from breaker_store.core.policy import Policy

BIGINTS: Final = range(-(2**63), 2**63)
"""Users and whatever else is numbered, as Postgres stores it."""

CAUSES_LIMIT = 50
"""How many failures a transition carries at most: the newest ones."""


PERMANENT_REASON: Final = "a permanent error, which no other try would mend"
"""Why a breaker opened at once. It is stored, and such an opening is known by it: it is never changed."""


class CircuitState(StrEnum):
    """The states of a circuit breaker, by their usual names."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Kind(IntEnum):
    """What happened. The numbers are stored: none is ever changed or used again.

    UNRECOGNIZED is never stored. It stands for a transition of a kind that a newer version wrote: its place in the
    chain is taken on, its meaning is passed over.
    """

    UNRECOGNIZED = 0
    SUCCESS = 1
    FAILURE = 2
    REJECTED = 3
    OPENED = 10
    HALF_OPENED = 11
    CLOSED = 12
    RESET = 13
    FORCED_OPEN = 14
    RELEASED = 15
    POLICY_CHANGED = 16
    SUSPENDED = 17
    RESUMED = 18
    ERASED = 19
    CARRIED_OVER = 20

    @property
    def label(self) -> str:
        return self.name.lower()

    @property
    def is_outcome(self) -> bool:
        return self in (Kind.SUCCESS, Kind.FAILURE, Kind.REJECTED)


FIRST_TRANSITION_KIND = 10

ENDINGS: Final = frozenset({Kind.CLOSED, Kind.RESET, Kind.RELEASED, Kind.RESUMED})
"""The kinds of transitions with which a trouble ends, if there was one."""

TROUBLES: Final = frozenset({Kind.OPENED, Kind.FORCED_OPEN, Kind.SUSPENDED})
"""The kinds with which one begins, or goes on: those after which a breaker is open."""

BY_HAND: Final = frozenset({Kind.FORCED_OPEN, Kind.SUSPENDED})
"""Those of them that no failure made."""

IMMATERIAL: Final = frozenset({Kind.POLICY_CHANGED, Kind.CARRIED_OVER})
"""The kinds that neither end nor begin anything: the breaker goes on as it was."""


class Verdict(IntEnum):
    """Whether an outcome counts for the state. The numbers are stored.

    NOT_COUNTED came late: the breaker had moved on, or the probe had lost its slot; or it says nothing of the bot, as
    an answer that calls come too fast. WOULD_BE_REFUSED happened elsewhere while this breaker was open, and is known
    from an import. Both count for health.
    """

    COUNTED = 0
    NOT_COUNTED = 1
    WOULD_BE_REFUSED = 2


EVENT_ID_PATTERN: Final = "(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})"

_GREATEST_NUMBER: Final = 2**63 - 1


class EventId(NamedTuple):
    """An event's identity, known when it happens: which run of which process, and its number there, from 1.

    A number below 1 stands for an event that was given up because the queue was full.
    """

    writer_id: int
    writer_seq: int

    def __str__(self) -> str:
        return f"{self.writer_id}-{self.writer_seq}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read the id of a stored event from its text.

        Raises:
            ValueError: it is none.

        """
        match = re.fullmatch(EVENT_ID_PATTERN, text)
        if match is None or max(map(int, match.groups())) > _GREATEST_NUMBER:
            raise ValueError("an event's id is written as writer-seq, two whole numbers")
        return cls(*map(int, match.groups()))


class Permit(NamedTuple):
    """Under which count a call was admitted. `probe` is its number in the half-open round, 0 for an ordinary call."""

    generation: int
    era: int
    probe: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure as a cause: enough of it to explain a transition when the outcome itself is gone."""

    event_id: EventId
    at: int
    error_type: str | None = None
    error_message: str | None = None
    operation: str | None = None
    duration_us: int | None = None
    trace_id: UUID | None = None

    def shifted(self, by_us: int) -> Failure:
        """Give the same on another clock."""
        return replace(self, at=self.at + by_us)

    def __str__(self) -> str:
        name = self.error_type or "failure"
        return f"{name}: {self.error_message}" if self.error_message else name


OutcomeKind: TypeAlias = Literal[Kind.SUCCESS, Kind.FAILURE, Kind.REJECTED]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call, or of `count` refused ones. `duration_us` of refusals spans the first to the last."""

    kind: OutcomeKind
    event_id: EventId
    at: int
    permit: Permit
    verdict: Verdict = Verdict.COUNTED
    duration_us: int | None = None
    operation: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    attempt: int | None = None
    trace_id: UUID | None = None
    count: int | None = None

    @property
    def is_success(self) -> bool:
        """Tell whether the call went well: an answer that calls come too fast, which is not counted, is no such."""
        is_told_off = self.verdict is Verdict.NOT_COUNTED and self.error_type is not None
        return self.kind is Kind.SUCCESS and not is_told_off

    def as_failure(self) -> Failure:
        return Failure(
            self.event_id,
            self.at,
            self.error_type,
            self.error_message,
            self.operation,
            self.duration_us,
            self.trace_id,
        )


@dataclass(frozen=True, slots=True)
class Suspension:
    """By whom and why a bot is suspended, as was said last, and since when it has been."""

    actor: str | None
    reason: str | None
    at: int

    def shifted(self, by_us: int) -> Suspension:
        """Give the same on another clock."""
        return replace(self, at=self.at + by_us)


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of what the breaker does, with everything needed to take it on.

    Attributes:
        version: counts this breaker's transitions, from 1.
        follows: the transition that it was decided on, None for the first. Compare-and-set looks at version and
            predecessor: an era would not do, since a change of policy draws none.
        generation, era: the count that begins with it; `policy_changed` begins none and repeats its predecessor's.
        retry_at: when an open breaker lets one call try; None if it is not open, or only a person can release it.
        opened_at, opened_by: the opening that is still in force, or None.
        forced: whether that opening was somebody's decision, so that the wait is not the policy's.
        suspension: the one in force, or None.
        success_count: with how many successful probes the count begins: other than 0 only if they were carried over.
        erasure_digest: of an erasure: SHA-256 of the batches that it sealed again, in hexadecimal.
        causes: the failures that made it, oldest first, at most `CAUSES_LIMIT`. Of `carried_over`, and of a change of
            policy after it, those with which the count begins.
        position: its number in the whole system's order; None until it is stored, and for ever if it lost.

    """

    kind: Kind
    event_id: EventId
    at: int
    version: int
    generation: int
    era: int
    follows: EventId | None
    from_state: CircuitState
    to_state: CircuitState
    policy: Policy
    policy_is_own: bool = False
    reason: str | None = None
    actor: str | None = None
    failure_count: int = 0
    last_failure: Failure | None = None
    causes: tuple[Failure, ...] = ()
    opened_at: int | None = None
    opened_by: EventId | None = None
    retry_at: int | None = None
    forced: bool = False
    suspension: Suspension | None = None
    success_count: int = 0
    erasure_digest: str | None = None
    position: int | None = None

    @property
    def is_trip(self) -> bool:
        """Tell whether a breaker that was well opened; when a probe fails, the trip before goes on."""
        return self.kind is Kind.OPENED and self.from_state is CircuitState.CLOSED

    @property
    def opened_at_once(self) -> bool:
        """Tell whether the last of its causes opened the breaker alone, however few came before it."""
        return self.kind is Kind.OPENED and self.reason == PERMANENT_REASON

    def shifted(self, by_us: int) -> Transition:
        """Give the same on another clock."""
        return replace(
            self,
            at=self.at + by_us,
            last_failure=self.last_failure and self.last_failure.shifted(by_us),
            causes=tuple(cause.shifted(by_us) for cause in self.causes),
            opened_at=None if self.opened_at is None else self.opened_at + by_us,
            retry_at=None if self.retry_at is None else self.retry_at + by_us,
            suspension=self.suspension and self.suspension.shifted(by_us),
        )


@dataclass(frozen=True, slots=True)
class ProbeStarted:
    """A call of a half-open breaker took a slot; `displaced` are the probes that lost theirs to it.

    Like `ProbeAbandoned` it is never stored: calls in flight end with their process.
    """

    probe: int
    at: int
    displaced: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeAbandoned:
    """A probe was cancelled: its slot is free again, and nothing is known of the service."""

    probe: int


StoredEvent: TypeAlias = Outcome | Transition
Event: TypeAlias = Outcome | Transition | ProbeStarted | ProbeAbandoned
