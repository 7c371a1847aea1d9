"""Checks of what has to be done again and again: whether somebody rolls up, and drops what should be gone."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from breaker_store.core.retention import Kept
from breaker_store.diagnosis.finding import Finding, ok, warning
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.retention import list_due, read_policies

STALE_AFTER: Final = timedelta(hours=1)
"""A server rolls up once a minute; for so long nobody has."""

OVERDUE_AFTER: Final = timedelta(days=1)
"""A server drops once an hour what is due."""

_SOMEBODY: Final = "let a `breaker-store serve` run, or `breaker-store maintain` by a timer"

# Something is to be done that was there an hour ago, and nobody has come to the end of a run since.
_ROLLUPS: Final = """
SELECT rolled_up_at, rolled_up_at IS NOT NULL AND rolled_up_at >= now() - $1::interval AS is_recent, (
    EXISTS (SELECT FROM rollup_marks WHERE started_at < now() - $1::interval) OR EXISTS (
        SELECT FROM writer_batches
        WHERE recorded_at < now() - $1::interval AND event_count > 0 AND (
            snapshot IS NULL
            OR (xid >= pg_snapshot_xmin(snapshot) AND NOT pg_visible_in_snapshot(xid, snapshot))
        )
    )
) AS is_behind
FROM rollup_progress
"""

_TODAY: Final = "SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date"
_NOW: Final = "SELECT clock_timestamp()"


async def check_rollups(connection: Connection) -> Finding:
    """Tell whether somebody rolls up what is stored."""
    row = await connection.fetchrow(_ROLLUPS, STALE_AFTER)
    at = row["rolled_up_at"]
    since = "ever" if at is None else f"since {at:%Y-%m-%d %H:%M} UTC"
    if row["is_behind"] and not row["is_recent"]:
        return warning(
            "roll-ups",
            f"nobody has rolled up {since}: the fleet's health and its history stand still",
            _SOMEBODY,
        )
    return ok("roll-ups", "what was stored more than an hour ago is rolled up")


async def check_retention(connection: Connection) -> Finding:
    """Tell whether what the policies let go is dropped."""
    policies = await read_policies(connection)
    if not policies:
        return ok("retention", "everything is kept for ever: no policy is set")
    today, now = await connection.fetchval(_TODAY), await connection.fetchval(_NOW)
    overdue = [
        span
        for span in await list_due(connection)
        if policies[span.kind].set_at < now - OVERDUE_AFTER
        and span.last_day + timedelta(days=policies[span.kind].keep_days + 1) + OVERDUE_AFTER <= today
    ]
    if overdue:
        return warning(
            "retention",
            f"{len(overdue):,} days or months should be gone, the first of them the {overdue[0]}",
            f"{_SOMEBODY}; it tells what keeps them",
        )
    kinds = ", ".join(kind for kind in Kept if kind in policies)
    return ok("retention", f"what should be gone is gone; policies are set for {kinds}")


UPKEEP_CHECKS: Final = (check_rollups, check_retention)
