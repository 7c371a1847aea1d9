"""How often a bot's calls were tried again, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.events import Kind
from breaker_store.core.retries import (
    DEFAULT_HOURS,
    FIRST_ATTEMPT,
    Attempts,
    Ending,
    Retries,
    add_up,
    read_ending,
)
from breaker_store.errors import UnknownBreakerError
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.reading import driver_connection_of

OUTCOMES_LIMIT: Final = 500_000
"""How many outcomes are looked at, the newest; they take a quarter of a second."""

ERRORS_LISTED: Final = 20

_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_NOW_IF_KNOWN: Final = "SELECT clock_timestamp() WHERE EXISTS (SELECT FROM breaker_states WHERE user_id = $1)"

# The last row is of all that was looked at, and so also tells whether that is all there is.
COUNT_ATTEMPTS: Final = """
SELECT attempt, kind, verdict, error_type, count(*) AS calls, min(occurred_at) AS since, grouping(kind) = 1 AS is_whole
FROM (
    SELECT occurred_at, kind, verdict, attempt, error_type FROM breaker_outcomes
    WHERE user_id = $1 AND occurred_at >= $2 AND occurred_at < $3
    ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC LIMIT $4
) AS newest
GROUP BY GROUPING SETS ((attempt, kind, verdict, error_type), ())
ORDER BY is_whole
"""


@dataclass(frozen=True, slots=True)
class AttemptItem:
    """The attempts with one number, 1 for first ones, and how they ended.

    Attributes:
        declined: the caller's fault, or the recipient's wish, such as a chat that is not found.
        rate_limited: answered that calls come too fast.

    """

    attempt: int
    calls: int
    succeeded: int
    declined: int
    rate_limited: int
    failed: int


@dataclass(frozen=True, slots=True)
class RetryError:
    """How many retries ended with a type of error."""

    error_type: str
    retries: int


@dataclass(frozen=True, slots=True)
class RetryStatistics:
    """How often a bot's calls were tried again from `since` up to `until`, without it, and what came of it.

    Attributes:
        is_cut: whether there were so many outcomes that only the newest were counted: `since` is then the first of them.
        first_attempts, retries: calls that were made, by which attempt they were; refused ones are none.
        retried_calls: how many calls were tried again, however often.
        recovered_calls: how many of these succeeded in the end.
        rate_limited: answers, to any attempt, that calls come too fast.
        attempts: by the number of the attempt, 1 first.
        errors: the types of error with which most retries ended, at most 20.

    """

    user_id: int
    since: datetime
    until: datetime
    is_cut: bool
    first_attempts: int
    retries: int
    retried_calls: int
    recovered_calls: int
    rate_limited: int
    attempts: list[AttemptItem]
    errors: list[RetryError]


async def retry_statistics(
    connection: AsyncConnection | Connection,
    user_id: int,
    *,
    hours: int = DEFAULT_HOURS,
    until: datetime | None = None,
    outcomes_limit: int = OUTCOMES_LIMIT,
) -> RetryStatistics:
    """Add up a bot's attempts of so many hours up to a time; None is now.

    Raises:
        UnknownBreakerError: nothing is stored of this user.

    """
    driver_connection = await driver_connection_of(connection)
    now = await driver_connection.fetchval(_NOW_IF_KNOWN, user_id)
    if now is None:
        raise UnknownBreakerError(user_id)
    end = now if until is None else until
    length = timedelta(hours=hours)
    begin = end - length if end - _EARLIEST > length else _EARLIEST
    *rows, whole = await driver_connection.fetch(COUNT_ATTEMPTS, user_id, begin, end, outcomes_limit)
    is_cut = whole["calls"] >= outcomes_limit
    return _describe(user_id, whole["since"] if is_cut else begin, end, is_cut, add_up(_read(rows)))


def _read(rows: list[asyncpg.Record]) -> Iterable[Attempts]:
    for row in rows:
        if row["kind"] in {Kind.SUCCESS, Kind.FAILURE}:
            ending = read_ending(row["kind"], row["verdict"], row["error_type"])
            yield Attempts(row["attempt"] or FIRST_ATTEMPT, ending, row["error_type"], row["calls"])


def _describe(
    user_id: int, since: datetime, until: datetime, is_cut: bool, retries: Retries
) -> RetryStatistics:
    errors = sorted(retries.errors.items(), key=lambda error: (-error[1], error[0]))
    return RetryStatistics(
        user_id=user_id,
        since=since,
        until=until,
        is_cut=is_cut,
        first_attempts=retries.first_attempts,
        retries=retries.retries,
        retried_calls=retries.retried_calls,
        recovered_calls=retries.recovered_calls,
        rate_limited=retries.rate_limited,
        attempts=[
            AttemptItem(attempt, endings.total(), *(endings[ending] for ending in Ending))
            for attempt, endings in retries.endings.items()
        ],
        errors=[RetryError(*error) for error in errors[:ERRORS_LISTED]],
    )
