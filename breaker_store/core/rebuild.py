"""What a set of stored events means, in whatever order they arrived (DESIGN rules 13 and 14).

Transitions that were stored by compare-and-set form one chain per breaker; those that lost have no position and mean
nothing for the state. The last one of the chain gives state, policy and since when. The counters are those of the
outcomes admitted under its count, taken in the order (time, writer, number): an order that depends on the events alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from breaker_store.core.events import EventId, Kind, Outcome, StoredEvent, Transition
from breaker_store.core.policy import Policy
from breaker_store.core.state import BreakerState, evolve


class ChainHead(NamedTuple):
    """The last transition of a chain, as compare-and-set sees it; (0, None) before the first."""

    version: int = 0
    event_id: EventId | None = None

    def admits(self, transition: Transition) -> bool:
        """Tell whether a transition was decided on this very head, so that it may follow it."""
        return (transition.version, transition.follows) == (self.version + 1, self.event_id)


def rebuild(policy: Policy, events: Iterable[StoredEvent]) -> BreakerState:
    """Give the state that one breaker's stored events mean; `policy` is what holds if none was set for the user."""
    stored = list(events)
    outcomes = [event for event in stored if isinstance(event, Outcome)]
    chain = [event for event in stored if isinstance(event, Transition) and event.position is not None]
    chain.sort(key=lambda transition: transition.version)
    return rebuild_from(policy, chain, outcomes)


def rebuild_from(policy: Policy, chain: Iterable[Transition], outcomes: Iterable[Outcome]) -> BreakerState:
    """Do the same from the end of the chain and the outcomes since the current count began.

    The last transition is enough of the chain, or the last one of a kind that is known and what follows it; of a chain
    that was cut by time, the last one that stands alone and what follows it. Outcomes of other counts may be there, and
    ones from before the last success may be missing.
    """
    state = BreakerState(policy)
    for transition in chain:
        state = evolve(state, transition)
    state = under_default(state, policy)
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.at, outcome.event_id)):
        state = evolve(state, outcome)
    return state


def stands_alone(transition: Transition) -> bool:
    """Tell whether the state after a transition owes nothing to the ones before it, and its count begins with it."""
    return transition.kind not in (Kind.POLICY_CHANGED, Kind.UNRECOGNIZED)


def take_on(live: BreakerState, stored: BreakerState) -> BreakerState:
    """Give a stored state as a live breaker takes it on.

    Where the count goes on, the live one is kept, with its calls in flight: it may hold what is not stored yet.
    """
    if (live.generation, live.era) != (stored.generation, stored.era):
        return stored
    return replace(
        live,
        policy=stored.policy,
        policy_is_own=stored.policy_is_own,
        version=stored.version,
        last_transition=stored.last_transition,
        since=stored.since,
        retry_at=stored.retry_at,
    )


def under_default(state: BreakerState, policy: Policy) -> BreakerState:
    """Let today's default policy hold where the user has none of their own: a deployment may change it."""
    if state.policy_is_own or state.policy == policy:
        return state
    return replace(state, policy=policy)
