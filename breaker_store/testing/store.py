"""A store in memory: breakers, recorder and log as with Postgres, and no Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from breaker_store.core.events import StoredEvent
from breaker_store.core.failures import EVERY_ERROR, FailureTable
from breaker_store.core.policy import Policy
from breaker_store.errors import ConfigurationError
from breaker_store.memory import MemoryEventLog
from breaker_store.runtime.clock import ManualClock as FakeClock
from breaker_store.runtime.follower import Follower
from breaker_store.runtime.from_threads import flush_from_thread
from breaker_store.runtime.recorder import Recorder
from breaker_store.runtime.registry import CircuitBreakerRegistry
from breaker_store.settings import Durability
from breaker_store.testing.virtual_time import VirtualClock, VirtualTimeLoop


class MemoryStore:
    """A store without Postgres; made by `memory_store`.

    Attributes:
        registry: the breakers.
        clock: the time of the breakers and of the log; it stands still until it is told to go on, or, in virtual time,
            goes with the event loop's.
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
        clock: one that the test has already, and moves by hand; None makes one.
        durability: as of a `BreakerStore`, but for "journaled": there is no spool.

    Raises:
        ConfigurationError: it is "journaled", or there is none of this name.

    """
    chosen = Durability.of(durability)
    if chosen is Durability.JOURNALED:
        raise ConfigurationError("a store in memory has no spool, and durability 'journaled' needs one")
    clock = clock or _new_clock()
    registry = CircuitBreakerRegistry(policy=policy, failures=failures, clock=clock)
    store = MemoryStore(registry, clock, chosen)
    with registry.surroundings.claimed_by_a_store():
        store.recorder.start()
        try:
            yield store
        finally:
            await store.recorder.close(drain_seconds=10.0)


def _new_clock() -> FakeClock:
    loop = asyncio.get_running_loop()
    return VirtualClock(loop) if isinstance(loop, VirtualTimeLoop) else FakeClock()
