"""What the breakers of one registry share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from breaker_store.core.events import Permit, Transition
from breaker_store.core.failures import EVERY_ERROR, FailureTable
from breaker_store.core.state import BreakerState
from breaker_store.errors import ConfigurationError
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.decisions import Decisions, running_loop
from breaker_store.runtime.journal import Journal
from breaker_store.runtime.listeners import Listeners
from breaker_store.runtime.tracing import Tracing

if TYPE_CHECKING:
    from breaker_store.runtime.breaker import CircuitBreaker


class Block(NamedTuple):
    """One `async with` that is under way; `calm` is the breaker's state, if a success does not change it."""

    permit: Permit
    started_ns: int
    calm: BreakerState | None


class Unconfirmed(NamedTuple):
    """A breaker's transitions that the log has not confirmed yet, each decided on the one before.

    Attributes:
        version: of the first of them.
        first_seq, last_seq: all transitions of this breaker between these numbers are among them.

    """

    version: int
    first_seq: int
    last_seq: int


class Surroundings:
    """Clock, journal, listeners and tracing, and what is under way.

    Attributes:
        decisions: where they are made, also when a thread asks for them.
        has_store: whether a store is open on the registry, or being opened.
        tracing: who follows the calls; None for nobody.
        failures: what errors mean, for calls that don't bring a table of their own.
        waits: of those who wait to call through a breaker, by breaker; they end when it opens.
        blocks: the `async with` blocks under way, by breaker and task, the innermost last.
        unconfirmed: by user; they may be many while the log is away, so no more is kept of them than their range.

    """

    __slots__ = (
        "blocks",
        "clock",
        "decisions",
        "failures",
        "has_store",
        "journal",
        "listeners",
        "monotonic_ns",
        "tracing",
        "unconfirmed",
        "waits",
    )

    def __init__(self, clock: Clock, failures: FailureTable = EVERY_ERROR) -> None:
        self.clock = clock
        self.failures = failures
        self.monotonic_ns = clock.monotonic_ns
        self.decisions = Decisions()
        self.journal = Journal()
        self.listeners = Listeners()
        self.tracing: Tracing | None = None
        self.has_store = False
        self.waits: dict[CircuitBreaker, set[asyncio.Timeout]] = {}
        self.blocks: dict[tuple[CircuitBreaker, asyncio.Task[Any] | None], list[Block]] = {}
        self.unconfirmed: dict[int, Unconfirmed] = {}

    @contextmanager
    def claimed_by_a_store(self) -> Iterator[None]:
        """Be one store's, and decide on its event loop: a second one would take the first one's events for its own.

        Raises:
            ConfigurationError: there is a store already.

        """
        if self.has_store:
            raise ConfigurationError("this registry has a store already")
        self.has_store = True
        before = self.decisions.move_to(asyncio.get_running_loop())
        try:
            yield
        finally:
            self.decisions.move_to(before)
            self.has_store = False

    @contextmanager
    def waiting(self, breaker: CircuitBreaker, scope: asyncio.Timeout) -> Iterator[None]:
        """Have `scope` expire when the breaker opens."""
        waits = self.waits.setdefault(breaker, set())
        waits.add(scope)
        try:
            yield
        finally:
            waits.discard(scope)
            if not waits and self.waits.get(breaker) is waits:
                del self.waits[breaker]

    def end_waits(self, breaker: CircuitBreaker) -> None:
        """Have all who wait for a breaker look again whether they may go on; those of another thread do so later."""
        loop = running_loop() if breaker in self.waits else None
        if loop is not None:
            for scope in self.waits.pop(breaker):
                scope.reschedule(loop.time())

    def enter_block(self, breaker: CircuitBreaker, block: Block) -> None:
        self.blocks.setdefault((breaker, asyncio.current_task()), []).append(block)

    def leave_block(self, breaker: CircuitBreaker) -> Block:
        """Find the innermost `async with` of this task, so that tasks may share the object and nest it."""
        blocks = self.blocks
        key = (breaker, asyncio.current_task())
        if key not in blocks:
            # An asynchronous generator that was left early is ended by another task: take the newest block whose
            # task has ended, or else the newest.
            mine = [other for other in blocks if other[0] is breaker]
            if not mine:
                raise RuntimeError("a breaker was left that was not entered")
            key = next((other for other in reversed(mine) if other[1] is None or other[1].done()), mine[-1])
        block = blocks[key].pop()
        if not blocks[key]:
            del blocks[key]
        return block

    def trace(self, tracing: Tracing | None) -> None:
        """Have somebody follow the calls from now on; None for nobody."""
        self.tracing = tracing
        self.journal.trace(None if tracing is None else tracing.trace_id)

    def expect_confirmation(self, user_id: int | None, transition: Transition) -> None:
        seq = transition.event_id.writer_seq
        if user_id is not None and self.journal.kept and seq > 0:
            before = self.unconfirmed.get(user_id)
            self.unconfirmed[user_id] = (
                Unconfirmed(transition.version, seq, seq) if before is None else before._replace(last_seq=seq)
            )
