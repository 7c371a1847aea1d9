"""What may be asked of a breaker, or told to it; `decide` says what follows.

A command brings the time, and the identity for what may follow: the id of the first event that will be stored (later
ones count on from it) and the era for a new count, should one begin. So `decide` needs no clock and no dice, and the
same command in the same state always gives the same events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias
from uuid import UUID

from breaker_store.core.events import EventId, Kind, Permit
from breaker_store.core.policy import GREATEST_TIMEOUT_SECONDS, MICROSECONDS, Policy


@dataclass(frozen=True, slots=True)
class Admit:
    """A call asks to be let through."""

    at: int
    event_id: EventId
    era: int


@dataclass(frozen=True, slots=True)
class Report:
    """A call has ended. Without a permit it is one that the breaker would have refused, seen elsewhere.

    counts: whether it says anything of the bot; an answer that calls come too fast doesn't.
    opens_at_once: why this failure opens the breaker, however few came before it; None leaves that to the policy.
    """

    at: int
    event_id: EventId
    era: int
    kind: Literal[Kind.SUCCESS, Kind.FAILURE]
    permit: Permit | None
    duration_us: int | None = None
    operation: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    attempt: int | None = None
    trace_id: UUID | None = None
    counts: bool = True
    opens_at_once: str | None = None


@dataclass(frozen=True, slots=True)
class Abandon:
    """A call was cancelled, or ended by something that tells nothing of the service."""

    permit: Permit


@dataclass(frozen=True, slots=True)
class Reset:
    """Somebody closes the breaker and forgets its failures."""

    at: int
    event_id: EventId
    era: int
    actor: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ForceOpen:
    """Somebody opens the breaker, whatever its state, or sets another end to its being forced open.

    Without `until` only a person ends it. Else the next call from then on may try, as in any open breaker.

    Raises:
        ValueError: `until` is not later than `at`, or more than ten years later.

    """

    at: int
    event_id: EventId
    era: int
    until: int | None = None
    actor: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.until is None:
            return
        if self.until <= self.at:
            raise ValueError("a breaker can't be forced open until a time that has passed")
        if self.until - self.at > GREATEST_TIMEOUT_SECONDS * MICROSECONDS:
            raise ValueError("a breaker can't be forced open for more than ten years: leave the end out")


@dataclass(frozen=True, slots=True)
class Release:
    """Somebody closes a breaker that is forced open."""

    at: int
    event_id: EventId
    era: int
    actor: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Suspend:
    """Somebody suspends the bot: its calls are refused until somebody resumes it. Once more says another reason."""

    at: int
    event_id: EventId
    era: int
    actor: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Somebody closes the breaker of a bot that is suspended."""

    at: int
    event_id: EventId
    era: int
    actor: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ChangePolicy:
    """Somebody sets the rules for this user; what is being counted goes on being counted.

    With `is_own` unset the user goes back to the default, which `policy` then is as far as it is known.
    """

    at: int
    event_id: EventId
    policy: Policy
    actor: str | None = None
    reason: str | None = None
    is_own: bool = True


@dataclass(frozen=True, slots=True)
class Erase:
    """The user was erased: the breaker is nobody's from now on, and starts afresh."""

    at: int
    event_id: EventId
    era: int
    erasure_digest: str
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class CarryOver:
    """The outcomes that made the current count are about to be dropped, for this reason: what they came to stays."""

    at: int
    event_id: EventId
    era: int
    reason: str | None = None


Action: TypeAlias = Reset | ForceOpen | Release | Suspend | Resume | ChangePolicy | Erase | CarryOver
"""What somebody does to a breaker by hand, or maintenance does; it always gives one transition."""

Command: TypeAlias = Admit | Report | Abandon | Action
