"""The days of which the log has outcomes, or had: what the checks of the record look into.

Each day has a partition of its own. Rows in another one would be seen by who asks for a history, and not by a check that
goes from day to day; so that there is another one is a finding by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from breaker_store.postgres.codec import EPOCH, microseconds_sql
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.findings import Findings

DAY_LENGTH: Final = timedelta(days=1)

_DAYS: Final = r"""
SELECT inhrelid::regclass::text AS name, CASE
    WHEN ends[2]::timestamptz = ends[1]::timestamptz + interval '1 day'
        AND ends[1]::timestamptz = date_trunc('day', ends[1]::timestamptz, 'UTC')
    THEN (ends[1]::timestamptz AT TIME ZONE 'UTC')::date
END AS day
FROM pg_inherits
JOIN pg_class ON pg_class.oid = inhrelid
CROSS JOIN LATERAL regexp_match(
    pg_get_expr(relpartbound, inhrelid), '^FOR VALUES FROM \(''([^'']+)''\) TO \(''([^'']+)''\)$'
) AS ends
WHERE inhparent = 'breaker_outcomes'::regclass AND NOT inhdetachpending
ORDER BY name
"""

_OTHER_KINDS: Final = """
SELECT inhrelid::regclass::text AS name FROM pg_inherits
WHERE inhparent = 'breaker_events'::regclass AND NOT inhdetachpending
    AND inhrelid NOT IN ('breaker_outcomes'::regclass, 'breaker_transitions'::regclass)
ORDER BY name
"""

_LEDGER_DAYS: Final = f"""
SELECT DISTINCT {microseconds_sql("at")} / 86400000000 AS day
FROM writer_batches, LATERAL (VALUES (earliest), (latest)) AS bound (at)
"""

_DROPPED_DAYS: Final = "SELECT DISTINCT day FROM dropped_partitions"


@dataclass(frozen=True, slots=True)
class Day:
    """A UTC day of the log; one that was dropped may have a partition again, of what came late."""

    date: date
    has_partition: bool
    was_dropped: bool = False


@dataclass(frozen=True, slots=True)
class DroppedDays:
    """The days whose outcomes retention dropped, as the log itself says: no other day may lack any."""

    days: frozenset[date]

    @property
    def kept_from(self) -> date | None:
        """The day after the newest of them; None if none was dropped."""
        return max(self.days) + DAY_LENGTH if self.days else None

    def lacks(self, day: date) -> bool:
        return day in self.days

    def lacks_some(self, first: date, last: date) -> bool:
        """Tell whether a day from one to another was dropped, both included."""
        return any(first <= day <= last for day in self.days)


async def list_days(connection: Connection) -> list[Day]:
    """List the days that have a partition, or batches, or were dropped, in their order."""
    made = {row["day"] for row in await connection.fetch(_DAYS) if row["day"] is not None}
    named = {EPOCH.date() + row["day"] * DAY_LENGTH for row in await connection.fetch(_LEDGER_DAYS)}
    dropped = {row["day"] for row in await connection.fetch(_DROPPED_DAYS)}
    return [Day(date, date in made, date in dropped) for date in sorted(named | made | dropped)]


def dropped_days_of(days: Iterable[Day]) -> DroppedDays:
    return DroppedDays(frozenset(day.date for day in days if day.was_dropped))


async def check_partitions(connection: Connection, findings: Findings) -> None:
    """See that all events are where they are looked for."""
    strange = [row["name"] for row in await connection.fetch(_DAYS) if row["day"] is None]
    strange += [row["name"] for row in await connection.fetch(_OTHER_KINDS)]
    for name in strange:
        findings.add(f"the partition {name} is none of the log's own: what is in it belongs to no batch")
