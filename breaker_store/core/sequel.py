"""What came of what an operator did, and what a trip came after: told from the transitions around it.

Nothing of it is stored. A change of policy is passed over, and so is a count that was carried over, since they neither end
nor begin anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from breaker_store.core.events import CircuitState, Kind
from breaker_store.core.fleet_verdict import ERROR_WIDTH
from breaker_store.core.wording import shortened, span

ACTIONS: Final = frozenset(
    {Kind.RESET, Kind.FORCED_OPEN, Kind.RELEASED, Kind.POLICY_CHANGED, Kind.SUSPENDED, Kind.RESUMED}
)
"""What is done to a breaker by hand."""

_REVIVALS: Final = {Kind.RESET: "reset", Kind.RELEASED: "release", Kind.RESUMED: "resumption"}
_DEEDS: Final = {
    Kind.RESET: "reset",
    Kind.FORCED_OPEN: "forced open",
    Kind.RELEASED: "released",
    Kind.SUSPENDED: "suspended",
    Kind.RESUMED: "resumed",
}


class Link(NamedTuple):
    """A transition of a chain, as far as what follows from it is told."""

    kind: Kind
    at: int
    from_state: CircuitState
    to_state: CircuitState
    actor: str | None = None
    retry_at: int | None = None


def remark(link: Link, before: Link | None, after: Sequence[Link], now: int) -> str | None:
    """Say what a trip came after, or what came of an action so far; None if there is nothing to say.

    before, after: the transition before it, and the next two; without those that are passed over.
    """
    if link.kind is Kind.OPENED:
        return None if before is None else _came_after(link, before)
    return _came_of(link, after, now) if link.kind in ACTIONS else None


def _came_after(trip: Link, before: Link) -> str | None:
    deed = _REVIVALS.get(before.kind)
    if deed is None:
        return None
    return f"tripped{_again(before)} {span(max(0, trip.at - before.at))} after the {deed}{_by(before)}"


def _came_of(action: Link, after: Sequence[Link], now: int) -> str | None:
    if not after:
        return _so_far(action, now)
    following = after[0]
    if following.kind is Kind.HALF_OPENED:
        if len(after) == 1:
            return "half open"
        following = after[1]
    later = f"{span(max(0, following.at - action.at))} later"
    if following.kind is Kind.OPENED:
        tripped = following.from_state is CircuitState.CLOSED
        return f"tripped{_again(action)} {later}" if tripped else f"opened again {later}"
    if following.kind is Kind.CLOSED:
        return f"recovered {later}"
    deed = _DEEDS.get(following.kind)
    return None if deed is None else f"{deed}{_once_more(action, following)} {later}{_by(following)}"


def _so_far(action: Link, now: int) -> str:
    if action.to_state is CircuitState.CLOSED:
        return "well since"
    if action.to_state is CircuitState.HALF_OPEN:
        return "half open"
    if action.kind is Kind.FORCED_OPEN and action.retry_at is not None and now >= action.retry_at:
        return "its time is over, and no call has come since"
    return "still suspended" if action.kind is Kind.SUSPENDED else "still open"


def _again(action: Link) -> str:
    """Say that it had tripped before: an action on a breaker that was well is followed by a first trip."""
    return "" if action.from_state is CircuitState.CLOSED else " again"


def _once_more(action: Link, following: Link) -> str:
    return " again" if action.kind is following.kind else ""


def _by(link: Link) -> str:
    return f" by {shortened(link.actor, ERROR_WIDTH)}" if link.actor else ""
