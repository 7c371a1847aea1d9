"""How the processes' recording goes, and what is missing in the log: for whoever asks, from any process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import BigInteger, RowMapping, Select, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.ports import GapReason
from breaker_store.postgres import tables

SILENT_AFTER: Final = timedelta(seconds=15)
"""A recorder that has said nothing for so long, not even goodbye, has died or is cut off."""

RECORDERS_LIMIT: Final = 1_000
"""How many recorders are listed at most."""

DEFAULT_HOURS: Final = 24

_MICROSECONDS_IN_SECOND: Final = 1_000_000

Status: TypeAlias = Literal["recording", "silent", "ended"]


@dataclass(frozen=True, slots=True)
class GapItem:
    """What is missing in the log of one writer for one reason, as it counted it.

    Attributes:
        reason: in words; `reason-42` for one that this version doesn't know.
        first_at, last_at: it happened between them.
        events: how many are missing; the five after it say of which kinds.
        unknown: those of which nothing is known but their number.

    """

    reason: str
    first_at: datetime
    last_at: datetime
    events: int
    successes: int
    refusals: int
    failures: int
    transitions: int
    unknown: int


@dataclass(frozen=True, slots=True)
class RecorderItem:
    """How the recording of a process goes, as it said last.

    Attributes:
        writer_id: a run of a process; as in the ids of its events.
        status: `recording`; `silent`: it has not reported for 15 seconds and did not say goodbye; `ended`.
        durability: `behind`, `journaled` or `committed`.
        queued: events that wait in memory.
        spooled: events that wait on disk alone.
        flushed: events that are stored.
        set_aside: events that were put into a file, for a person to look at.
        lost: events that are nowhere, and `lost_why`.
        oldest_waiting_seconds: how long the oldest event that is not stored had waited; null if none did.
        gaps: what is missing in the log by now, by reason: also what was set aside.

    """

    writer_id: str
    host: str
    pid: int
    status: Status
    durability: str
    started_at: datetime
    reported_at: datetime
    queued: int
    spooled: int
    flushed: int
    set_aside: int
    lost: int
    lost_why: str | None
    oldest_waiting_seconds: float | None
    last_error: str | None
    gaps: list[GapItem]


@dataclass(frozen=True, slots=True)
class RecorderList:
    """Recorders, newest report first; `truncated` if there are more than 1,000."""

    recorders: list[RecorderItem]
    truncated: bool


async def recorders(connection: AsyncConnection, since_hours: int = DEFAULT_HOURS) -> RecorderList:
    """List the recorders that have reported in the last hours, or of whose events something was found missing."""
    rows = (await connection.execute(_select_recorders(since_hours))).mappings().all()
    shown = rows[:RECORDERS_LIMIT]
    gaps = await _gaps_by_writer(connection, [row["writer_id"] for row in shown])
    return RecorderList(
        [_recorder_item(row, gaps[row["writer_id"]]) for row in shown], truncated=len(rows) > len(shown)
    )


async def _gaps_by_writer(
    connection: AsyncConnection, writer_ids: Iterable[int]
) -> defaultdict[int, list[GapItem]]:
    gaps: defaultdict[int, list[GapItem]] = defaultdict(list)
    for row in (await connection.execute(_select_gaps(writer_ids))).mappings():
        gaps[row["writer_id"]].append(_gap_item(row))
    return gaps


def _select_recorders(since_hours: int) -> Select[Any]:
    columns, gaps = tables.recorders.c, tables.gaps.c
    since = func.now() - timedelta(hours=since_hours)
    found_missing = select(gaps.writer_id).where(
        gaps.writer_id == columns.writer_id, gaps.recorded_at >= since
    )
    is_silent = (columns.reported_at < func.now() - SILENT_AFTER).label("is_silent")
    return (
        select(tables.recorders, is_silent)
        .where(or_(columns.reported_at >= since, found_missing.exists()))
        .order_by(columns.reported_at.desc(), columns.writer_id)
        .limit(RECORDERS_LIMIT + 1)
    )


def _select_gaps(writer_ids: Iterable[int]) -> Select[Any]:
    columns = tables.gaps.c
    counts = (columns.successes, columns.refusals, columns.failures, columns.transitions, columns.unknown)
    return (
        select(
            columns.writer_id,
            columns.reason,
            func.min(columns.first_at).label("first_at"),
            func.max(columns.last_at).label("last_at"),
            *(cast(func.sum(count), BigInteger).label(count.name) for count in counts),
        )
        .where(columns.writer_id.in_(writer_ids))
        .group_by(columns.writer_id, columns.reason)
        .order_by(columns.writer_id, columns.reason)
    )


def _recorder_item(row: RowMapping, gaps: list[GapItem]) -> RecorderItem:
    waiting_us = row["oldest_waiting_us"]
    return RecorderItem(
        writer_id=str(row["writer_id"]),
        host=row["host"],
        pid=row["pid"],
        status="ended" if row["ended"] else "silent" if row["is_silent"] else "recording",
        durability=row["durability"],
        started_at=row["started_at"],
        reported_at=row["reported_at"],
        queued=row["queued"],
        spooled=row["spooled"],
        flushed=row["flushed"],
        set_aside=row["set_aside"],
        lost=row["lost"],
        lost_why=row["lost_why"],
        oldest_waiting_seconds=None if waiting_us is None else waiting_us / _MICROSECONDS_IN_SECOND,
        last_error=row["last_error"],
        gaps=gaps,
    )


def _in_words(reason: int) -> str:
    try:
        return GapReason(reason).in_words
    except ValueError:
        return f"reason-{reason}"


def _gap_item(row: RowMapping) -> GapItem:
    counts = {name: row[name] for name in ("successes", "refusals", "failures", "transitions", "unknown")}
    return GapItem(
        reason=_in_words(row["reason"]),
        first_at=row["first_at"],
        last_at=row["last_at"],
        events=sum(counts.values()),
        **counts,
    )
