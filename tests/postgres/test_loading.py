"""What is read at start-up is what the events mean, for any history (DESIGN rule 14)."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from breaker_store import BreakerStore, CircuitBreakerOpenError, CircuitState, Policy
from breaker_store.core.events import Outcome, Transition
from breaker_store.core.rebuild import rebuild
from breaker_store.core.state import BreakerState
from breaker_store.postgres import loading
from breaker_store.postgres.codec import microseconds
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import ManualClock
from tests.contract.writing import Writer
from tests.postgres.living import QUICK, USER, fail, ok, timeless, trip
from tests.postgres.stored import contradicting_batches, read_events

# Waits are short, so that the clocks of a test that takes none stay close to the database's.
WAIT_SECONDS = 0.0001
POLICY = Policy(failure_threshold=3, timeout_seconds=WAIT_SECONDS, success_threshold=2, half_open_max_calls=2)
OWN = Policy(failure_threshold=4, timeout_seconds=2 * WAIT_SECONDS, success_threshold=1)
USERS = itertools.count(1_000)

databases = settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

STEPS = ["succeed", "fail", "fail", "fail", "wait", "send", "send", "hear", "restart", "reset", "set_policy"]
steps = st.sampled_from(STEPS)
one_process = st.lists(st.tuples(st.just(0), steps), max_size=25)
two_processes = st.lists(st.tuples(st.integers(0, 1), steps), max_size=30)


def run(text: str) -> list[tuple[int, str]]:
    """Write a history shorter: the process's number and its step, divided by spaces."""
    return [(int(step[0]), step[1:]) for step in text.split()]


class Process:
    """One process among those that use a user's breaker; it can be started again."""

    def __init__(self, log: PostgresEventLog, clock: ManualClock, connection: asyncpg.Connection) -> None:
        self._log, self._clock, self._connection = log, clock, connection
        self.user_id = 0

    async def start(self, user_id: int) -> None:
        self.user_id = user_id
        self.writer = Writer(self._log, self._clock, POLICY)
        self.writer.follower.position = await self._connection.fetchval("SELECT last FROM log_position")
        stored = await self._log.read_breaker(user_id, POLICY)
        if stored is not None:
            self.writer.registry.take_over({user_id: self.writer.follower.to_live(stored)}, {})

    async def take(self, step: str) -> None:
        self._clock.advance(0.000001)
        actions: dict[str, Callable[[], Awaitable[None]]] = {
            "succeed": self.succeed,
            "fail": self.fail,
            "wait": self.wait,
            "send": self.send,
            "hear": self.hear,
            "restart": self.restart,
            "reset": self.reset,
            "set_policy": self.set_policy,
        }
        await actions[step]()

    async def succeed(self) -> None:
        with suppress(CircuitBreakerOpenError):
            await self.writer.succeed(self.user_id)

    async def fail(self) -> None:
        with suppress(CircuitBreakerOpenError):
            await self.writer.fail(self.user_id)

    async def wait(self) -> None:
        self._clock.advance(WAIT_SECONDS)

    async def send(self) -> None:
        if self.writer.journal.pending:
            await self.writer.send_and_settle()

    async def hear(self) -> None:
        await self.writer.follower.poll()

    async def restart(self) -> None:
        await self.send()
        await self.start(self.user_id)

    async def reset(self) -> None:
        self.writer.breaker(self.user_id).reset()

    async def set_policy(self) -> None:
        self.writer.registry.set_policy(self.user_id, OWN)


@pytest.fixture
async def processes(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[list[Process]]:
    """Make two processes, on clocks that stand still until a step says so."""
    async with AsyncExitStack() as opened:
        made = []
        for _ in range(2):
            clock = ManualClock(time.time_ns() // 1_000)
            log = PostgresEventLog(database_url, clock)
            opened.push_async_callback(log.close)
            await log.open()
            made.append(Process(log, clock, connection))
        yield made


async def live_through(processes: list[Process], history: list[tuple[int, str]]) -> int:
    """Lead a new user's breaker through a history, until all of it is stored."""
    user_id = next(USERS)
    for process in processes:
        await process.start(user_id)
    await live_on(processes, history)
    return user_id


async def live_on(processes: list[Process], history: list[tuple[int, str]]) -> None:
    for number, step in history:
        await processes[number].take(step)
    for process in processes:
        await process.send()


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
