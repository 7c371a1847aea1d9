"""For tests of bots: a clock that stands still, a store in memory, and a way to have a breaker in a state.

Nothing is imitated: breakers decide, the recorder cuts and stores, and the log keeps its promises, as they do with
Postgres. So a test sees exactly what would be stored::

    from breaker_store import CircuitBreakerOpenError
    from breaker_store.testing import force_state, memory_store

    async def send(breaker, text):
        try:
            return await breaker.call(deliver, text)
        except CircuitBreakerOpenError:
            return "later"

    async def deliver(text):
        return f"sent {text}"

    async def test_the_bot_rests_while_its_breaker_is_open():
        async with memory_store() as store:
            breaker = store.registry.get_breaker(101)
            force_state(breaker, "open")
            assert await send(breaker, "hi") == "later"
            store.clock.advance(60)
            assert await send(breaker, "hi") == "sent hi"
            await store.flush()
            kinds = [event.kind.label for event in store.events(101)]
            assert kinds == ["forced_open", "rejected", "half_opened", "success"]

A bot without an event loop is tested in the same way, by way of anyio::

    from anyio.from_thread import start_blocking_portal

    def test_the_bot_calls_in_threads():
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(memory_store()) as store:
            assert store.registry.get_breaker(101).call_sync(str.upper, "hi") == "HI"
            store.flush_sync()
            assert [event.operation for event in store.events(101)] == ["upper"]
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

from breaker_store.core.decide import ForceOpen
from breaker_store.core.events import CircuitState, Outcome, StoredEvent
from breaker_store.core.failures import EVERY_ERROR, FailureTable
from breaker_store.core.policy import Policy
from breaker_store.errors import ConfigurationError
from breaker_store.memory import MemoryEventLog
from breaker_store.runtime.breaker import CircuitBreaker
from breaker_store.runtime.clock import ManualClock as FakeClock
from breaker_store.runtime.follower import Follower
from breaker_store.runtime.from_threads import flush_from_thread
from breaker_store.runtime.recorder import Recorder
from breaker_store.runtime.registry import CircuitBreakerRegistry
from breaker_store.settings import Durability

__all__ = ["FakeClock", "MemoryStore", "Outcome", "force_state", "memory_store"]

ACTOR: Final = "a test"
"""Who forces a state, as the log has it."""

SHORTEST: Final = 1e-6
"""For a policy without a wait: nobody is forced open for no time at all, in seconds."""


class MemoryStore:
    """A store without Postgres; made by `memory_store`.

    Attributes:
        registry: the breakers.
        clock: the time of the breakers and of the log; it stands still until it is told to go on.
        log: what is stored, and the proof of it.
        recorder: how recording goes, as in a `BreakerStore`.

    """

    def __init__(self, registry: CircuitBreakerRegistry, clock: FakeClock, durability: Durability) -> None:
        self.registry = registry
        self.clock = clock
        self.log = MemoryEventLog(clock)
        self.recorder = Recorder(
            registry.surroundings.journal,
            clock,
            self.log,
            Follower(registry, self.log, 0).settle,
            durability=durability,
        )

    async def flush(self) -> None:
        """Wait until everything that happened before this call is stored."""
        await self.recorder.flush()

    def flush_sync(self) -> None:
        """Do the same from a thread that is not the event loop's; see `BreakerStore.flush_sync`."""
        flush_from_thread(self.registry.surroundings.decisions, self.flush)

    def events(self, user_id: int) -> list[StoredEvent]:
        """Give what is stored of a user, outcomes and transitions, in the order in which they happened.

        What happened since the last `flush` may not be there yet.
        """
        return sorted(self.log.events.get(user_id, ()), key=lambda event: event.event_id)


@asynccontextmanager
async def memory_store(
    *,
    policy: Policy | None = None,
    failures: FailureTable = EVERY_ERROR,
    clock: FakeClock | None = None,
    durability: Durability | str = Durability.BEHIND,
) -> AsyncIterator[MemoryStore]:
    """Open a store in memory for the length of an `async with`; all of it is forgotten after that.

    Args:
        policy: the rules of its breakers; None for the default ones.
        failures: what errors mean to them, such as `breaker_store.failures.KNOWN_CLIENTS`.
        clock: one that the test has already; None makes one.
        durability: as of a `BreakerStore`, but for "journaled": there is no spool.

    Raises:
        ConfigurationError: it is "journaled", or there is none of this name.

    """
    chosen = Durability.of(durability)
    if chosen is Durability.JOURNALED:
        raise ConfigurationError("a store in memory has no spool, and durability 'journaled' needs one")
    clock = clock or FakeClock()
    registry = CircuitBreakerRegistry(policy=policy, failures=failures, clock=clock)
    store = MemoryStore(registry, clock, chosen)
    with registry.surroundings.claimed_by_a_store():
        store.recorder.start()
        try:
            yield store
        finally:
            await store.recorder.close(drain_seconds=10.0)


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
