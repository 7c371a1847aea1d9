"""What bot developers test with: a store in memory that stores what Postgres would, and breakers in any state."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from breaker_store import (
    CircuitBreaker,
    CircuitBreakerOpenError,
    CircuitState,
    ConfigurationError,
    Kind,
    LedgerError,
    Policy,
    Transition,
    testing,
)
from breaker_store.core.rebuild import rebuild
from breaker_store.failures import HTTPX
from breaker_store.runtime.clock import ManualClock
from breaker_store.testing import FakeClock, MemoryStore, force_state, memory_store

USER = 101


async def ok() -> str:
    return "sent"


async def bad() -> str:
    raise ConnectionError("no answer")


async def kinds(store: MemoryStore, user_id: int = USER) -> list[Kind]:
    await store.flush()
    return [event.kind for event in store.events(user_id)]


def test_what_the_module_declares_is_in_sorted_order_and_there() -> None:
    assert testing.__all__ == sorted(testing.__all__)
    assert all(getattr(testing, name).__doc__ for name in testing.__all__)


def test_the_examples_of_the_module_run() -> None:
    assert testing.__doc__ is not None
    blocks = re.findall(r"::\n((?:\n|    .*\n)+)", testing.__doc__)
    there: dict[str, Any] = {}
    for block in blocks:
        exec(compile(dedent(block), testing.__file__, "exec"), there)  # noqa: S102 - it is our own
    asyncio.run(there["test_the_bot_rests_while_its_breaker_is_open"]())
    there["test_the_bot_calls_in_threads"]()
    there["test_the_bot_keeps_to_one_request_a_second"]()


async def test_a_memory_store_has_each_outcome_and_transition_in_order() -> None:
    async with memory_store(policy=Policy(failure_threshold=2, timeout_seconds=30)) as store:
        breaker = store.registry.get_breaker(USER)
        await breaker.call(ok)
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await breaker.call(bad)
        with pytest.raises(CircuitBreakerOpenError):
            await breaker.call(ok)
        store.clock.advance(30)
        await breaker.call(ok)
        await breaker.call(ok)
        assert await kinds(store) == [
            Kind.SUCCESS,
            Kind.FAILURE,
            Kind.FAILURE,
            Kind.OPENED,
            Kind.REJECTED,
            Kind.HALF_OPENED,
            Kind.SUCCESS,
            Kind.SUCCESS,
            Kind.CLOSED,
        ]
        assert store.events(102) == []


async def test_what_is_stored_folds_to_the_state_of_the_breaker() -> None:
    async with memory_store() as store:
        breaker = store.registry.get_breaker(USER)
        force_state(breaker, "open")
        force_state(breaker, "half_open")
        await breaker.call(ok)
        await store.flush()
        folded = rebuild(store.registry.policy, store.events(USER))
        assert folded == replace(breaker.state, probes_started=0)


async def test_transitions_that_are_stored_have_their_position() -> None:
    async with memory_store() as store:
        for user_id in (USER, 102):
            store.registry.get_breaker(user_id).reset()
        await store.flush()
        positions = [
            event.position
            for user_id in (USER, 102)
            for event in store.events(user_id)
            if isinstance(event, Transition)
        ]
        assert positions == [1, 2]


async def test_a_memory_store_takes_what_errors_mean_and_a_clock_of_the_tests_own() -> None:
    clock = FakeClock()
    async with memory_store(failures=HTTPX, clock=clock) as store:
        assert store.clock is clock
        assert store.registry.surroundings.failures is HTTPX


async def test_a_committed_call_is_stored_when_it_returns() -> None:
    async with memory_store(durability="committed") as store:
        await store.registry.get_breaker(USER).call(ok)
        assert len(store.events(USER)) == 1


async def test_a_memory_store_that_was_closed_keeps_what_it_has_and_takes_no_more() -> None:
    async with memory_store() as store:
        await store.registry.get_breaker(USER).call(ok)
    await store.registry.get_breaker(USER).call(ok)
    assert [event.kind for event in store.events(USER)] == [Kind.SUCCESS]
    with pytest.raises(LedgerError):
        await store.flush()


async def test_a_memory_store_has_no_spool() -> None:
    with pytest.raises(ConfigurationError, match="no spool"):
        async with memory_store(durability="journaled"):
            pass


STATES = ("closed", "open", "half_open")


@pytest.mark.parametrize("before", [*STATES, "suspended", "failing"])
@pytest.mark.parametrize("state", STATES)
async def test_a_breaker_is_forced_from_any_state_into_any_other(before: str, state: Any) -> None:
    breaker = CircuitBreaker(clock=FakeClock())
    if before == "suspended":
        breaker.suspend()
    elif before == "failing":
        with pytest.raises(ConnectionError):
            await breaker.call(bad)
    else:
        force_state(breaker, CircuitState(before))
    force_state(breaker, state)
    assert (breaker.state.state, breaker.state.failure_count) == (state, 0)


async def test_a_breaker_that_is_forced_half_open_lets_one_probe_in() -> None:
    breaker = CircuitBreaker(clock=FakeClock())
    force_state(breaker, "half_open")
    async with breaker:
        with pytest.raises(CircuitBreakerOpenError):
            await breaker.call(ok)
    await breaker.call(ok)
    assert breaker.state.state is CircuitState.CLOSED


@pytest.mark.parametrize("timeout_seconds", [0, 60])
async def test_a_breaker_that_is_forced_open_refuses_until_its_wait_is_over(timeout_seconds: float) -> None:
    clock = FakeClock()
    breaker = CircuitBreaker(timeout_seconds=timeout_seconds, clock=clock)
    force_state(breaker, "open")
    with pytest.raises(CircuitBreakerOpenError):
        await breaker.call(ok)
    clock.advance(max(timeout_seconds, 1e-6))
    assert await breaker.call(ok) == "sent"


async def test_a_state_is_forced_from_any_thread() -> None:
    async with memory_store() as store:
        breaker = store.registry.get_breaker(USER)
        await asyncio.to_thread(force_state, breaker, "half_open")
        await asyncio.to_thread(store.flush_sync)
        assert [event.kind for event in store.events(USER)] == [Kind.FORCED_OPEN, Kind.HALF_OPENED]


def test_there_is_no_other_state_to_force() -> None:
    with pytest.raises(ValueError, match="ajar"):
        force_state(CircuitBreaker(), "ajar")  # type: ignore[arg-type]


def test_the_fake_clock_is_the_one_that_our_own_tests_use() -> None:
    assert FakeClock is ManualClock
    assert isinstance(testing, ModuleType)
