"""A clock that stands still, a breaker on it, and the three ways to use one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerRegistry
from breaker_store.runtime.clock import ManualClock
from tests.runtime.driving import START, WAYS, Recording, Way
from tests.runtime.recorders import RuledLog


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Let a module's tests run on the event loop that it names as its `LOOP`."""
    assert isinstance(item, pytest.Function)
    return {"loop": getattr(item.module, "LOOP", asyncio.new_event_loop)}


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


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Name a folder for a spool, which makes it."""
    return tmp_path / "spool"


@pytest.fixture
def log() -> RuledLog:
    return RuledLog()
