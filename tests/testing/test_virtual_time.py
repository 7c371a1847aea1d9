"""Time that does not have to be waited for."""

from __future__ import annotations

import asyncio
import time

import pytest

from breaker_store import CircuitBreakerOpenError, Policy
from breaker_store.bots import BotFleet, RetryPolicy, UserBotCredentials
from breaker_store.failures import KNOWN_CLIENTS, Category, FailureTable
from breaker_store.testing import FakeClock, force_state, in_virtual_time, memory_store


@in_virtual_time
async def test_a_day_passes_at_once() -> None:
    before, really = asyncio.get_running_loop().time(), time.monotonic()
    await asyncio.sleep(86_400)
    assert asyncio.get_running_loop().time() - before == pytest.approx(86_400)
    assert time.monotonic() - really < 60


@in_virtual_time
async def test_timers_fire_in_their_order() -> None:
    order: list[int] = []

    async def wait(seconds: int) -> None:
        await asyncio.sleep(seconds)
        order.append(seconds)

    await asyncio.gather(wait(300), wait(100), wait(200))
    assert order == [100, 200, 300]


@in_virtual_time
async def test_a_time_out_ends_what_takes_too_long() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await asyncio.sleep(11)


def test_what_nobody_will_ever_bring_about_is_an_error() -> None:
    @in_virtual_time
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nothing is going to happen"):
        wait_for_ever()


@in_virtual_time
async def test_a_breakers_wait_passes_with_the_loops_time_and_by_hand() -> None:
    async with memory_store() as store:
        breaker = store.registry.get_breaker(101)
        force_state(breaker, "open")
        await asyncio.sleep(30)
        assert breaker.get_state()["timeout_remaining"] == pytest.approx(30, abs=0.001)
        store.clock.advance(20)
        await asyncio.sleep(9)
        with pytest.raises(CircuitBreakerOpenError):
            await breaker.call(asyncio.sleep, 0)
        await asyncio.sleep(1)
        await breaker.call(asyncio.sleep, 7)
        await store.flush()
        assert store.events(101)[-1].duration_us == pytest.approx(7_000_000, abs=1_000)  # type: ignore[union-attr]


@in_virtual_time
async def test_retries_end_when_their_time_is_over() -> None:
    async with memory_store(policy=Policy(failure_threshold=100), failures=KNOWN_CLIENTS) as store:
        retries = RetryPolicy(attempts=50, total_seconds=60)
        fleet = BotFleet(store.registry, failures=KNOWN_CLIENTS, retries=retries)
        begun = asyncio.get_running_loop().time()

        async def send() -> None:
            await asyncio.sleep(10)
            raise ConnectionError

        with pytest.raises(ConnectionError):
            await fleet.get_instance(UserBotCredentials(101, "token")).rate_limited_request(send)
        assert asyncio.get_running_loop().time() - begun <= 70


class TooFastError(Exception):
    retry_after = 5


@in_virtual_time
async def test_a_pause_that_the_service_asks_for_ends_though_the_stores_clock_stands_still() -> None:
    failures = FailureTable({TooFastError: Category.RATE_LIMITED})
    async with memory_store(failures=failures, clock=FakeClock()) as store:
        fleet = BotFleet(store.registry, failures=failures)
        answers = [TooFastError()]

        async def send() -> str:
            if answers:
                raise answers.pop()
            return "sent"

        assert await fleet.get_instance(UserBotCredentials(101, "token")).rate_limited_request(send) == "sent"
        await store.flush()
        assert [event.attempt for event in store.events(101)] == [None, 2]  # type: ignore[union-attr]
