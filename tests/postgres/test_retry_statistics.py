"""How often a bot's calls were tried again, from the log."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from breaker_store.core.events import EventId, Kind, Outcome, Permit, Verdict
from breaker_store.core.policy import MICROSECONDS
from breaker_store.core.retries import Attempts, Ending, add_up
from breaker_store.errors import UnknownBreakerError
from breaker_store.postgres.codec import to_datetime
from breaker_store.postgres.retry_statistics import (
    COUNT_ATTEMPTS,
    AttemptItem,
    RetryError,
    RetryStatistics,
    retry_statistics,
)
from tests.postgres.histories import START, Past, asking
from tests.postgres.test_plans import days_read, explain

USER, OTHER = 101, 102
HOUR = 3_600 * MICROSECONDS
END = START + 2 * HOUR
UNTIL = to_datetime(END)
ENDINGS = {
    Ending.SUCCEEDED: {"kind": Kind.SUCCESS},
    Ending.DECLINED: {"kind": Kind.SUCCESS, "error_type": "http.NotFound"},
    Ending.RATE_LIMITED: {
        "kind": Kind.SUCCESS,
        "error_type": "http.TooManyRequests",
        "verdict": Verdict.NOT_COUNTED,
    },
    Ending.FAILED: {"kind": Kind.FAILURE, "error_type": "TimeoutError"},
}


def attempts(*endings: Ending, at: int, seq: int, first: int = 1) -> list[Outcome]:
    """Make the attempts of one call, a second apart."""
    return [
        Outcome(
            event_id=EventId(7, seq + number),
            at=at + number * MICROSECONDS,
            permit=Permit(0, 0),
            attempt=None if first + number == 1 else first + number,
            **ENDINGS[ending],  # type: ignore[arg-type]
        )
        for number, ending in enumerate(endings)
    ]


@pytest.fixture
async def ask(database_url: str) -> AsyncIterator[object]:
    async with asking(database_url) as connection:

        async def ask(**options: Any) -> RetryStatistics:
            return await retry_statistics(connection, USER, **{"until": UNTIL} | options)

        yield ask


async def test_retries_are_told_by_attempt_and_by_what_they_ended_with(past: Past, ask) -> None:
    failed, limited = Ending.FAILED, Ending.RATE_LIMITED
    calls = [
        (Ending.SUCCEEDED,),
        (Ending.SUCCEEDED,),
        (failed, Ending.SUCCEEDED),
        (limited, failed, Ending.SUCCEEDED),
        (failed, failed, limited),
        (failed, Ending.DECLINED),
    ]
    outcomes: list[Outcome] = []
    for number, call in enumerate(calls):
        outcomes += attempts(*call, at=START + number * 60 * MICROSECONDS, seq=1 + len(outcomes))
    refused = Outcome(Kind.REJECTED, EventId(7, len(outcomes) + 1), START + HOUR, Permit(0, 0), count=5)
    await past.store(USER, [*outcomes, refused])
    await past.store(
        OTHER, [Outcome(Kind.FAILURE, EventId(8, 1), START, Permit(0, 0), error_type="OSError", attempt=2)]
    )

    assert await ask() == RetryStatistics(
        user_id=USER,
        since=UNTIL - timedelta(hours=24),
        until=UNTIL,
        is_cut=False,
        first_attempts=6,
        retries=6,
        retried_calls=4,
        recovered_calls=2,
        rate_limited=2,
        attempts=[
            AttemptItem(1, 6, succeeded=2, declined=0, rate_limited=1, failed=3),
            AttemptItem(2, 4, succeeded=1, declined=1, rate_limited=0, failed=2),
            AttemptItem(3, 2, succeeded=1, declined=0, rate_limited=1, failed=0),
        ],
        errors=[
            RetryError("TimeoutError", 2),
            RetryError("http.NotFound", 1),
            RetryError("http.TooManyRequests", 1),
        ],
    )


async def test_only_the_time_that_was_asked_for_is_looked_at(past: Past, ask) -> None:
    just_before = attempts(Ending.FAILED, at=END - HOUR - 1, seq=1, first=2)
    first = attempts(Ending.FAILED, at=END - HOUR, seq=2, first=3)
    last = attempts(Ending.FAILED, at=END - 1, seq=3, first=4)
    at_the_end = attempts(Ending.FAILED, at=END, seq=4, first=5)
    await past.store(USER, [*just_before, *first, *last, *at_the_end])
    assert [item.attempt for item in (await ask(hours=1)).attempts] == [3, 4]


async def test_of_too_many_outcomes_the_newest_are_counted_and_since_when_is_told(past: Past, ask) -> None:
    outcomes = attempts(*[Ending.FAILED] * 6, at=START, seq=1)
    await past.store(USER, outcomes)
    found = await ask(outcomes_limit=4)
    assert [item.attempt for item in found.attempts] == [3, 4, 5, 6]
    assert (found.is_cut, found.since) == (True, to_datetime(outcomes[2].at))
    assert not (await ask(outcomes_limit=7)).is_cut


async def test_without_a_time_it_is_up_to_now(past: Past, ask, connection: asyncpg.Connection) -> None:
    await past.store(USER, attempts(Ending.SUCCEEDED, at=START, seq=1))
    before = await connection.fetchval("SELECT clock_timestamp()")
    found = await ask(until=None)
    assert found.until >= before
    assert (found.until - found.since, found.attempts, found.first_attempts) == (
        timedelta(hours=24), [], 0,
    )  # fmt: skip


async def test_the_beginning_of_time_is_the_earliest_that_is_asked_for(past: Past, ask) -> None:
    await past.store(USER, attempts(Ending.SUCCEEDED, at=START, seq=1))
    earliest = datetime.min.replace(tzinfo=UTC)
    found = await ask(until=earliest + timedelta(hours=1))
    assert (found.since, found.retries) == (earliest, 0)


async def test_of_an_unknown_user_nothing_is_told(ask) -> None:
    with pytest.raises(UnknownBreakerError):
        await ask()


@pytest.mark.parametrize("seed", range(2))
async def test_what_postgres_adds_up_is_the_fold_of_the_events(past: Past, ask, seed: int) -> None:
    chance = random.Random(seed)
    outcomes: list[Outcome] = []
    for _ in range(60):
        endings = chance.choices(list(Ending), k=chance.randint(1, 4))
        outcomes += attempts(*endings, at=START + len(outcomes) * MICROSECONDS, seq=1 + len(outcomes))
    await past.store(USER, outcomes)
    found, folded = await ask(), add_up(map(Attempts.of, outcomes))
    assert (found.first_attempts, found.retries) == (folded.first_attempts, folded.retries)
    assert (found.retried_calls, found.recovered_calls) == (folded.retried_calls, folded.recovered_calls)
    assert {error.error_type: error.retries for error in found.errors} == folded.errors
    assert found.rate_limited == folded.rate_limited


async def test_it_reads_a_users_own_rows_by_their_index_and_no_other_day(
    past: Past, connection: asyncpg.Connection
) -> None:
    for user_id in range(50):
        outcomes = attempts(*[Ending.SUCCEEDED] * 20, at=START - 40 * HOUR, seq=1 + 40 * user_id)
        outcomes += attempts(*[Ending.SUCCEEDED] * 20, at=START - HOUR, seq=21 + 40 * user_id)
        await past.store(user_id, outcomes)
    await connection.execute("ANALYZE breaker_events")
    nodes = await explain(
        connection, COUNT_ATTEMPTS, 7, to_datetime(START - 2 * HOUR), to_datetime(START), 100
    )
    scans = [node for node in nodes if "Relation Name" in node]
    assert {node["Node Type"] for node in scans} == {"Index Scan"}
    assert sum(node["Actual Rows"] for node in scans) == 20
    assert len(days_read(scans)) == 1
