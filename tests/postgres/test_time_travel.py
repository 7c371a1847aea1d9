"""Time travel equals a replay up to that instant, for any history and instant."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from breaker_store import CircuitState, Policy
from breaker_store.core.events import Kind, StoredEvent
from breaker_store.core.policy import MICROSECONDS
from breaker_store.core.rebuild import rebuild
from breaker_store.errors import UnknownBreakerError
from breaker_store.postgres import time_travel
from breaker_store.postgres.codec import to_datetime
from breaker_store.postgres.horizon import FutureError
from tests.core.scenario import Scenario
from tests.core.writers import DEFAULT
from tests.depth import DEPTH
from tests.postgres.histories import OWN, START, STEPS, Past, Processes, asking, outcome, run

OLD_USER, USER = 1, 101
USERS = itertools.count(1_000)

databases = settings(
    max_examples=30 * DEPTH,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

histories = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(STEPS)), min_size=8, max_size=60)


@pytest.fixture
async def old(past: Past) -> int:
    """Past an outcome from before all others, so that the log reaches back to every one of them."""
    await past.store(OLD_USER, [outcome(Kind.SUCCESS, START - 86_400 * MICROSECONDS)])
    return OLD_USER


def up_to(events: Sequence[StoredEvent], at: int) -> list[StoredEvent]:
    return [event for event in events if event.at <= at]


def instants(events: Sequence[StoredEvent]) -> Iterator[int]:
    """Give each event's time, the one before it, and one after all of them."""
    for at in sorted({event.at for event in events}):
        yield at - 1
        yield at
    yield max((event.at for event in events), default=START) + 3_600 * MICROSECONDS


@databases
@given(history=histories, skew_us=st.sampled_from([0, 1, 700_000, 1_500_000]))
@example(history=run("0trip 0share 0probe 0end 0succeed 0fail 0share"), skew_us=0)
@example(history=run("0fail 0succeed 0fail 1fail 0share 1share"), skew_us=0)
@example(history=run("0trip 0share 0probe 0set_policy 0end 0fail 0set_policy 0share"), skew_us=0)
@example(history=run("0trip 1trip 1share 0succeed 0share 2probe 2end 2share"), skew_us=1_500_000)
@example(history=run("1trip 1share 0reset 0share 0fail 0share"), skew_us=1_500_000)
@example(
    history=run("0reset 0share 1fail 1trip 1share 0set_policy 0share 0set_policy 0share"), skew_us=1_500_000
)
@example(history=run("0trip 0probe 0end 0share 2fail 2set_policy 2share 1fail 1share"), skew_us=1_500_000)
@example(
    history=run("0reset 0share 1fail 1send 0set_policy 1set_policy 1send 0send 0set_policy 0share"),
    skew_us=1_500_000,
)
@example(history=run("0fail 0rest 0set_policy 0share"), skew_us=0)
@example(history=run("0set_policy 1set_policy 0share 1fail 1share"), skew_us=700_000)
async def test_time_travel_equals_a_replay_up_to_that_instant(
    past: Past,
    old: int,
    connection: asyncpg.Connection,
    history: list[tuple[int, str]],
    skew_us: int,
) -> None:
    user_id = next(USERS)
    events = Processes(user_id, skew_us).live_through(history)
    await past.store(user_id, events)
    await falsify_rows(connection)
    async with connection.transaction():
        for at in instants(events):
            expected = up_to(events, at)
            found = await time_travel.read_breaker_at(connection, user_id, to_datetime(at))
            if not expected:
                assert found is None
                continue
            assert found is not None
            state = found.state
            assert state == rebuild(state.policy, expected).without_calls_in_flight()
            assert state.policy == (OWN if state.policy_is_own else DEFAULT)


async def falsify_rows(connection: asyncpg.Connection) -> None:
    """Have the rows of states say what is not so: nothing may come of it."""
    await connection.execute("""
        UPDATE breaker_states SET
            state = 2, version = 77, generation = 9, era = 9, failure_count = 99, success_count = 99, since = now(),
            tail_from = now(), policy_is_own = false, policy = '{"failure_threshold": 2, "timeout_seconds": 1.0,
            "success_threshold": 1, "half_open_max_calls": 2, "counted_errors": null, "ignored_errors": []}'
    """)


@settings(databases, max_examples=15 * DEPTH)
@given(
    fleet=st.lists(histories, min_size=1, max_size=4),
    skew_us=st.sampled_from([0, 1_500_000]),
    number=st.integers(0, 10**6),
)
async def test_the_summary_at_an_instant_is_that_of_a_replay_of_every_breaker(
    past: Past,
    old: int,
    connection: asyncpg.Connection,
    database_url: str,
    fleet: list[list[tuple[int, str]]],
    skew_us: int,
    number: int,
) -> None:
    for history in fleet:
        user_id = next(USERS)
        await past.store(user_id, Processes(user_id, skew_us).live_through(history))
    await falsify_rows(connection)
    times = list(instants([event for events in past.histories.values() for event in events]))
    at = max(times[number % len(times)], START - 86_400 * MICROSECONDS)
    async with asking(database_url) as ask:
        found = await time_travel.summary_at(ask, to_datetime(at))
    states = {
        user_id: rebuild(DEFAULT, kept).state
        for user_id, events in past.histories.items()
        if (kept := up_to(events, at))
    }
    open_ids, half_open_ids = (
        sorted(user_id for user_id, state in states.items() if state is wanted)
        for wanted in (CircuitState.OPEN, CircuitState.HALF_OPEN)
    )
    assert (found.open_user_ids, found.half_open_user_ids) == (open_ids, half_open_ids)
    assert (found.total_breakers, found.open, found.half_open) == (
        len(states), len(open_ids), len(half_open_ids),
    )  # fmt: skip
    assert found.closed == found.total_breakers - found.open - found.half_open


def begin(policy: Policy = DEFAULT) -> Scenario:
    """Begin a history of one process, at START."""
    breaker = Scenario(policy, writer=77)
    breaker.now = START
    return breaker


async def travel(database_url: str, at: int, user_id: int = USER) -> dict[str, object]:
    async with asking(database_url) as ask:
        return dict((await time_travel.read_standing_at(ask, user_id, to_datetime(at))).state)


async def test_the_wait_that_is_shown_is_what_was_left_of_it_at_the_instant(
    past: Past, old: int, database_url: str
) -> None:
    breaker = begin(Policy(failure_threshold=1, timeout_seconds=60)).fail()
    await past.store(USER, breaker.stored, breaker.default_policy)
    for seconds, remaining in [(0, 60.0), (59.5, 0.5), (60, 0.0), (86_400, 0.0)]:
        shown = await travel(database_url, START + round(seconds * MICROSECONDS))
        assert shown == {
            "state": "open",
            "failure_count": 1,
            "success_count": 0,
            "failure_threshold": 1,
            "success_threshold": 2,
            "timeout_seconds": 60.0,
            "timeout_remaining": remaining,
            "last_failure_time": START / MICROSECONDS,
        }


async def test_a_user_is_unknown_up_to_the_first_event(past: Past, old: int, database_url: str) -> None:
    breaker = begin().succeed()
    await past.store(USER, breaker.stored)
    assert (await travel(database_url, START))["state"] == "closed"
    with pytest.raises(UnknownBreakerError, match="user 101 at 2024-03-01T23:59:57") as unknown:
        await travel(database_url, START - 1)
    assert (unknown.value.user_id, unknown.value.at) == (USER, to_datetime(START - 1))
    with pytest.raises(UnknownBreakerError, match="user 404 "):
        await travel(database_url, START, user_id=404)


async def test_a_user_is_known_by_an_event_that_means_nothing_for_the_state(
    past: Past, old: int, database_url: str
) -> None:
    await past.store(USER, [outcome(Kind.REJECTED, START)])
    assert (await travel(database_url, START))["state"] == "closed"
    async with asking(database_url) as ask:
        assert (await time_travel.summary_at(ask, to_datetime(START))).closed == 2
        assert (await time_travel.summary_at(ask, to_datetime(START - 1))).closed == 1


async def test_of_what_is_yet_to_come_nothing_is_known(
    past: Past, old: int, database_url: str, connection: asyncpg.Connection
) -> None:
    now = await connection.fetchval("SELECT clock_timestamp()")
    async with asking(database_url) as ask:
        await time_travel.summary_at(ask, now)
        with pytest.raises(FutureError, match="is yet to come"):
            await time_travel.summary_at(ask, now + timedelta(hours=1))
        with pytest.raises(FutureError):
            await time_travel.read_standing_at(ask, OLD_USER, datetime(9999, 12, 31, tzinfo=UTC))


@pytest.mark.parametrize(
    ("own_later", "threshold"), [(False, DEFAULT.failure_threshold), (True, Policy().failure_threshold)]
)
async def test_before_the_first_transition_a_policy_that_was_set_later_is_not_shown(
    past: Past, old: int, database_url: str, own_later: bool, threshold: int
) -> None:
    breaker = begin().succeed().wait(1)
    if own_later:
        breaker.change_policy(OWN)
    await past.store(USER, breaker.stored)
    assert (await travel(database_url, START))["failure_threshold"] == threshold


async def test_the_policy_shown_is_that_of_the_last_transition_then(
    past: Past, old: int, database_url: str
) -> None:
    breaker = begin().change_policy(OWN).wait(1).change_policy(Policy(failure_threshold=9))
    await past.store(USER, breaker.stored)
    assert (await travel(database_url, START))["failure_threshold"] == OWN.failure_threshold
    assert (await travel(database_url, START + MICROSECONDS))["failure_threshold"] == 9


async def test_a_transition_of_a_newer_version_is_passed_over_and_said(
    past: Past,
    old: int,
    database_url: str,
    connection: asyncpg.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await past.store(USER, begin(Policy(failure_threshold=1)).fail().stored)
    await connection.execute(
        "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, position, generation, era, version,"
        " kind, details, details_version) VALUES ($1, $2, 9, 1, 99, 2, 5, 2, 42, '{}', 7)",
        to_datetime(START + MICROSECONDS),
        USER,
    )
    assert (await travel(database_url, START + MICROSECONDS))["state"] == "open"
    assert "kind 42" in caplog.text
    async with asking(database_url) as ask:
        assert (await time_travel.summary_at(ask, to_datetime(START + MICROSECONDS))).open_user_ids == [USER]


async def test_a_summary_names_at_most_a_thousand_of_each_state(
    past: Past, old: int, database_url: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO breaker_states (user_id) SELECT -who FROM generate_series(1, 1001) AS who"
    )
    await connection.execute(
        "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, position, generation, era, version,"
        " kind, details, details_version)"
        " SELECT $1, -who, 9, who, who, 1, 1, 1, 10, '{}', 1 FROM generate_series(1, 1001) AS who",
        to_datetime(START),
    )
    async with asking(database_url) as ask:
        found = await time_travel.summary_at(ask, to_datetime(START))
    assert (found.total_breakers, found.open, found.ids_truncated) == (1_002, 1_001, True)
    assert found.open_user_ids == list(range(-1_001, -1))
