"""Judges the fleet by the roll-ups of the last whole minutes, and keeps who is not healthy, and how many.

Most bots are healthy, and that takes no look at each: who had no failure and no slow call in the window, and whose breaker
is closed, can't be anything else. The minutes of all others are added up by the server, as `core.health.Tally` adds
them, and judged by `core.health.judge`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from breaker_store.core.buckets import Bucket
from breaker_store.core.health import DEFAULT_THRESHOLDS, WEIGHT, Judgement, Status, Thresholds, judge
from breaker_store.core.histogram import COUNT_BITS, COUNT_MASK, bucket_of
from breaker_store.postgres.codec import STATES
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.rollups import NUMBERS
from breaker_store.postgres.rollups_sql import NEGLIGIBLE_AFTER, bounded

STATUS_NUMBERS: Final = {Status.DEGRADED: 1, Status.UNHEALTHY: 2, Status.SUSPENDED: 3}

# So many are judged without a pause for the event loop.
_AT_ONCE: Final = 1_000

_LEFT = f"power({1 - WEIGHT}::float8, least({{calls}}, {NEGLIGIBLE_AFTER}))"

# $1 and $2: the window, of whole minutes. A call weighs less for each that came after it, in its minute and in later ones.
MERGED: Final = f"""
SELECT user_id,
    sum(successes)::bigint AS successes,
    sum(failures)::bigint AS failures,
    sum(refusals)::bigint AS refusals,
    {bounded("sum(duration_us)")}::bigint AS duration_us,
    sum(timed)::bigint AS timed,
    sum(weighted_us * {_LEFT.format(calls="timed_later")}) AS weighted_us,
    {_LEFT.format(calls="sum(timed)")} AS weight_left,
    (array_agg(first_duration_us ORDER BY started_at, drops) FILTER (WHERE timed > 0))[1] AS first_duration_us,
    coalesce(sum(failure_run) FILTER (WHERE successes_later = 0), 0)::bigint AS failure_run
FROM (
    SELECT *,
        coalesce(sum(timed) OVER later, 0)::bigint AS timed_later,
        coalesce(sum(successes) OVER later, 0) AS successes_later
    FROM (
        SELECT minute.*,
            (SELECT coalesce(sum(element & {COUNT_MASK}), 0)::bigint FROM unnest(durations) AS element) AS timed
        FROM minute_rollups AS minute
        WHERE started_at >= $1 AND started_at < $2 {{which}}
    ) AS timed
    WINDOW later AS (
        PARTITION BY user_id ORDER BY started_at DESC, drops DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
) AS weighed
GROUP BY user_id
"""

# $3: the first bucket of durations that is too long.
_SUSPECTS: Final = f"""
WITH suspect AS MATERIALIZED (
    SELECT user_id FROM minute_rollups
    WHERE started_at >= $1 AND started_at < $2
        AND (failures > 0 OR durations[cardinality(durations)] >> {COUNT_BITS} >= $3)
    UNION
    SELECT user_id FROM breaker_states WHERE state <> 0
)
SELECT suspect.user_id, coalesce(state, 0) AS state, coalesce(suspended, false) AS is_suspended, successes, failures, duration_us, timed,
    weighted_us, weight_left, first_duration_us, coalesce(failure_run, 0) AS failure_run
FROM suspect
LEFT JOIN ({MERGED.format(which="AND user_id IN (SELECT user_id FROM suspect)")}) AS merged USING (user_id)
LEFT JOIN breaker_states USING (user_id)
"""

_STORE: Final = """
INSERT INTO unhealthy_bots AS old (user_id, since, error_rate, mean_ms, average_ms, failure_run, status, findings)
SELECT user_id, $2, error_rate, mean_ms, average_ms, failure_run, status, findings
FROM jsonb_to_recordset($1) AS bot (
    user_id bigint, error_rate float8, mean_ms float8, average_ms float8, failure_run integer, status smallint,
    findings text[]
)
ORDER BY user_id
ON CONFLICT (user_id) DO UPDATE SET
    since = CASE WHEN old.status = excluded.status THEN old.since ELSE excluded.since END,
    error_rate = excluded.error_rate,
    mean_ms = excluded.mean_ms,
    average_ms = excluded.average_ms,
    failure_run = excluded.failure_run,
    status = excluded.status,
    findings = excluded.findings
WHERE (old.error_rate, old.mean_ms, old.average_ms, old.failure_run, old.status, old.findings) IS DISTINCT FROM
    (excluded.error_rate, excluded.mean_ms, excluded.average_ms, excluded.failure_run, excluded.status, excluded.findings)
"""

_RECOVERED: Final = """
DELETE FROM unhealthy_bots AS bot
WHERE NOT EXISTS (SELECT FROM unnest($1::bigint[]) AS judged (user_id) WHERE judged.user_id = bot.user_id)
"""

_STORE_FLEET: Final = f"""
UPDATE fleet_health SET (
    judged_at, bots, degraded, unhealthy, suspended, successes, failures, refusals, duration_us, timed_calls
) = (
    SELECT $2::timestamptz, (SELECT breakers FROM log_position), degraded, unhealthy, suspended, successes, failures,
        refusals, duration_us, timed_calls
    FROM (
        SELECT count(*) FILTER (WHERE status = 1) AS degraded, count(*) FILTER (WHERE status = 2) AS unhealthy,
            count(*) FILTER (WHERE status = 3) AS suspended
        FROM unhealthy_bots
    ) AS bots,
    (
        SELECT coalesce(sum(successes), 0) AS successes, coalesce(sum(failures), 0) AS failures,
            coalesce(sum(refusals), 0) AS refusals, {bounded("sum(duration_us)")} AS duration_us,
            coalesce(sum(timed_calls), 0) AS timed_calls
        FROM fleet_rollups
        WHERE bucket = {NUMBERS[Bucket.MINUTE]} AND started_at >= $1 AND started_at < $2
    ) AS sums
)
"""


async def judge_bots(
    connection: Connection, until: datetime, thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> None:
    """Judge everybody by the window that ends with a whole minute, and keep what was found, in the caller's transaction."""
    since = until - timedelta(minutes=thresholds.window_minutes)
    slow = bucket_of(int(min(thresholds.sustained_ms, thresholds.slow_ms) * 1_000))
    judged: list[int] = []
    chunk: list[Mapping[str, Any]] = []
    async for row in connection.cursor(_SUSPECTS, since, until, slow, prefetch=_AT_ONCE):
        bot = _judged(row, thresholds)
        if bot is not None:
            chunk.append(bot)
            judged.append(bot["user_id"])
        if len(chunk) == _AT_ONCE:
            await connection.execute(_STORE, json.dumps(chunk), until)
            chunk.clear()
    await connection.execute(_STORE, json.dumps(chunk), until)
    await connection.execute(_RECOVERED, judged)
    await connection.execute(_STORE_FLEET, since, until)


def _judged(row: asyncpg.Record, thresholds: Thresholds) -> dict[str, Any] | None:
    """Judge a bot; None if it is healthy."""
    calls = (row["successes"] or 0) + (row["failures"] or 0)
    facts = {
        "error_rate": row["failures"] / calls if calls else None,
        "mean_ms": row["duration_us"] / row["timed"] / 1_000 if row["timed"] else None,
        "average_ms": (row["weighted_us"] + row["weight_left"] * row["first_duration_us"]) / 1_000
        if row["timed"]
        else None,
        "failure_run": row["failure_run"],
    }
    judgement = judge(
        **facts, state=STATES[row["state"]], is_suspended=row["is_suspended"], thresholds=thresholds
    )
    if judgement.status is Status.HEALTHY:
        return None
    return {"user_id": row["user_id"], **facts, **_described(judgement)}


def _described(judgement: Judgement) -> dict[str, int | Sequence[str]]:
    return {"status": STATUS_NUMBERS[judgement.status], "findings": judgement.findings}
