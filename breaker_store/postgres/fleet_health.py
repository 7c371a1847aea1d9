"""How all bots are together, and which are not healthy: as the roll-ups judged them last, so it costs the same for any number.

Unlike one bot's health, which is told from its events as of now, this is as of a time that every answer says: the end of
the window by which the fleet was judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from sqlalchemy import BigInteger, RowMapping, Select, cast, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.health import DEFAULT_THRESHOLDS, Status, judge_fleet
from breaker_store.postgres import rollup_tables
from breaker_store.postgres.cursors import CursorError, read_cursor, write_cursor
from breaker_store.postgres.queries import DEFAULT_PAGE, Page

_UNHEALTHY_BOTS: Final = "unhealthy-bots"

_STATUSES: Final = {1: Status.DEGRADED, 2: Status.UNHEALTHY, 3: Status.SUSPENDED}


@dataclass(frozen=True, slots=True)
class FleetHealth:
    """How all bots are together.

    Attributes:
        overall: by the share of bots that are healthy: excellent from 90 %, good from 70 %, fair from 50 %, else poor.
        as_of: when they were judged: the end of the window.
        error_rate: failures among the calls of all bots that were made, 0 to 1; None if none was.
        mean_ms: how long they took; None if of none it is known.

    """

    overall: str
    as_of: datetime
    window_minutes: int
    bots: int
    healthy: int
    degraded: int
    unhealthy: int
    suspended: int
    total_requests: int
    successful_requests: int
    failed_requests: int
    refused_requests: int
    error_rate: float | None
    mean_ms: float | None


async def fleet_health(connection: AsyncConnection) -> FleetHealth | None:
    """Tell how all bots were when they were judged last; None if they never were."""
    row = (await connection.execute(select(rollup_tables.fleet_health))).mappings().one()
    return None if row["judged_at"] is None else _read_fleet(row)


async def judged_at(connection: AsyncConnection) -> datetime | None:
    """Tell when the bots were judged last; None if they never were."""
    at: datetime | None = await connection.scalar(select(rollup_tables.fleet_health.c.judged_at))
    return at


def _read_fleet(row: RowMapping) -> FleetHealth:
    healthy = row["bots"] - row["degraded"] - row["unhealthy"] - row["suspended"]
    calls, timed = row["successes"] + row["failures"], row["timed_calls"]
    return FleetHealth(
        overall=judge_fleet(healthy, row["bots"]).value,
        as_of=row["judged_at"],
        window_minutes=DEFAULT_THRESHOLDS.window_minutes,
        bots=row["bots"],
        healthy=healthy,
        degraded=row["degraded"],
        unhealthy=row["unhealthy"],
        suspended=row["suspended"],
        total_requests=calls + row["refusals"],
        successful_requests=row["successes"],
        failed_requests=row["failures"],
        refused_requests=row["refusals"],
        error_rate=row["failures"] / calls if calls else None,
        mean_ms=row["duration_us"] / timed / 1_000 if timed else None,
    )


_TABLE: Final = rollup_tables.unhealthy_bots


@dataclass(frozen=True, slots=True)
class UnhealthyCursor:
    """The bot that a page ended with: how bad it was, and whose it is."""

    place: tuple[int, int, int, int]

    def __str__(self) -> str:
        return write_cursor(_UNHEALTHY_BOTS, *self.place)

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `str` gave.

        Raises:
            CursorError: it is anything else.

        """
        rank, errors, failures, user_id = read_cursor(_UNHEALTHY_BOTS, text, 4)
        if rank is None or errors is None or failures is None or user_id is None:
            raise CursorError
        return cls((rank, errors, failures, user_id))


@dataclass(frozen=True, slots=True)
class UnhealthyBot:
    """A bot that is not healthy.

    Attributes:
        findings: what made the status, worst first.
        since: from which judgement on it has this status.
        error_rate, average_ms, mean_ms, consecutive_failures: see `BotHealth`.

    """

    user_id: int
    status: str
    findings: list[str]
    since: datetime
    error_rate: float | None
    average_ms: float | None
    mean_ms: float | None
    consecutive_failures: int


async def unhealthy_bots(
    connection: AsyncConnection, *, limit: int = DEFAULT_PAGE, after: UnhealthyCursor | None = None
) -> Page[UnhealthyBot, UnhealthyCursor]:
    """Give a page of the bots that are not healthy, worst first: unhealthy, then degraded, then suspended ones.

    They are judged anew every minute: one whose place changes while pages are read may be in none of them, or in two.
    """
    rows = (await connection.execute(select_unhealthy(limit, after))).mappings().all()
    items = rows[:limit]
    next_cursor = UnhealthyCursor(tuple(items[-1]["place"])) if len(rows) > len(items) else None
    return Page([_read_bot(row) for row in items], next_cursor)


def select_unhealthy(limit: int, after: UnhealthyCursor | None) -> Select[Any]:
    statement = select(_TABLE)
    if after is not None:
        statement = statement.where(_TABLE.c.place > cast(list(after.place), ARRAY(BigInteger)))
    return statement.order_by(_TABLE.c.place).limit(limit + 1)


def _read_bot(row: RowMapping) -> UnhealthyBot:
    return UnhealthyBot(
        user_id=row["user_id"],
        status=_STATUSES[row["status"]].value,
        findings=row["findings"],
        since=row["since"],
        error_rate=row["error_rate"],
        average_ms=row["average_ms"],
        mean_ms=row["mean_ms"],
        consecutive_failures=row["failure_run"],
    )
