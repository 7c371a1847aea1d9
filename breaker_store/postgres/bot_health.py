"""How one bot is: by the outcomes of its calls, its breaker, and whether somebody suspended it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.buckets import Bucket, Span
from breaker_store.core.health import (
    DEFAULT_THRESHOLDS,
    MINUTE_US,
    Judgement,
    Tally,
    judge,
    says_too_fast,
)
from breaker_store.core.state import BreakerState
from breaker_store.errors import UnknownBreakerError
from breaker_store.postgres import loading
from breaker_store.postgres.bot_tallies import BotTallies
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.explaining_sql import IS_SUCCESS, LAST_SUCCESS, NOW
from breaker_store.postgres.health_history import figures
from breaker_store.postgres.reading import driver_connection_of
from breaker_store.postgres.rolled_up import read_rolled_up

_NOTHING: Final = Tally()

# Within the window alone, so that it ends early.
_LAST: Final = {
    what: f"""
        SELECT occurred_at, error_type FROM breaker_outcomes
        WHERE user_id = $1 AND occurred_at >= $2 AND occurred_at < $3 AND {condition}
        ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC
        LIMIT 1
    """
    for what, condition in {"call": "kind IN (1, 2)", "failure": "kind = 2", "success": IS_SUCCESS}.items()
}


@dataclass(frozen=True, slots=True)
class BotHealth:
    """How a bot is, by the outcomes of the window: the minute that runs and the whole ones before it.

    Attributes:
        findings: what made the status, worst first; empty if it is healthy.
        as_of: the end of the window.
        error_rate: failures among the calls that were made, 0 to 1; None if none was.
        average_ms: how long calls took, each weighing 0.3 of what is told after it.
        consecutive_failures: up to now, within the window.
        last_success_at: also before the window, within the last 20,000 outcomes; that calls come too fast is no success.
        last_failure_at, last_error_type: before the window, of the last failure that the breaker counted.
        is_rate_limited: whether the last call was answered that calls come too fast.
        suspended_at, suspended_by, suspension_reason: None if it is not suspended.

    """

    user_id: int
    status: str
    findings: list[str]
    breaker_state: str
    as_of: datetime
    window_begins_at: datetime
    window_minutes: int
    total_requests: int
    successful_requests: int
    failed_requests: int
    refused_requests: int
    error_rate: float | None
    average_ms: float | None
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    consecutive_failures: int
    last_success_at: datetime | None
    last_failure_at: datetime | None
    last_error_type: str | None
    is_rate_limited: bool
    error_types: dict[str, int]
    suspended_at: datetime | None
    suspended_by: str | None
    suspension_reason: str | None


@dataclass(frozen=True, slots=True)
class _Latest:
    """The last of each; times are of the database's clock."""

    success_at: datetime | None
    failure_at: datetime | None
    error_type: str | None
    is_rate_limited: bool


async def bot_health(connection: AsyncConnection | Connection, user_id: int) -> BotHealth:
    """Tell how a bot is now.

    Raises:
        UnknownBreakerError: nothing is stored of this user.

    """
    driver_connection = await driver_connection_of(connection)
    stored = await loading.read_breaker(driver_connection, user_id, None)
    if stored is None:
        raise UnknownBreakerError(user_id)
    now = microseconds(await driver_connection.fetchval(NOW))
    window = Span(DEFAULT_THRESHOLDS.window_begin(now), Bucket.MINUTE.begin(now) + MINUTE_US)
    tally = await read_window(driver_connection, user_id, now, window)
    latest = await _read_latest(driver_connection, user_id, window, tally, stored.state)
    return _describe(user_id, stored.state, now, tally, latest)


async def read_window(connection: Connection, user_id: int, now: int, window: Span) -> Tally:
    """Add up a bot's outcomes within a span of whole minutes, up to now."""
    rolled_up = await read_rolled_up(connection, now, window)
    minutes = await BotTallies(connection, user_id, rolled_up).read(Bucket.MINUTE, window)
    return sum((minutes[start] for start in sorted(minutes)), start=_NOTHING)


async def _read_latest(
    connection: Connection, user_id: int, window: Span, tally: Tally, state: BreakerState
) -> _Latest:
    since, until = to_datetime(window.begin), to_datetime(window.end)

    async def last(what: str) -> asyncpg.Record | None:
        return await connection.fetchrow(_LAST[what], user_id, since, until)

    success = await last("success") if tally.successes else None
    success = success or await connection.fetchrow(LAST_SUCCESS, user_id, since)
    call = await last("call") if tally.calls else None
    failure_at, error_type = _counted_failure(state)
    if tally.failures and (failure := await last("failure")):
        failure_at, error_type = failure
    return _Latest(
        success_at=success and success["occurred_at"],
        failure_at=failure_at,
        error_type=error_type,
        is_rate_limited=call is not None and says_too_fast(call["error_type"]),
    )


def _counted_failure(state: BreakerState) -> tuple[datetime | None, str | None]:
    failure = state.last_failure
    return (None, None) if failure is None else (to_datetime(failure.at), failure.error_type)


def _describe(user_id: int, state: BreakerState, now: int, tally: Tally, latest: _Latest) -> BotHealth:
    judgement = judge_bot(tally, state)
    p50, p95, p99, error_types = figures(tally)[-4:]
    suspension = state.suspension
    return BotHealth(
        user_id=user_id,
        status=judgement.status.value,
        findings=list(judgement.findings),
        breaker_state=state.state.value,
        as_of=to_datetime(now),
        window_begins_at=to_datetime(DEFAULT_THRESHOLDS.window_begin(now)),
        window_minutes=DEFAULT_THRESHOLDS.window_minutes,
        total_requests=tally.requests,
        successful_requests=tally.successes,
        failed_requests=tally.failures,
        refused_requests=tally.refusals,
        error_rate=tally.error_rate,
        average_ms=tally.average_ms,
        mean_ms=tally.mean_ms,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        consecutive_failures=tally.failure_run,
        last_success_at=latest.success_at,
        last_failure_at=latest.failure_at,
        last_error_type=latest.error_type,
        is_rate_limited=latest.is_rate_limited,
        error_types=error_types or {},
        suspended_at=None if suspension is None else to_datetime(suspension.at),
        suspended_by=None if suspension is None else suspension.actor,
        suspension_reason=None if suspension is None else suspension.reason,
    )


def judge_bot(tally: Tally, state: BreakerState) -> Judgement:
    return judge(
        error_rate=tally.error_rate,
        failure_run=tally.failure_run,
        mean_ms=tally.mean_ms,
        average_ms=tally.average_ms,
        state=state.state,
        is_suspended=state.suspension is not None,
    )
