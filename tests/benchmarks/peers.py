"""The other breakers that ours is measured against."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import circuitbreaker
from purgatory import AsyncCircuitBreakerFactory

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import aiobreaker

FAILURE_THRESHOLD = 5

AsyncFunction = Callable[[], Awaitable[Any]]


class TwentyLines:
    """The least that can be called a breaker that records: two clock reads and a tuple for each call."""

    def __init__(self) -> None:
        self.is_open = False
        self.failures = 0
        self.opened_at = 0.0
        self.log: deque[tuple[float, float, bool]] = deque()

    async def call(self, func: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        started_at = time.monotonic()
        if self.is_open and started_at - self.opened_at < 60:
            raise RuntimeError("open")
        try:
            result = await func(*args, **kwargs)
        except Exception:
            self.failures += 1
            self.opened_at = time.monotonic()
            self.is_open = self.failures >= FAILURE_THRESHOLD
            self.log.append((started_at, self.opened_at, False))
            raise
        self.is_open = False
        self.failures = 0
        self.log.append((started_at, time.monotonic(), True))
        return result


async def work() -> int:
    return 1


async def fail() -> None:
    raise ConnectionError("refused")


async def make_purgatory() -> Any:
    """Give a breaker to be held and entered with `async with`, its fastest way."""
    return await AsyncCircuitBreakerFactory(default_threshold=FAILURE_THRESHOLD).get_breaker("benchmark")


def make_circuitbreaker() -> circuitbreaker.CircuitBreaker:
    return circuitbreaker.CircuitBreaker(failure_threshold=FAILURE_THRESHOLD, recovery_timeout=3_600)


def make_aiobreaker() -> aiobreaker.CircuitBreaker:
    return aiobreaker.CircuitBreaker(fail_max=FAILURE_THRESHOLD)


async def fail_often(call: AsyncFunction) -> None:
    """Fail as often as opens any of the breakers."""
    for _ in range(FAILURE_THRESHOLD):
        with suppress(Exception):
            await call()
