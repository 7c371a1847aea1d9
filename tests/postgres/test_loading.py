"""What is read at start-up is what the events mean, for any history (DESIGN rule 14)."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest
from hypothesis import example, given

from breaker_store import BreakerStore, CircuitState
from breaker_store.core.events import Outcome, Transition
from breaker_store.core.rebuild import rebuild
from breaker_store.core.state import BreakerState
from breaker_store.postgres import loading
from breaker_store.postgres.codec import microseconds
from tests.postgres.living import QUICK, USER, fail, ok, timeless, trip
from tests.postgres.processes import (
    POLICY,
    Process,
    databases,
    live_through,
    one_process,
    run,
    two_processes,
)
from tests.postgres.stored import contradicting_batches, read_events


async def state_at_start_up(connection: asyncpg.Connection, user_id: int) -> BreakerState | None:
    snapshot = await loading.read_all(connection, POLICY)
    breakers = [*snapshot.breakers, *(loading.read_clean(row, POLICY) for row in snapshot.clean)]
    found = {stored.user_id: stored.state for stored in breakers}
    return BreakerState(POLICY) if user_id in snapshot.untouched else found.get(user_id)


@databases
@given(history=one_process)
@example(history=run("0fail 0fail"))
@example(history=run("0fail 0succeed 0fail"))
@example(history=run("0fail 0send 0restart 0fail 0send 0restart"))
@example(history=run("0fail 0fail 0fail 0wait 0succeed"))
@example(history=run("0fail 0fail 0fail 0wait 0succeed 0restart 0succeed 0fail"))
@example(history=run("0fail 0set_policy 0fail 0restart 0fail 0fail"))
@example(history=run("0fail 0fail 0fail 0reset 0fail"))
async def test_the_state_after_a_restart_is_the_live_one_and_what_the_events_mean(
    processes: list[Process], connection: asyncpg.Connection, history: list[tuple[int, str]]
) -> None:
    user_id = await live_through(processes[:1], history)
    live = processes[0].writer.breaker(user_id).state
    events = await read_events(connection, user_id)
    at_start_up = await state_at_start_up(connection, user_id)
    stored = await loading.read_breaker(connection, user_id, POLICY)
    if not events:
        assert at_start_up is stored is None
        return
    assert at_start_up is not None
    assert stored is not None
    assert (
        timeless(at_start_up) == timeless(stored.state) == timeless(rebuild(POLICY, events)) == timeless(live)
    )


@databases
@given(history=two_processes)
@example(history=run("0fail 1fail 0send 1send 0succeed 0send 1fail 1send"))
@example(history=run("0fail 0send 1restart 1succeed 1send 0fail 0send"))
@example(history=run("0fail 1fail 1send 0send 0wait 1wait 1succeed 1send"))
@example(history=run("0set_policy 1set_policy 0send 1fail 1fail 1send"))
@example(history=[(0, "fail"), (0, "carry_over"), (0, "succeed"), (1, "hear"), (0, "fail")])
async def test_whoever_wrote_it_the_state_at_start_up_is_what_the_events_mean(
    processes: list[Process], connection: asyncpg.Connection, history: list[tuple[int, str]]
) -> None:
    user_id = await live_through(processes, history)
    events = await read_events(connection, user_id)
    at_start_up = await state_at_start_up(connection, user_id)
    if not events:
        assert at_start_up is None
        return
    assert at_start_up is not None
    assert without_last_failure(at_start_up) == without_last_failure(rebuild(POLICY, events))


def without_last_failure(state: BreakerState) -> BreakerState:
    return replace(timeless(state), last_failure=None)


async def test_the_last_failure_at_start_up_is_the_last_one_that_counted_whoever_saw_it(
    processes: list[Process], connection: asyncpg.Connection
) -> None:
    history = "0fail 0send 1restart 0wait 0fail 0send 1wait 1wait 1wait 1succeed 1send"
    user_id = await live_through(processes, run(history))
    at_start_up = await state_at_start_up(connection, user_id)
    assert at_start_up is not None
    assert timeless(at_start_up) == timeless(rebuild(POLICY, await read_events(connection, user_id)))


@databases
@given(history=two_processes)
@example(history=run("0fail 1fail 0send 1send 0succeed 0send 1fail 1send"))
@example(history=run("0fail 0send 1restart 1succeed 1send 0fail 0send"))
async def test_the_bound_of_a_count_may_be_early_and_is_never_late(
    processes: list[Process], connection: asyncpg.Connection, history: list[tuple[int, str]]
) -> None:
    user_id = await live_through(processes, history)
    row = await connection.fetchrow("SELECT * FROM breaker_states WHERE user_id = $1", user_id)
    events = await read_events(connection, user_id)
    if row is None or row["state"] != 0:
        return
    bound = None if row["tail_from"] is None else microseconds(row["tail_from"])
    kept = [
        event
        for event in events
        if isinstance(event, Transition) or (bound is not None and event.at >= bound)
    ]
    assert failures_in_a_row(kept) == failures_in_a_row(events)


def failures_in_a_row(events: list[Outcome | Transition]) -> int:
    return rebuild(POLICY, events).failure_count


@databases
@given(history=two_processes)
async def test_the_chain_of_a_breaker_has_no_gap_and_each_link_follows_the_one_before(
    processes: list[Process], connection: asyncpg.Connection, history: list[tuple[int, str]]
) -> None:
    user_id = await live_through(processes, history)
    chain = sorted(
        (event for event in await read_events(connection, user_id) if isinstance(event, Transition)),
        key=lambda transition: transition.version,
    )
    before = None
    for version, link in enumerate((link for link in chain if link.position is not None), start=1):
        assert (link.version, link.follows) == (version, before)
        before = link.event_id
    last = await connection.fetchval("SELECT last FROM log_position")
    assert last == await connection.fetchval("SELECT count(position) FROM breaker_transitions")
    assert await connection.fetchval("SELECT coalesce(max(position), 0) FROM breaker_transitions") == last


async def test_what_is_stored_of_a_long_history_is_what_was_sent(
    processes: list[Process], connection: asyncpg.Connection
) -> None:
    for _ in range(3):
        await live_through(
            processes, run("0fail 1fail 0fail 0fail 0send 1fail 1send 1wait 0wait 0succeed 0succeed")
        )
    assert await contradicting_batches(connection) == []


async def test_a_breaker_that_recovered_after_a_restart_is_clean_again(
    processes: list[Process], connection: asyncpg.Connection
) -> None:
    """Else every restart would leave a few more whose tail has to be read at each start-up."""
    for number in range(3):
        history = (
            "0fail 0restart 0succeed 0wait 0succeed" if number < 2 else "0fail 1restart 1fail 1succeed 0wait"
        )
        await live_through(processes, run(history))
    assert await connection.fetchval("SELECT count(*) FROM breaker_states WHERE tail_from IS NOT NULL") == 0


TAMPERED = {
    "its version": "version = 0",
    "a version to come": "version = version + 1",
    "its state": "state = 0, tail_from = NULL",
    "its era": "era = era + 1",
    "its generation": "generation = generation + 1",
    "its last transition": "last_writer_seq = last_writer_seq + 1",
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
async def test_a_row_that_contradicts_the_log_is_put_right_at_start_up_and_said(
    database_url: str, connection: asyncpg.Connection, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        await trip(store.registry.get_breaker(USER))
        await trip(store.registry.get_breaker(USER + 1))
    row = await connection.fetchrow("SELECT * FROM breaker_states WHERE user_id = $1", USER)
    await connection.execute(f"UPDATE breaker_states SET {change} WHERE user_id = $1", USER)
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        expected = timeless(rebuild(QUICK, await read_events(connection, USER)))
        assert timeless(store.registry.get_breaker(USER).state) == expected
        store.registry.get_breaker(USER).reset()
        await store.flush()
        assert await connection.fetchval("SELECT count(position) FROM breaker_transitions") == 3
    assert f"row of breaker {USER} " in caplog.text
    assert f"row of breaker {USER + 1} " not in caplog.text
    assert row["state"] == 1


async def test_a_row_that_is_open_without_a_transition_is_put_right_at_start_up(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        await fail(store.registry.get_breaker(USER))
    await connection.execute("UPDATE breaker_states SET state = 1, tail_from = NULL")
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        expected = timeless(rebuild(QUICK, await read_events(connection, USER)))
        assert timeless(store.registry.get_breaker(USER).state) == expected


async def test_a_row_that_is_put_right_counts_what_happened_since(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        store.registry.get_breaker(USER).reset()
        await fail(store.registry.get_breaker(USER))
    await connection.execute("UPDATE breaker_states SET version = 0, tail_from = NULL")
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        state = store.registry.get_breaker(USER).state
        assert (state.state, state.version, state.failure_count) == (CircuitState.CLOSED, 1, 1)
        await store.registry.get_breaker(USER).call(ok)
        await store.flush()
    events = await read_events(connection, USER)
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        assert timeless(store.registry.get_breaker(USER).state) == timeless(rebuild(QUICK, events))
