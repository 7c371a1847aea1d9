"""What is known of a transition of a breaker and around it: all that an explanation rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from breaker_store.core.events import CircuitState, EventId, Kind, Transition
from breaker_store.core.fleet_verdict import Around
from breaker_store.core.recurrence import Step
from breaker_store.core.state import BreakerState


class Success(NamedTuple):
    """A call that succeeded."""

    event_id: EventId
    at: int
    operation: str | None
    duration_us: int | None


class WellSince(NamedTuple):
    """Since when a breaker was well: the kind of transition that ended its last trouble, or None for its first event."""

    at: int
    ended_by: Kind | None


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What happened from an opening on, up to its ending or until now.

    Attributes:
        refused_calls: calls that the breaker refused.
        would_be_refused: calls that happened elsewhere and that it would have refused, known from an import.
        reopened: how often it opened again after a failed probe.
        reopened_is_lower_bound: whether it did so more often than was counted.
        is_lower_bound: whether there is more of anything than was counted: too much, or dropped by retention.
        ending: with which it ended; None if it goes on.

    """

    refused_calls: int = 0
    would_be_refused: int = 0
    probes_succeeded: int = 0
    probes_failed: int = 0
    reopened: int = 0
    reopened_is_lower_bound: bool = False
    is_lower_bound: bool = False
    ending: Transition | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a transition and around it; times are Unix microseconds on the log's clock.

    Attributes:
        event: what is explained; None if the breaker has never been blocked.
        is_latest: whether it was asked for as the latest one, so that trips are counted up to now.
        origin: the opening to which the event belongs, by failures or by hand: the event itself, or one before it.
            None if the breaker was well at the event.
        state, remaining_us: the breaker now; see `StoredBreaker`.
        success_is_cut: whether there is more from before the failures than was searched for the last success.
        outcomes_are_kept: whether the outcomes of the opening's day still are there.
        around: None if there is no opening by failures.
        steps: the endings up to the event, or to now, and the opening after each, oldest first; `steps_are_cut` if not
            from the first on.
        remark: see `remark` in the module `sequel`.

    """

    user_id: int
    now: int
    event: Transition | None
    origin: Transition | None
    state: BreakerState
    remaining_us: int | None = None
    is_latest: bool = False
    well_since: WellSince | None = None
    last_success: Success | None = None
    success_is_cut: bool = False
    outcomes_are_kept: bool = True
    aftermath: Aftermath = Aftermath()
    around: Around | None = None
    steps: Sequence[Step] = ()
    steps_are_cut: bool = False
    remark: str | None = None

    @property
    def trip(self) -> Transition | None:
        """The opening by failures to which the event belongs."""
        return self.origin if self.origin is not None and self.origin.kind is Kind.OPENED else None

    @property
    def trouble_began_at(self) -> int | None:
        """When the first of the failures that are kept with the opening happened."""
        if self.origin is None:
            return None
        return self.origin.causes[0].at if self.origin.causes else self.origin.at

    @property
    def failures_are_cut(self) -> bool:
        """Whether there were failures before those that are kept with the opening."""
        return self.origin is not None and self.origin.failure_count > len(self.origin.causes)

    @property
    def well_for_us(self) -> int | None:
        """How long the breaker had been well before its failures; at most so long if `failures_are_cut`.

        None if nothing is known from before, or if it was not well: opened by hand on top of a trip.
        """
        if self.origin is None or self.well_since is None or self.trouble_began_at is None:
            return None
        if self.origin.from_state is not CircuitState.CLOSED:
            return None
        return max(0, self.trouble_began_at - self.well_since.at) or None
