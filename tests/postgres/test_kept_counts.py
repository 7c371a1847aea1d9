"""How many breakers there are, and how often they tripped, is kept by the appends, and is what counting gives."""

from __future__ import annotations

import asyncpg
import pytest
from hypothesis import given

from breaker_store import BreakerStore, control
from breaker_store.core.events import Transition
from tests.postgres.living import QUICK, USER, trip
from tests.postgres.processes import Process, databases, live_through, two_processes
from tests.postgres.stored import read_events

KEPT = "SELECT breakers, open_breakers, half_open_breakers, suspended_breakers FROM log_position"
COUNTED = """
SELECT
    count(*), count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE suspended)
FROM breaker_states
"""


async def kept_and_counted(connection: asyncpg.Connection) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(await connection.fetchrow(KEPT)), tuple(await connection.fetchrow(COUNTED))


async def trips_by_the_events(connection: asyncpg.Connection, user_id: int) -> list[Transition]:
    events = await read_events(connection, user_id)
    trips = [each for each in events if isinstance(each, Transition) and each.position and each.is_trip]
    return sorted(trips, key=lambda transition: transition.version)


@databases
@given(history=two_processes)
async def test_counts_and_trips_are_what_the_events_say_whoever_wrote_them(
    processes: list[Process], connection: asyncpg.Connection, history: list[tuple[int, str]]
) -> None:
    user_id = await live_through(processes, history)
    kept, counted = await kept_and_counted(connection)
    assert kept == counted
    trips = await trips_by_the_events(connection, user_id)
    row = await connection.fetchrow(
        "SELECT trips, trip_error FROM breaker_states WHERE user_id = $1", user_id
    )
    expected = (len(trips), trips[-1].causes[-1].error_type if trips else None)
    assert (tuple(row) if row else (0, None)) == expected


async def test_a_reset_by_an_operator_is_counted(
    database_url: str, store: BreakerStore, connection: asyncpg.Connection
) -> None:
    await trip(store.registry.get_breaker(USER))
    await store.flush()
    assert await kept_and_counted(connection) == ((1, 1, 0, 0), (1, 1, 0, 0))
    await control.reset(database_url, USER)
    assert await kept_and_counted(connection) == ((1, 0, 0, 0), (1, 0, 0, 0))


async def test_a_suspension_is_counted_until_the_bot_is_resumed(
    database_url: str, store: BreakerStore, connection: asyncpg.Connection
) -> None:
    await trip(store.registry.get_breaker(USER))
    await store.flush()
    for reason in ("unpaid bill", "abuse"):
        await control.suspend(database_url, USER, reason=reason)
        assert await kept_and_counted(connection) == ((1, 1, 0, 1), (1, 1, 0, 1))
    await control.resume(database_url, USER)
    assert await kept_and_counted(connection) == ((1, 0, 0, 0), (1, 0, 0, 0))


async def test_a_batch_without_newcomers_and_transitions_leaves_the_counts_alone(
    store: BreakerStore, connection: asyncpg.Connection
) -> None:
    async def succeed() -> None: ...

    await store.registry.get_breaker(USER).call(succeed)
    await store.flush()
    before = await connection.fetchval("SELECT ctid FROM log_position")
    await store.registry.get_breaker(USER).call(succeed)
    await store.flush()
    assert await connection.fetchval("SELECT ctid FROM log_position") == before


@pytest.mark.parametrize(
    "change", ["state = 0", "trips = 9", "trip_error = 'Another'", "state = 2", "suspended = true"]
)
async def test_rows_that_are_put_right_at_start_up_are_counted_anew(
    database_url: str, connection: asyncpg.Connection, change: str
) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        await trip(store.registry.get_breaker(USER))
    await connection.execute(f"UPDATE breaker_states SET {change}, version = 0")
    async with BreakerStore.open(database_url=database_url, policy=QUICK):
        pass
    assert await kept_and_counted(connection) == ((1, 1, 0, 0), (1, 1, 0, 0))
    row = await connection.fetchrow("SELECT trips, trip_error FROM breaker_states")
    assert tuple(row) == (1, "tests.postgres.living.NoAnswerError")
