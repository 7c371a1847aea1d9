"""The log's time is the database's, and a wait is as long as it was meant (DESIGN rules 6 and 12)."""

from __future__ import annotations

import time

import asyncpg
import pytest

from breaker_store import BreakerStore, CircuitBreakerOpenError, CircuitBreakerRegistry, CircuitState
from breaker_store.runtime.clock import Clock
from tests.postgres.living import QUICK, USER, Ear, ok, trip

HOUR_US = 3_600_000_000
AWAY = [-3 * HOUR_US, 0, 3 * HOUR_US]
HOURS = ["three hours behind", "right", "three hours ahead"]

AGE = "SELECT abs(extract(epoch FROM clock_timestamp() - {})) FROM {} WHERE user_id = $1"


def registry_on_clock(away_us: int) -> CircuitBreakerRegistry:
    return CircuitBreakerRegistry(policy=QUICK, clock=Clock(unix_us=time.time_ns() // 1_000 + away_us))


def remaining(store: BreakerStore) -> float:
    return store.registry.get_breaker(USER).get_state()["timeout_remaining"]


@pytest.mark.parametrize("away_us", AWAY, ids=HOURS)
async def test_events_have_the_databases_time(
    database_url: str, connection: asyncpg.Connection, away_us: int
) -> None:
    registry = registry_on_clock(away_us)
    async with BreakerStore.open(database_url=database_url, registry=registry) as store:
        await registry.get_breaker(USER).call(ok)
        await trip(registry.get_breaker(USER))
        await store.flush()
    for column, table in (
        ("max(occurred_at)", "breaker_outcomes"),
        ("min(occurred_at)", "breaker_events"),
        ("since", "breaker_states"),
        ("opened_at", "breaker_states"),
        ("retry_at + interval '30 s'", "breaker_states"),
    ):
        assert await connection.fetchval(AGE.format(column, table), USER) < 65, column
    waits = await connection.fetchval("SELECT extract(epoch FROM retry_at - opened_at) FROM breaker_states")
    assert waits == pytest.approx(30, abs=0.1)


@pytest.mark.parametrize("away_us", AWAY, ids=HOURS)
async def test_the_remaining_wait_survives_a_restart_whatever_the_wall_clock_says(
    database_url: str, connection: asyncpg.Connection, away_us: int
) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        await trip(store.registry.get_breaker(USER))
        await store.flush()
    await connection.execute("UPDATE breaker_states SET retry_at = retry_at - interval '12 s'")
    registry = registry_on_clock(away_us)
    async with BreakerStore.open(database_url=database_url, registry=registry) as store:
        assert remaining(store) == pytest.approx(18, abs=4)
        with pytest.raises(CircuitBreakerOpenError) as refusal:
            await registry.get_breaker(USER).call(ok)
        assert refusal.value.timeout_remaining == pytest.approx(18, abs=4)
        assert refusal.value.open_since is not None
        now = registry.surroundings.clock.now_us() / 1_000_000
        assert now - refusal.value.open_since == pytest.approx(0, abs=5)


@pytest.mark.parametrize(("shift", "expected"), [("10 days", 30.0), ("-10 days", 0.0)])
async def test_a_wait_is_kept_between_nothing_and_the_timeout(
    database_url: str, connection: asyncpg.Connection, shift: str, expected: float
) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        await trip(store.registry.get_breaker(USER))
        await store.flush()
    await connection.execute(f"UPDATE breaker_states SET retry_at = retry_at + interval '{shift}'")
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        assert remaining(store) == pytest.approx(expected, abs=2)
        assert store.registry.get_open_breakers() == [USER]


async def test_a_breaker_whose_wait_ended_while_nobody_ran_is_open_until_it_is_called(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        await trip(store.registry.get_breaker(USER))
        await store.flush()
    await connection.execute("UPDATE breaker_states SET retry_at = clock_timestamp()")
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        assert store.registry.get_open_breakers() == [USER]
        await store.registry.get_breaker(USER).call(ok)
        assert store.registry.get_half_open_breakers() == [USER]
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        assert store.registry.get_breaker(USER).state.success_count == 1
        await store.registry.get_breaker(USER).call(ok)
        assert store.registry.get_breaker(USER).state.state is CircuitState.CLOSED


@pytest.mark.parametrize("away_us", AWAY, ids=HOURS)
async def test_a_wait_that_another_process_began_is_as_long_here(
    store: BreakerStore, database_url: str, away_us: int
) -> None:
    registry = registry_on_clock(away_us)
    async with BreakerStore.open(database_url=database_url, registry=registry) as other:
        ear = Ear(registry)
        await trip(store.registry.get_breaker(USER))
        opened = await ear.wait_for(lambda user_id, _: user_id == USER)
        assert remaining(other) == pytest.approx(30, abs=4)
        assert abs(opened.at - registry.surroundings.clock.now_us()) < 5_000_000


async def test_times_never_run_backwards_within_a_writer(
    store: BreakerStore, connection: asyncpg.Connection
) -> None:
    for number in range(30):
        for _ in range(number):
            await store.registry.get_breaker(number).call(ok)
        await store.flush()
    rows = await connection.fetch("SELECT occurred_at FROM breaker_events ORDER BY writer_seq")
    times = [row["occurred_at"] for row in rows]
    assert len(times) == 435
    assert times == sorted(times)
