"""The server adds minutes up as the fold does, and finds everybody who is not healthy."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some

from breaker_store.core.events import CircuitState, Kind
from breaker_store.core.health import Status, judge, tally
from breaker_store.postgres.fleet_judging import MERGED, STATUS_NUMBERS, judge_bots
from breaker_store.rolling_up import roll_up
from tests.postgres.rolling_up import FIRST_DAY, Stored, at, ensure_days, outcome, store

# Each example has a time of its own: the log can't be emptied.
EXAMPLES = itertools.count()
WINDOW_MINUTES = 15
USERS = range(1, 5)

calls = some.tuples(
    some.sampled_from(USERS),
    some.integers(0, WINDOW_MINUTES - 1),
    some.sampled_from([Kind.SUCCESS, Kind.SUCCESS, Kind.FAILURE, Kind.REJECTED]),
    some.none() | some.sampled_from([0, 1, 900_000, 1_000_000, 1_100_000, 2_999_999, 3_000_000, 9_000_000]),
)

databases = settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


async def live_through(
    connection: asyncpg.Connection, history: list[tuple[int, int, Kind, int | None]]
) -> tuple[datetime, dict[int, list[Stored]]]:
    """Store calls in a window and what was just before and after it, and roll up; give the window's begin and calls."""
    begin = FIRST_DAY + timedelta(minutes=30 * next(EXAMPLES))
    around = [(1, minute, Kind.FAILURE, 60_000_000) for minute in (-1, WINDOW_MINUTES)]
    made = [
        Stored(user_id, outcome(kind, at(begin, minute, number), duration_us))
        for number, (user_id, minute, kind, duration_us) in enumerate([*history, *around])
    ]
    await ensure_days(connection, [event.outcome.at for event in made])
    await store(connection, made)
    await roll_up(connection)
    by_user = {
        user_id: [each for each in made[: len(history)] if each.user_id == user_id] for user_id in USERS
    }
    return begin, by_user


@databases
@given(history=some.lists(calls, max_size=30))
async def test_minutes_that_the_server_adds_up_are_the_fold_of_their_events(
    connection: asyncpg.Connection, history: list[tuple[int, int, Kind, int | None]]
) -> None:
    begin, by_user = await live_through(connection, history)
    end = begin + timedelta(minutes=WINDOW_MINUTES)
    merged = {row["user_id"]: row for row in await connection.fetch(MERGED.format(which=""), begin, end)}
    assert set(merged) == {user_id for user_id, events in by_user.items() if events}
    for user_id, row in merged.items():
        whole = tally(event.outcome for event in by_user[user_id])
        for name in ("successes", "failures", "refusals", "duration_us", "first_duration_us", "failure_run"):
            assert row[name] == getattr(whole, name)
        assert row["timed"] == whole.durations.total
        assert row["weighted_us"] == pytest.approx(whole.weighted_us)
        assert row["weight_left"] == pytest.approx(whole.weight_left)


@databases
@given(
    history=some.lists(calls, max_size=30),
    states=some.lists(some.sampled_from([0, 0, 1, 2]), min_size=len(USERS), max_size=len(USERS)),
)
async def test_who_is_not_healthy_is_who_the_rules_say(
    connection: asyncpg.Connection, history: list[tuple[int, int, Kind, int | None]], states: list[int]
) -> None:
    await connection.executemany(
        "INSERT INTO breaker_states (user_id, state) VALUES ($1, $2)"
        " ON CONFLICT (user_id) DO UPDATE SET state = excluded.state",
        list(zip(USERS, states, strict=True)),
    )
    begin, by_user = await live_through(connection, history)
    until = begin + timedelta(minutes=WINDOW_MINUTES)
    async with connection.transaction():
        await judge_bots(connection, until)

    expected = {}
    for user_id, state in zip(USERS, states, strict=True):
        whole = tally(event.outcome for event in by_user[user_id])
        judgement = judge(
            error_rate=whole.error_rate,
            failure_run=whole.failure_run,
            mean_ms=whole.mean_ms,
            average_ms=whole.average_ms,
            state=[CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN][state],
            is_suspended=False,
        )
        if judgement.status is not Status.HEALTHY:
            expected[user_id] = (STATUS_NUMBERS[judgement.status], list(judgement.findings))
    rows = await connection.fetch("SELECT * FROM unhealthy_bots")
    assert {row["user_id"]: (row["status"], row["findings"]) for row in rows} == expected

    fleet = await connection.fetchrow("SELECT * FROM fleet_health")
    whole = tally(event.outcome for events in by_user.values() for event in events)
    statuses = [status for status, _ in expected.values()]
    assert (fleet["judged_at"], fleet["degraded"], fleet["unhealthy"], fleet["suspended"]) == (
        until,
        statuses.count(1),
        statuses.count(2),
        0,
    )
    for name in ("successes", "failures", "refusals", "duration_us"):
        assert fleet[name] == getattr(whole, name)
    assert fleet["timed_calls"] == whole.durations.total


async def test_a_status_is_kept_since_it_began(connection: asyncpg.Connection) -> None:
    begin, _ = await live_through(connection, [(1, 0, Kind.FAILURE, 1)])
    found = []
    for later in (1, 2):
        until = begin + timedelta(minutes=later)
        async with connection.transaction():
            await judge_bots(connection, until)
        found.append(await connection.fetchval("SELECT since FROM unhealthy_bots WHERE user_id = 1"))
    assert found == [begin + timedelta(minutes=1)] * 2


async def test_a_call_long_ago_in_a_very_busy_window_weighs_nothing(connection: asyncpg.Connection) -> None:
    """And is no error of the server's, which refuses to underflow."""
    history = [(1, minute, Kind.SUCCESS, 1_000) for minute in range(3) for _ in range(1_500)]
    begin, _ = await live_through(connection, [(1, 0, Kind.SUCCESS, 2**50), *history])
    end = begin + timedelta(minutes=WINDOW_MINUTES)
    [row] = await connection.fetch(MERGED.format(which=""), begin, end)
    average = row["weighted_us"] + row["weight_left"] * row["first_duration_us"]
    assert average == pytest.approx(1_000)
