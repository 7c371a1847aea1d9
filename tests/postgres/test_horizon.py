"""Before the horizon nothing is guessed; days are dropped here as retention drops them."""

from __future__ import annotations

import asyncpg
import pytest

from breaker_store import Policy
from breaker_store.core.events import Kind
from breaker_store.core.policy import MICROSECONDS
from breaker_store.postgres import time_travel
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.horizon import HorizonError
from tests.core.scenario import Scenario
from tests.postgres.histories import MIDNIGHT, START, Past, asking, outcome

USER, OTHER = 101, 102
DAY = 86_400 * MICROSECONDS
LATER = START + DAY
MIDNIGHT_US = microseconds(MIDNIGHT)
POLICY = Policy(failure_threshold=3, timeout_seconds=10, success_threshold=2)


def begin(writer: int = 77) -> Scenario:
    """Begin a history of one process, at START, two seconds before midnight."""
    breaker = Scenario(POLICY, writer)
    breaker.now = START
    return breaker


async def drop_first_day(connection: asyncpg.Connection) -> None:
    await connection.execute("ALTER TABLE breaker_outcomes DETACH PARTITION breaker_outcomes_20240301")
    await connection.execute("DROP TABLE breaker_outcomes_20240301")
    await connection.execute(
        "INSERT INTO dropped_partitions (day, drops, outcomes, bytes) VALUES ('2024-03-01', 1, 1, 1)"
    )


async def ask_of_all(database_url: str, at: int) -> int:
    async with asking(database_url) as ask:
        return (await time_travel.summary_at(ask, to_datetime(at))).total_breakers


async def failures(database_url: str, at: int, user_id: int = USER) -> tuple[str, int]:
    async with asking(database_url) as ask:
        shown = (await time_travel.read_standing_at(ask, user_id, to_datetime(at))).state
        return shown["state"], shown["failure_count"]


async def horizon_met(database_url: str, at: int) -> int | None:
    """Give the horizon that is told where an instant can't be; it is the same for the summary and for a user."""
    with pytest.raises(HorizonError) as refused:
        await ask_of_all(database_url, at)
    with pytest.raises(HorizonError) as refused_too:
        await failures(database_url, at)
    assert refused.value.args == refused_too.value.args
    assert refused.value.at == to_datetime(at)
    horizon = refused.value.horizon
    return None if horizon is None else round(horizon.timestamp() * MICROSECONDS)


async def test_before_the_oldest_event_nothing_can_be_told(past: Past, database_url: str) -> None:
    await past.store(USER, begin().succeed().wait(5).succeed().stored)
    assert await horizon_met(database_url, START - 1) == START
    assert await horizon_met(database_url, START - 400 * DAY) == START
    assert await ask_of_all(database_url, START) == 1


async def test_of_an_empty_log_nothing_can_be_told(database_url: str) -> None:
    assert await horizon_met(database_url, START) is None


async def test_a_transition_may_be_the_oldest_event(past: Past, database_url: str) -> None:
    await past.store(USER, begin().reset().stored)
    assert await ask_of_all(database_url, LATER) == 1
    later = begin(writer=78).wait(90_000).succeed()
    await past.store(OTHER, later.stored)
    assert await horizon_met(database_url, START - 1) == START
    assert await ask_of_all(database_url, START) == 1
    assert await ask_of_all(database_url, LATER) == 1


async def test_the_end_of_the_last_day_that_was_dropped_is_the_horizon(
    past: Past, database_url: str, owner: asyncpg.Connection
) -> None:
    breaker = begin().opened()
    await past.store(USER, breaker.stored)
    await past.store(OTHER, [outcome(Kind.SUCCESS, LATER)])
    assert await failures(database_url, START) == ("open", 3)
    await drop_first_day(owner)
    assert await horizon_met(database_url, START) == MIDNIGHT_US
    assert await horizon_met(database_url, MIDNIGHT_US - 1) == MIDNIGHT_US
    assert await ask_of_all(database_url, MIDNIGHT_US) == 1
    assert await ask_of_all(database_url, LATER) == 2
    assert await failures(database_url, MIDNIGHT_US) == ("open", 3)


async def test_a_day_that_is_older_than_a_dropped_one_is_not_the_horizon(
    past: Past, database_url: str, owner: asyncpg.Connection
) -> None:
    """An import was kept, or a late event made the day again."""
    for at in (START - 3 * DAY, START, LATER):
        await past.store(USER, [outcome(Kind.SUCCESS, at)])
    await drop_first_day(owner)
    assert await horizon_met(database_url, START - 2 * DAY) == MIDNIGHT_US
    assert await ask_of_all(database_url, MIDNIGHT_US) == 1


async def test_where_every_outcome_was_dropped_the_state_after_them_is_told(
    past: Past, database_url: str, owner: asyncpg.Connection
) -> None:
    await past.store(USER, begin().opened().stored)
    await drop_first_day(owner)
    assert await failures(database_url, LATER) == ("open", 3)


async def store_and_drop(past: Past, connection: asyncpg.Connection, breaker: Scenario) -> None:
    await past.store(USER, breaker.stored)
    await past.store(OTHER, [outcome(Kind.SUCCESS, START + 3 * MICROSECONDS)])
    await drop_first_day(connection)


async def test_failures_in_a_row_that_may_have_begun_before_the_horizon_are_not_told(
    past: Past, database_url: str, owner: asyncpg.Connection
) -> None:
    breaker = begin().fail().wait(4).fail().wait(6).succeed().wait(10).fail()
    await store_and_drop(past, owner, breaker)
    with pytest.raises(HorizonError, match="began before 2024-03-02T00:00:00Z") as refused:
        await failures(database_url, START + 5 * MICROSECONDS)
    assert refused.value.horizon == MIDNIGHT
    assert await failures(database_url, START + 10 * MICROSECONDS) == ("closed", 0)
    assert await failures(database_url, START + 20 * MICROSECONDS) == ("closed", 1)


async def test_a_half_open_round_that_began_before_the_horizon_is_not_told(
    past: Past, database_url: str, owner: asyncpg.Connection
) -> None:
    breaker = begin()
    breaker.now -= 10 * MICROSECONDS
    breaker.succeed(breaker.half_opened()).wait(20)
    await store_and_drop(past, owner, breaker)
    with pytest.raises(HorizonError):
        await failures(database_url, START + 5 * MICROSECONDS)


async def test_failures_in_a_row_that_began_after_the_horizon_are_told(
    past: Past, database_url: str, owner: asyncpg.Connection
) -> None:
    """The hour by which clocks might differ has passed as well."""
    breaker = begin().fail().wait(3_700).reset().fail()
    await store_and_drop(past, owner, breaker)
    assert await failures(database_url, breaker.now) == ("closed", 1)


async def test_failures_in_a_row_are_told_where_nothing_was_dropped(past: Past, database_url: str) -> None:
    """No success is kept, and the first count has no beginning; but the ledger says that this is all there was."""
    await past.store(OTHER, [outcome(Kind.SUCCESS, START)])
    await past.store(USER, begin().wait(90_000).fail().stored)
    assert await failures(database_url, START + 90_000 * MICROSECONDS) == ("closed", 1)
