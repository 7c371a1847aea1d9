"""A breaker in any state, by the real commands."""

from __future__ import annotations

from typing import Final, Literal

from breaker_store.core.commands import ForceOpen
from breaker_store.core.events import CircuitState
from breaker_store.runtime.breaker import CircuitBreaker

ACTOR: Final = "a test"
"""Who forces a state, as the log has it."""

SHORTEST: Final = 1e-6
"""For a policy without a wait: nobody is forced open for no time at all, in seconds."""


def force_state(
    breaker: CircuitBreaker, state: CircuitState | Literal["closed", "open", "half_open"]
) -> None:
    """Bring a breaker into a state, by what people can do to one, whatever state it is in; the log says so.

    "open" lasts for the policy's timeout, after which the next call is a probe. "half_open" has no probe running, so the
    next call is one. "closed" counts no failure. A bot that is suspended is resumed first.

    Raises:
        ValueError: there is no such state.

    """
    wanted = CircuitState(state)
    if breaker.state.suspension is not None:
        breaker.resume(actor=ACTOR)
    match wanted:
        case CircuitState.CLOSED:
            breaker.reset(actor=ACTOR)
        case CircuitState.OPEN:
            breaker.force_open(for_seconds=max(breaker.state.policy.timeout_seconds, SHORTEST), actor=ACTOR)
        case CircuitState.HALF_OPEN:
            _half_open(breaker)


def _half_open(breaker: CircuitBreaker) -> None:
    """Open it until now, and begin a probe that comes to nothing."""

    def say_what() -> ForceOpen:
        now, event_id, era = breaker._new_count()  # noqa: SLF001 - people say how long; here it is over
        return ForceOpen(now - 1, event_id, era, now, ACTOR)

    breaker._act_in_place(say_what)  # noqa: SLF001 - as above
    decisions = breaker._surroundings.decisions  # noqa: SLF001
    decisions.make(lambda: breaker.begin().abandon())
