"""How a bot is, as its process has seen it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from breaker_store import CircuitState, Policy
from breaker_store.bots import NO_RETRIES
from breaker_store.core.health import judge, tally
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


@in_virtual_time
async def test_what_was_before_the_last_fifteen_minutes_weighs_nothing() -> None:
    world, slow = World(policy=PATIENT, retries=NO_RETRIES), Service(*(ConnectionError() for _ in range(4)))
    slow.takes_seconds = 100
    await call(world, slow, 4)
    await asyncio.sleep(15 * 60)
    await call(world, Service(), 1)
    assert world.bot().get_health().status == "healthy"
    await call(world, Service(ConnectionError()), 1)
    assert world.bot().get_health().findings == ("50% of its calls failed",)


@in_virtual_time
async def test_a_bot_is_judged_as_the_log_judges_its_outcomes() -> None:
    world = World(policy=PATIENT, retries=NO_RETRIES)
    for minute in range(6):
        service = Service(*(ConnectionError() for _ in range(minute % 4)))
        for seconds in (0.5, 9, 2.25, 14):
            service.takes_seconds = seconds
            await call(world, service, 1)
        await asyncio.sleep(60)
    service = Service(*(ConnectionError() for _ in range(7)))
    await call(world, service, 3)
    await asyncio.sleep(60)
    await call(world, service, 4)
    told = tally(world.outcomes())
    findings = judge(
        error_rate=told.error_rate,
        failure_run=told.failure_run,
        mean_ms=told.mean_ms,
        average_ms=told.average_ms,
        state=CircuitState.CLOSED,
        is_suspended=False,
    ).findings
    assert "7 failures in a row" in findings
    assert world.bot().get_health().findings == findings
