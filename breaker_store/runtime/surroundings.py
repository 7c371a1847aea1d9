"""What the breakers of one registry share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from breaker_store.core.events import Permit, Transition
from breaker_store.core.state import BreakerState
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.journal import Journal
from breaker_store.runtime.listeners import Listeners

if TYPE_CHECKING:
    from breaker_store.runtime.breaker import CircuitBreaker


class Block(NamedTuple):
    """One `async with` that is under way; `calm` is the breaker's state, if a success does not change it."""

    permit: Permit
    started_ns: int
    calm: BreakerState | None


class Surroundings:
    """Clock, journal and listeners, and what is under way.

    Attributes:
        has_store: whether a store is open on the registry, or being opened.
        blocks: the `async with` blocks under way, by breaker and task, the innermost last.
        unconfirmed: transitions by user that the log has not confirmed yet, oldest first; each was decided on the one
            before.

    """

    __slots__ = ("blocks", "clock", "has_store", "journal", "listeners", "monotonic_ns", "unconfirmed")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.monotonic_ns = clock.monotonic_ns
        self.journal = Journal()
        self.listeners = Listeners()
        self.has_store = False
        self.blocks: dict[tuple[CircuitBreaker, asyncio.Task[Any] | None], list[Block]] = {}
        self.unconfirmed: dict[int, list[Transition]] = {}

    def expect_confirmation(self, user_id: int | None, transition: Transition) -> None:
        if user_id is not None and self.journal.kept and transition.event_id.writer_seq > 0:
            self.unconfirmed.setdefault(user_id, []).append(transition)
