"""How many breakers and recorders there are, by what they do: at the same cost for any number of breakers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, get_args

from sqlalchemy import BigInteger, Row, Select, case, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.events import CircuitState
from breaker_store.postgres import tables
from breaker_store.postgres.recorders import DEFAULT_HOURS, SILENT_AFTER, Status

STATUSES: Final[tuple[Status, ...]] = get_args(Status)

_MICROSECONDS_IN_SECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class RecorderCounts:
    """What recorders of one status said last, added up; see `RecorderItem`.

    Attributes:
        oldest_waiting_seconds: the longest of them; 0 if nothing waits.

    """

    recorders: int = 0
    queued: int = 0
    spooled: int = 0
    set_aside: int = 0
    lost: int = 0
    oldest_waiting_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FleetCounts:
    """All breakers by state, and the recorders of the last 24 hours by status."""

    breakers: Mapping[CircuitState, int]
    recorders: Mapping[Status, RecorderCounts]


async def count_fleet(connection: AsyncConnection) -> FleetCounts:
    """Read the kept counts, and add up what the recorders reported."""
    reported = {row.status: row for row in await connection.execute(_select_recorders())}
    columns = tables.log_position.c
    kept = (
        await connection.execute(select(columns.breakers, columns.open_breakers, columns.half_open_breakers))
    ).one()
    closed = kept.breakers - kept.open_breakers - kept.half_open_breakers
    breakers = {
        CircuitState.CLOSED: closed,
        CircuitState.OPEN: kept.open_breakers,
        CircuitState.HALF_OPEN: kept.half_open_breakers,
    }
    return FleetCounts(breakers, {status: _counts(reported.get(status)) for status in STATUSES})


def _counts(row: Row[Any] | None) -> RecorderCounts:
    if row is None:
        return RecorderCounts()
    _, recorders, queued, spooled, set_aside, lost, waiting_us = tuple(row)
    waiting_seconds = (waiting_us or 0) / _MICROSECONDS_IN_SECOND
    return RecorderCounts(recorders, queued, spooled, set_aside, lost, waiting_seconds)


def _select_recorders() -> Select[Any]:
    columns = tables.recorders.c
    is_silent = columns.reported_at < func.now() - SILENT_AFTER
    status = case((columns.ended, "ended"), (is_silent, "silent"), else_="recording")
    sums = (columns.queued, columns.spooled, columns.set_aside, columns.lost)
    return (
        select(
            status.label("status"),
            func.count(),
            *(cast(func.sum(column), BigInteger) for column in sums),
            func.max(columns.oldest_waiting_us),
        )
        .where(columns.reported_at >= func.now() - timedelta(hours=DEFAULT_HOURS))
        .group_by("status")
    )
