"""Processes that share a database keep in step, by the log alone (DESIGN rules 13 and 14)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from breaker_store import (
    BreakerStore,
    CircuitBreakerOpenError,
    CircuitBreakerRegistry,
    CircuitState,
    Policy,
)
from breaker_store.core.events import Kind, Outcome, Transition, Verdict
from breaker_store.core.rebuild import rebuild
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import ManualClock
from breaker_store.runtime.follower import Follower
from tests.postgres.living import QUICK, USER, Ear, fail, ok, timeless, trip
from tests.postgres.stored import read_events

FOLLOWERS_BACKENDS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'breaker-store' AND query LIKE '%position > $1%'
"""


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[BreakerStore]:
    """Start another process on the same database."""
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        yield store


def state_of(store: BreakerStore, user_id: int = USER) -> CircuitState:
    return store.registry.get_breaker(user_id).state.state


async def test_another_process_takes_on_a_transition_and_tells_its_listeners(
    store: BreakerStore, other: BreakerStore
) -> None:
    ear = Ear(other.registry)
    await trip(store.registry.get_breaker(USER))
    opened = await ear.wait_for_kind(Kind.OPENED)
    assert opened.position == 1
    assert [cause.error_message for cause in opened.causes] == ["no answer", "no answer"]
    with pytest.raises(CircuitBreakerOpenError) as refusal:
        await other.registry.get_breaker(USER).call(ok)
    assert refusal.value.opened_by == opened.event_id
    assert refusal.value.timeout_remaining == pytest.approx(30, abs=5)


async def test_a_reset_in_one_process_closes_the_breaker_in_all(
    store: BreakerStore, other: BreakerStore
) -> None:
    here, there = Ear(store.registry), Ear(other.registry)
    await trip(store.registry.get_breaker(USER))
    await there.wait_for_kind(Kind.OPENED)
    other.registry.get_breaker(USER).reset(actor="ann", reason="mended")
    reset = await here.wait_for_kind(Kind.RESET)
    assert (reset.actor, reset.reason) == ("ann", "mended")
    assert state_of(store) is CircuitState.CLOSED
    await store.registry.get_breaker(USER).call(ok)


async def test_a_policy_set_in_one_process_holds_in_all_and_keeps_the_count(
    store: BreakerStore, other: BreakerStore
) -> None:
    ear = Ear(other.registry)
    await fail(other.registry.get_breaker(USER))
    await other.flush()
    own = Policy(failure_threshold=9)
    store.registry.set_policy(USER, own)
    await ear.wait_for_kind(Kind.POLICY_CHANGED)
    state = other.registry.get_breaker(USER).state
    assert (state.policy, state.failure_count) == (own, 1)


async def test_of_two_processes_that_open_a_breaker_at_once_one_wins_and_the_other_takes_it_on(
    store: BreakerStore, other: BreakerStore, connection: asyncpg.Connection
) -> None:
    for each in (store, other):
        await trip(each.registry.get_breaker(USER))
    await asyncio.gather(store.flush(), other.flush())
    chain = [event for event in await read_events(connection, USER) if isinstance(event, Transition)]
    assert sorted(event.position or 0 for event in chain) == [0, 1]
    (winner,) = [event for event in chain if event.position]
    for each in (store, other):
        state = each.registry.get_breaker(USER).state
        assert (state.state, state.era, state.opened_by) == (CircuitState.OPEN, winner.era, winner.event_id)
        assert each.registry.surroundings.unconfirmed == {}


async def test_many_openings_at_once_leave_no_gap_and_both_processes_agree(
    store: BreakerStore, other: BreakerStore, connection: asyncpg.Connection
) -> None:
    ears = [Ear(each.registry) for each in (store, other)]
    for user_id in range(20):
        for each in (store, other):
            await trip(each.registry.get_breaker(user_id))
            each.registry.get_breaker(user_id).reset()
    await asyncio.gather(store.flush(), other.flush())
    rows = await connection.fetch("SELECT position FROM breaker_transitions ORDER BY position")
    assert [row["position"] for row in rows] == [*range(1, 41), *[None] * 40]
    for user_id in range(20):
        expected = rebuild(QUICK, await read_events(connection, user_id))
        for each, ear in zip((store, other), ears, strict=True):
            # What lost to a batch takes on that batch alone; of the winner's next one the follower hears.
            await ear.wait_for(lambda _, heard, last=expected.last_transition: heard.event_id == last)
            assert each.registry.get_breaker(user_id).state.era == expected.era


async def test_a_success_that_was_under_way_does_not_undo_a_trip_elsewhere(
    store: BreakerStore, other: BreakerStore, connection: asyncpg.Connection
) -> None:
    ear = Ear(other.registry)
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    call = asyncio.ensure_future(other.registry.get_breaker(USER).call(lambda: answer))
    await trip(store.registry.get_breaker(USER))
    await ear.wait_for_kind(Kind.OPENED)
    answer.set_result("sent")
    assert await call == "sent"
    await other.flush()
    assert state_of(other) is CircuitState.OPEN
    events = await read_events(connection, USER)
    (success,) = [event for event in events if isinstance(event, Outcome) and event.kind is Kind.SUCCESS]
    assert success.verdict is Verdict.NOT_COUNTED
    assert rebuild(QUICK, events).state is CircuitState.OPEN


async def test_a_success_that_arrives_after_a_trip_does_not_undo_it(
    store: BreakerStore, other: BreakerStore, connection: asyncpg.Connection, database_url: str
) -> None:
    await other.registry.get_breaker(USER).call(ok)
    await trip(store.registry.get_breaker(USER))
    await store.flush()
    await other.flush()
    assert rebuild(QUICK, await read_events(connection, USER)).state is CircuitState.OPEN
    async with BreakerStore.open(database_url=database_url) as again:
        assert state_of(again) is CircuitState.OPEN


async def test_a_follower_whose_connection_is_cut_misses_nothing(
    store: BreakerStore, other: BreakerStore, connection: asyncpg.Connection
) -> None:
    ear = Ear(other.registry)
    await trip(store.registry.get_breaker(1))
    await ear.wait_for_kind(Kind.OPENED, 1)
    await connection.execute(FOLLOWERS_BACKENDS)
    for user_id in (2, 3):
        await trip(store.registry.get_breaker(user_id))
    await ear.wait_for_kind(Kind.OPENED, 3)
    assert [user_id for user_id, _ in ear.heard] == [1, 2, 3]


async def test_a_process_that_lost_tells_its_listeners_what_it_took_on(
    store: BreakerStore, other: BreakerStore
) -> None:
    await trip(store.registry.get_breaker(USER))
    await store.flush()
    winner = store.registry.get_breaker(USER).state.last_transition
    ear = Ear(other.registry)
    await trip(other.registry.get_breaker(USER))
    await other.flush()
    heard = await ear.wait_for(lambda _, transition: transition.event_id == winner)
    assert heard.position == 1


async def test_a_count_under_way_survives_a_change_of_policy_that_lost(
    store: BreakerStore, other: BreakerStore, connection: asyncpg.Connection
) -> None:
    """A change of policy begins no count, so failures on either side of it belong to the same one."""
    own = Policy(failure_threshold=9)
    for each in (store, other):
        each.registry.set_policy(USER, own)
    await store.flush()
    await fail(other.registry.get_breaker(USER), 2)
    await other.flush()
    expected = timeless(rebuild(QUICK, await read_events(connection, USER)))
    assert expected.failure_count == 2
    assert timeless(other.registry.get_breaker(USER).state) == expected


async def test_a_shorter_timeout_set_while_a_breaker_is_open_holds_here_elsewhere_and_after_a_restart(
    store: BreakerStore, other: BreakerStore, database_url: str
) -> None:
    ear = Ear(other.registry)
    await trip(store.registry.get_breaker(USER))
    await ear.wait_for_kind(Kind.OPENED)
    store.registry.set_policy(USER, Policy(failure_threshold=2, timeout_seconds=12))
    await ear.wait_for_kind(Kind.POLICY_CHANGED)
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as again:
        waits = [each.registry.get_breaker(USER).get_state() for each in (store, other, again)]
    assert [wait["timeout_remaining"] for wait in waits] == pytest.approx([12, 12, 12], abs=4)


async def test_a_wait_is_as_long_as_the_database_says_though_its_clock_was_measured_before_it_was_set_back(
    store: BreakerStore, database_url: str
) -> None:
    """This process's clock leaps instead, which looks the same from here."""
    clock = ManualClock()
    registry = CircuitBreakerRegistry(policy=QUICK, clock=clock)
    log = PostgresEventLog(database_url, clock)
    await log.open()
    clock.advance(3_600)
    await trip(store.registry.get_breaker(USER))
    await store.flush()
    await Follower(registry, log, 0).poll()
    await log.close()
    clock.advance(24)
    with pytest.raises(CircuitBreakerOpenError):
        await registry.get_breaker(USER).call(ok)
    clock.advance(6)
    assert await registry.get_breaker(USER).call(ok) == "sent"


async def test_what_a_newer_version_wrote_is_passed_over_and_said(
    store: BreakerStore, other: BreakerStore, connection: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    ear = Ear(store.registry)
    await trip(other.registry.get_breaker(USER))
    await ear.wait_for_kind(Kind.OPENED)
    await insert_transition_of_kind_40(connection)
    await trip(other.registry.get_breaker(USER + 1))
    await ear.wait_for_kind(Kind.OPENED, USER + 1)
    assert "newer version" in caplog.text
    assert state_of(store) is CircuitState.OPEN
    store.registry.get_breaker(USER).reset()
    await store.flush()
    assert state_of(store) is CircuitState.CLOSED
    assert await connection.fetchval("SELECT version FROM breaker_states WHERE user_id = $1", USER) == 3


async def insert_transition_of_kind_40(connection: asyncpg.Connection, user_id: int = USER) -> None:
    """Do what a writer of a later version would do: a transition of a kind that is not known yet."""
    async with connection.transaction():
        await connection.execute(
            "UPDATE breaker_states SET version = version + 1, last_writer_id = 4, last_writer_seq = 1"
            " WHERE user_id = $1",
            user_id,
        )
        await connection.execute("UPDATE log_position SET last = last + 1")
        await connection.execute(
            """
            INSERT INTO breaker_events (
                occurred_at, user_id, writer_id, writer_seq, position, generation, era, version, kind, details,
                details_version
            )
            SELECT clock_timestamp(), user_id, 4, 1, last, generation, era, version, 40, '{"new": true}', 2
            FROM breaker_states, log_position WHERE user_id = $1
            """,
            user_id,
        )


async def test_start_up_passes_over_what_a_newer_version_wrote_and_says_so(
    database_url: str, connection: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        await trip(store.registry.get_breaker(USER))
        await fail(store.registry.get_breaker(USER + 1))
        await store.flush()
        await insert_transition_of_kind_40(connection)
        await connection.execute(
            "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind, verdict)"
            " VALUES (clock_timestamp(), $1, 4, 2, 0, 0, 7, 0)",
            USER + 1,
        )
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        assert state_of(store) is CircuitState.OPEN
        assert store.registry.get_breaker(USER + 1).state.failure_count == 1
        assert "newer version" in caplog.text
        store.registry.get_breaker(USER).reset()
        await store.flush()
        assert state_of(store) is CircuitState.CLOSED
