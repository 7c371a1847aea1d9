"""Stores that are open, and calls through their breakers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from breaker_store import BreakerStore, CircuitBreaker, CircuitBreakerRegistry, CircuitState, Policy
from breaker_store.core.commands import Report
from breaker_store.core.decide import decide
from breaker_store.core.events import Kind, Permit, Transition
from breaker_store.core.state import BreakerState, Start

USER = 101
QUICK = Policy(failure_threshold=2, timeout_seconds=30, success_threshold=2)


class NoAnswerError(Exception):
    """What a sick service brings about."""


async def ok() -> str:
    return "sent"


async def bad() -> str:
    raise NoAnswerError("no answer")


async def fail(breaker: CircuitBreaker, times: int = 1, error: str = "no answer") -> None:
    async def fail_with() -> None:
        raise NoAnswerError(error)

    for _ in range(times):
        with pytest.raises(NoAnswerError):
            await breaker.call(fail_with)


async def trip(breaker: CircuitBreaker) -> None:
    while breaker.state.state is not CircuitState.OPEN:
        await fail(breaker)


def fail_uncleaned(registry: CircuitBreakerRegistry, user_id: int = USER, **fields: Any) -> None:
    """Have a failure happen with texts or a time that no call can bring about: they are cleaned before."""
    breaker, surroundings = registry.get_breaker(user_id), registry.surroundings
    journal, state = surroundings.journal, breaker.state
    command = Report(
        surroundings.clock.now_us(), journal.next_id(), journal.draw_era(), Kind.FAILURE,
        Permit(state.generation, state.era), 1, "send", "SomeError", "text",
    )  # fmt: skip
    breaker._take_on(decide(state, replace(command, **fields)))


class Ear:
    """Hears transitions, and lets a test wait for one."""

    def __init__(self, registry: CircuitBreakerRegistry) -> None:
        self.heard: list[tuple[int | None, Transition]] = []
        self._news = asyncio.Event()
        registry.subscribe(self._hear)

    def _hear(self, user_id: int | None, transition: Transition) -> None:
        self.heard.append((user_id, transition))
        self._news.set()

    async def wait_for(self, fits: Callable[[int | None, Transition], bool]) -> Transition:
        """Give the first transition, heard already or to come, that fits."""
        async with asyncio.timeout(5):
            while True:
                for user_id, transition in self.heard:
                    if fits(user_id, transition):
                        return transition
                self._news.clear()
                await self._news.wait()

    async def wait_for_kind(self, kind: Kind, user_id: int = USER) -> Transition:
        return await self.wait_for(lambda user, transition: (user, transition.kind) == (user_id, kind))


def timeless(state: BreakerState) -> BreakerState:
    """Leave times and calls in flight out: each measurement of the database's clock moves the former a little."""
    return replace(
        state.without_calls_in_flight(),
        failures=tuple(replace(failure, at=0) for failure in state.failures),
        last_failure=state.last_failure and replace(state.last_failure, at=0),
        since=None,
        opened_at=None,
        retry_at=None,
        suspension=state.suspension and replace(state.suspension, at=0),
        start=what_still_counts(state),
    )


def what_still_counts(state: BreakerState) -> Start:
    """Give with what the count began, as far as no success has ended that: then it means nothing, and no row keeps it."""
    begun = state.start.failures
    if state.failures[: len(begun)] != begun or state.failure_count < state.start.failure_count:
        return state.start._replace(failure_count=0, failures=())
    return state.start._replace(failures=tuple(replace(each, at=0) for each in begun))


async def stored_live_state(store: BreakerStore, user_id: int = USER) -> BreakerState:
    """Give a breaker's state once all of it is stored."""
    await store.flush()
    return timeless(store.registry.get_breaker(user_id).state)
