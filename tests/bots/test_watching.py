"""How a bot is, as its process has seen it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from breaker_store import Policy
from breaker_store.bots import NO_RETRIES
from breaker_store.testing import in_virtual_time
from tests.bots.test_instance import FAILURES
from tests.bots.world import Service, TooFastError, World

PATIENT = Policy(failure_threshold=1_000)


async def call(world: World, service: Service, times: int) -> None:
    for _ in range(times):
        with suppress(Exception):
            await world.bot().rate_limited_request(service.send_message)


@in_virtual_time
async def test_a_bot_that_has_done_nothing_is_healthy() -> None:
    health = World().bot().get_health()
    assert (health.status, health.calls, health.mean_ms, health.findings) == ("healthy", 0, None, ())


@in_virtual_time
async def test_a_bot_half_of_whose_calls_fail_is_unhealthy_until_they_are_fifteen_minutes_ago() -> None:
    world = World(policy=PATIENT, retries=NO_RETRIES)
    await call(world, Service(*(ConnectionError() for _ in range(3))), 6)
    health = world.bot().get_health()
    assert (health.status, health.calls, health.failures) == ("unhealthy", 6, 3)
    assert health.findings == ("50% of its calls failed",)
    await asyncio.sleep(15 * 60)
    assert world.bot().get_health().status == "healthy"
    await call(world, Service(), 1)
    assert world.bot().get_health().calls == 1


@in_virtual_time
async def test_an_open_breaker_is_unhealthy() -> None:
    world = World()
    world.bot().breaker.force_open()
    assert (world.bot().get_health().status, world.bot().get_health().state) == ("unhealthy", "open")


@in_virtual_time
async def test_slow_calls_make_a_bot_degraded() -> None:
    world, service = World(), Service()
    service.takes_seconds = 4
    await call(world, service, 2)
    health = world.bot().get_health()
    assert (health.status, health.mean_ms) == ("degraded", pytest.approx(4_000))


@in_virtual_time
async def test_a_call_that_came_too_fast_is_counted_as_that() -> None:
    world = World(failures=FAILURES, retries=NO_RETRIES)
    await call(world, Service(TooFastError(0)), 2)
    health = world.bot().get_health()
    assert (health.calls, health.failures, health.rate_limited, health.status) == (2, 0, 1, "healthy")
