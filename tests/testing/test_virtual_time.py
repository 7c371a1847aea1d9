"""Time that does not have to be waited for."""

from __future__ import annotations

import asyncio
import time

import pytest

from breaker_store.bots import BotFleet, UserBotCredentials
from breaker_store.failures import Category, FailureTable
from breaker_store.testing import in_virtual_time, memory_store


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


class TooFastError(Exception):
    retry_after = 5


@in_virtual_time
async def test_a_pause_that_the_service_asks_for_ends_though_the_stores_clock_stands_still() -> None:
    async with memory_store(failures=FailureTable({TooFastError: Category.RATE_LIMITED})) as store:
        fleet = BotFleet(store.registry, failures=FailureTable({TooFastError: Category.RATE_LIMITED}))
        answers = [TooFastError()]

        async def send() -> str:
            if answers:
                raise answers.pop()
            return "sent"

        assert await fleet.get_instance(UserBotCredentials(101, "token")).rate_limited_request(send) == "sent"
        await store.flush()
        assert [event.attempt for event in store.events(101)] == [None, 2]  # type: ignore[union-attr]
