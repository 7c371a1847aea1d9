"""For tests of bots: a clock that stands still, a store in memory, breakers in any state, and waits that take no time.

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

What waits on its event loop (limits of a rate, pauses before another attempt, time-outs) is tested in virtual time, with
which the clock of the store goes::

    import asyncio
    from breaker_store.bots import BotFleet, UserBotCredentials
    from breaker_store.testing import in_virtual_time

    @in_virtual_time
    async def test_the_bot_keeps_to_one_request_a_second():
        async with memory_store() as store:
            bot = BotFleet(store.registry).get_instance(UserBotCredentials(101, "token", requests_per_second=1))
            before = asyncio.get_running_loop().time()
            for _ in range(10):
                await bot.rate_limited_request(deliver, "hi")
            assert 8 < asyncio.get_running_loop().time() - before < 10
"""

from __future__ import annotations

from breaker_store.core.events import Outcome
from breaker_store.runtime.clock import ManualClock as FakeClock
from breaker_store.testing.states import force_state
from breaker_store.testing.store import MemoryStore, memory_store
from breaker_store.testing.virtual_time import VirtualTimeLoop, in_virtual_time

__all__ = [
    "FakeClock",
    "MemoryStore",
    "Outcome",
    "VirtualTimeLoop",
    "force_state",
    "in_virtual_time",
    "memory_store",
]
