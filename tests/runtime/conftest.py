"""A clock that stands still, a breaker on it, and the three ways to use one."""

from __future__ import annotations

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerRegistry
from breaker_store.runtime.clock import ManualClock
from tests.runtime.driving import START, WAYS, Recording, Way


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    """Make a breaker with the default policy that belongs to nobody."""
    return CircuitBreaker(clock=clock)


@pytest.fixture
def registry(clock: ManualClock) -> CircuitBreakerRegistry:
    return CircuitBreakerRegistry(clock=clock)


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture(params=WAYS, ids=[way.__name__ for way in WAYS])
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen
