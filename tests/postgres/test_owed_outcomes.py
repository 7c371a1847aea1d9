"""What a breaker counts is carried over before its outcomes are dropped, and nothing else is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date
from typing import TypeAlias

import asyncpg
import pytest

from breaker_store import BreakerStore, Kind, Policy, control
from breaker_store.core.standing import StateVersion
from breaker_store.core.state import BreakerState
from breaker_store.postgres import loading
from breaker_store.postgres.verification import verify
from tests.core.scenario import Scenario
from tests.postgres.histories import MIDNIGHT, START, Past
from tests.postgres.living import Ear, fail

USER = 101
Remember: TypeAlias = Callable[[Scenario], Awaitable[None]]
POLICY = Policy(failure_threshold=4, timeout_seconds=0.5, success_threshold=2)
SECOND_DAY = MIDNIGHT.date()


def begin() -> Scenario:
    """Begin a history at START, two seconds before midnight."""
    breaker = Scenario(POLICY, 77)
    breaker.now = START
    return breaker


@pytest.fixture
def remember(past: Past, owner: asyncpg.Connection) -> Remember:
    """Store what happened, and have the breaker's row know it."""

    async def remember(breaker: Scenario) -> None:
        await past.store(USER, breaker.stored, POLICY)
        await owner.execute("SELECT restore_breaker_state($1)", USER)

    return remember


async def drop_first_day(connection: asyncpg.Connection) -> None:
    await connection.execute("ALTER TABLE breaker_outcomes DETACH PARTITION breaker_outcomes_20240301")
    await connection.execute("DROP TABLE breaker_outcomes_20240301")
    await connection.execute(
        "INSERT INTO dropped_partitions (day, drops, outcomes, bytes) VALUES ('2024-03-01', 1, 1, 1)"
    )


async def carry_over(database_url: str, before: date = SECOND_DAY, **options: StateVersion) -> bool:
    return await control.carry_over(database_url, USER, before=before, **options)


async def read(connection: asyncpg.Connection) -> BreakerState:
    stored = await loading.read_breaker(connection, USER, POLICY)
    assert stored is not None
    return stored.state


def counts(state: BreakerState) -> tuple[object, ...]:
    return state.state, state.failure_count, state.failures, state.last_failure, state.success_count


HISTORIES = {
    "three old failures in a row": lambda: begin().fail(error="Old").fail().fail(),
    "a half-open breaker with one old probe that succeeded": lambda: begin().opened().wait(0.5).succeed(),
    "a run of before that was ended by an old success": lambda: begin().fail().fail().carry_over().succeed(),
    "old failures under rules that changed since": lambda: (
        begin().fail().fail().carry_over().fail().change_policy(POLICY)
    ),
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
async def test_without_its_old_outcomes_a_breaker_is_as_it_was(
    remember: Remember, database_url: str, owner: asyncpg.Connection, history
) -> None:
    await remember(history())
    before = await read(owner)
    assert await carry_over(database_url)
    assert not await carry_over(database_url)
    await drop_first_day(owner)
    assert counts(await read(owner)) == counts(before)
    async with BreakerStore.open(database_url=database_url, policy=POLICY):
        pass
    assert (await verify(database_url)).findings == ()
    await owner.execute("SELECT restore_breaker_state($1)", USER)
    assert counts(await read(owner)) == counts(before)


async def test_a_trip_names_the_failures_whose_outcomes_are_gone(
    remember: Remember, database_url: str, owner: asyncpg.Connection
) -> None:
    await remember(begin().fail(error="Old").fail().fail())
    await carry_over(database_url)
    await drop_first_day(owner)
    async with BreakerStore.open(database_url=database_url, policy=POLICY) as store:
        ear = Ear(store.registry)
        await fail(store.registry.get_breaker(USER))
        opened = await ear.wait_for_kind(Kind.OPENED, USER)
        await store.flush()
    assert [cause.error_type for cause in opened.causes][:2] == ["Old", "TimeoutError"]
    assert (await verify(database_url)).findings == ()


@pytest.mark.parametrize(
    "history",
    [
        lambda: begin().fail().succeed(),
        lambda: begin().opened(),
        lambda: begin().fail().wait(1).reset(),
        lambda: begin().wait(5).fail(),
        lambda: begin().fail().suspend(),
        lambda: begin().fail().wait(5).succeed().fail(),
    ],
    ids=["well", "open", "reset", "failed since", "suspended", "well in between"],
)
async def test_what_owes_nothing_to_its_old_outcomes_is_left_alone(
    remember: Remember, database_url: str, connection: asyncpg.Connection, history
) -> None:
    await remember(history())
    before = await read(connection)
    assert not await carry_over(database_url)
    assert await read(connection) == before


async def test_a_breaker_that_has_moved_on_is_left_alone(remember: Remember, database_url: str) -> None:
    await remember(begin().fail())
    assert not await carry_over(database_url, expected=StateVersion(1, 5))
    assert await carry_over(database_url, expected=StateVersion(0, 0))


async def test_a_user_of_whom_nothing_is_stored_is_left_alone(database_url: str) -> None:
    assert not await carry_over(database_url)
