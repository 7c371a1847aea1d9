"""Staged resets, for whoever asks for one, watches it or stops it, from any process.

What is staged is settled by one statement, as of one moment: a breaker that trips later is not in it. See
`core.staged_resets` for which breakers can be, and `staged_reset_queue` for how they are taken from it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, cast

from sqlalchemy import RowMapping, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.cleaning import clean_text, is_storable
from breaker_store.core.events import ENDINGS, TROUBLES, CircuitState, Kind
from breaker_store.core.staged_resets import (
    NOT_CLOSED,
    SAME_TROUBLE,
    Settlement,
    StagedResetState,
    clean_reason,
)
from breaker_store.errors import LogUnavailableError, StoreError, iso_utc
from breaker_store.postgres import tables
from breaker_store.postgres.codec import STATE_NUMBERS
from breaker_store.postgres.connecting import UNREACHABLE, Connection, connect, described
from breaker_store.postgres.reading import driver_connection_of
from breaker_store.postgres.stored_events import list_kinds

LARGEST: Final = 100_000
"""How many breakers one staged reset has at most."""

MOST_AT_ONCE: Final = 10
"""How many staged resets may be running: each keeps to its own rate, and has connections of its own."""

LIST_LIMIT: Final = 100
"""How many are listed at most."""

FAILURES_SHOWN: Final = 10

Status: TypeAlias = Literal["running", "stopped", "done"]

# The first trouble since the breaker was last well is the trip, however often it opened again since. What came last,
# beside probes that began and what changed nothing of it, tells whether a person opened it. Both are found by an index,
# however long the breaker has been broken. A trip comes before the opening in force, whose time stands in the row.
_MATCHED: Final = f"""
SELECT breaker.user_id, breaker.version
FROM breaker_states AS breaker
CROSS JOIN LATERAL (
    SELECT coalesce(max(version), 0) AS version FROM (
        SELECT version FROM breaker_transitions
        WHERE user_id = breaker.user_id AND position IS NOT NULL AND kind IN ({list_kinds(ENDINGS)})
        ORDER BY version DESC
        LIMIT 1
    ) AS last_ending
) AS well
CROSS JOIN LATERAL (
    SELECT kind, occurred_at FROM breaker_transitions
    WHERE user_id = breaker.user_id AND version > well.version AND position IS NOT NULL
        AND kind IN ({list_kinds(TROUBLES)})
    ORDER BY version
    LIMIT 1
) AS trip
CROSS JOIN LATERAL (
    SELECT kind FROM breaker_transitions
    WHERE user_id = breaker.user_id AND position IS NOT NULL
        AND kind NOT IN ({list_kinds(SAME_TROUBLE - {Kind.OPENED})})
    ORDER BY version DESC
    LIMIT 1
) AS newest
WHERE breaker.state <> 0 AND breaker.state = ANY($1::smallint[])
    AND ($2::text IS NULL OR breaker.trip_error = $2)
    AND ($3::timestamptz IS NULL OR breaker.opened_at >= $3 AND trip.occurred_at >= $3)
    AND trip.kind = {Kind.OPENED} AND newest.kind = {Kind.OPENED}
LIMIT {LARGEST + 1}
"""

_COUNT: Final = f"SELECT count(*) FROM ({_MATCHED}) AS matched"

_STAGE: Final = f"""
WITH matched AS MATERIALIZED ({_MATCHED}),
counted AS (
    SELECT count(*) AS matched,
        (SELECT count(*) FROM staged_resets WHERE state = {StagedResetState.RUNNING}) AS running
    FROM matched
),
staged AS (
    INSERT INTO staged_resets (filter, per_second, actor, reason, total)
    SELECT $4::jsonb, $5, $6, $7, matched FROM counted
    WHERE matched BETWEEN 1 AND {LARGEST} AND running < {MOST_AT_ONCE}
    RETURNING id
),
entered AS (
    INSERT INTO staged_reset_breakers (staged_reset_id, user_id, version)
    SELECT staged.id, matched.user_id, matched.version FROM staged, matched
)
SELECT matched, running, (SELECT id FROM staged) AS id FROM counted
"""

_STOP: Final = f"""
UPDATE staged_resets SET state = {StagedResetState.STOPPED}, stopped_by = $2, ended_at = clock_timestamp()
WHERE id = $1 AND state = {StagedResetState.RUNNING}
"""


class NotStagedError(StoreError):
    """Nothing was staged: no breaker is like that, or too many are, or too many staged resets are running.

    Attributes:
        matched: how many breakers are like that, counted up to one more than may be staged.

    """

    def __init__(self, matched: int) -> None:
        super().__init__(matched)
        self.matched = matched

    def __str__(self) -> str:
        if self.matched == 0:
            return "no breaker that an error opened is like that: there is nothing to reset"
        if self.matched > LARGEST:
            return f"more than {LARGEST:,} breakers are like that, which is the most for one staged reset: narrow it"
        return f"{MOST_AT_ONCE} staged resets are running, which is the most: wait for one, or stop one"


class UnknownStagedResetError(StoreError):
    """There is no staged reset of this number.

    Attributes:
        staged_reset_id: the number.

    """

    def __init__(self, staged_reset_id: int) -> None:
        super().__init__(staged_reset_id)
        self.staged_reset_id = staged_reset_id

    def __str__(self) -> str:
        return f"there is no staged reset {self.staged_reset_id}"


@dataclass(frozen=True, slots=True)
class StagedFilter:
    """Which breakers are reset: those that an error opened, and that are not closed.

    Attributes:
        error: the type of the error that tripped it, as it is written; None is any.
        since: that tripped from this time on, however often they opened again later; None is any time.
        states: open, half-open, or both.

    Raises:
        ValueError: neither error nor time is said (an option that was forgotten must not reset a whole fleet), or
            no state.

    """

    error: str | None = None
    since: datetime | None = None
    states: frozenset[CircuitState] = NOT_CLOSED

    def __post_init__(self) -> None:
        if self.error is None and self.since is None:
            raise ValueError("say which breakers: by error, by since when, or both")
        if not self.states or not self.states <= NOT_CLOSED:
            raise ValueError("only open and half-open breakers can be reset by a staged reset")

    def to_document(self) -> dict[str, Any]:
        since = None if self.since is None else iso_utc(self.since)
        return {"error": self.error, "since": since, "states": sorted(self.states)}

    def to_values(self) -> tuple[list[int], str | None, datetime | None]:
        return [STATE_NUMBERS[state] for state in self.states], self.error, self.since


@dataclass(frozen=True, slots=True)
class StagedResetItem:
    """How a staged reset stands.

    Attributes:
        underway: whether a process carries it out; one that is running and not underway waits for a server.
        filter: what was asked for.
        per_second: how many are reset in any second at most.
        total: how many breakers there were when it was staged.
        waiting: those that are left; of a stopped one they stay as they are.
        reset, moved_on, failed: what became of the others: moved_on are those that were passed over.
        remaining_seconds: until it is done, by its rate: a lower bound; 0 once it has ended.
        ended_at: when it was done or stopped, then also by whom.

    """

    id: int
    state: Status
    underway: bool
    filter: dict[str, Any]
    per_second: float
    total: int
    waiting: int
    reset: int
    moved_on: int
    failed: int
    remaining_seconds: float
    actor: str | None
    reason: str | None
    created_at: datetime
    ended_at: datetime | None
    stopped_by: str | None


@dataclass(frozen=True, slots=True)
class StagedResetFailure:
    """A breaker that could not be reset, and why."""

    user_id: int
    at: datetime
    error: str


async def count_matches(connection: AsyncConnection, wanted: StagedFilter) -> int:
    """Count the breakers that would be staged now, up to one more than may be; nothing is staged."""
    if not is_storable(wanted.error or ""):
        return 0
    driver_connection = await driver_connection_of(connection)
    return int(await driver_connection.fetchval(_COUNT, *wanted.to_values()))


async def stage_reset(
    database_url: str,
    wanted: StagedFilter,
    per_second: float,
    *,
    actor: str | None = None,
    reason: str | None = None,
) -> int:
    """Stage a reset of the breakers that are like that now; give its number.

    It is carried out by any process that runs `staged_reset.resetting`: every server of the admin API does. Secrets in
    `actor` and `reason` are hidden; `per_second` is from 0.1 to 100.

    Raises:
        NotStagedError: none is like that, or too many are, or too many staged resets are running.
        LogUnavailableError: the database is away; it may be staged nevertheless, if that was seen too late.

    """
    if not is_storable(wanted.error or ""):
        raise NotStagedError(0)
    document = json.dumps(wanted.to_document())
    who = None if actor is None else clean_text(actor)
    async with _writing(database_url) as connection:
        row = await connection.fetchrow(
            _STAGE, *wanted.to_values(), document, per_second, who, clean_reason(reason)
        )
    if row["id"] is None:
        raise NotStagedError(row["matched"])
    return int(row["id"])


async def stop_staged_reset(database_url: str, staged_reset_id: int, *, actor: str | None = None) -> None:
    """Stop a staged reset for good; nothing happens to one that has ended, or that there is not.

    Once this returns at most the breaker that is under way is still reset. It can't be resumed: stage another one,
    which leaves out what is closed by then.

    Raises:
        LogUnavailableError: the database is away; it may be stopped nevertheless, if that was seen too late.

    """
    async with _writing(database_url) as connection:
        await connection.execute(_STOP, staged_reset_id, None if actor is None else clean_text(actor))


@asynccontextmanager
async def _writing(database_url: str) -> AsyncIterator[Connection]:
    connection = await connect(database_url, writing=True)
    try:
        yield connection
        await connection.close()
    except UNREACHABLE as error:
        raise LogUnavailableError(described(error)) from error
    finally:
        connection.terminate()


async def staged_resets(connection: AsyncConnection) -> list[StagedResetItem]:
    """List the newest staged resets, at most 100 of them, newest first."""
    statement = _select_staged_resets().order_by(tables.staged_resets.c.id.desc()).limit(LIST_LIMIT)
    return [_read_item(row) for row in (await connection.execute(statement)).mappings()]


async def staged_reset(connection: AsyncConnection, staged_reset_id: int) -> StagedResetItem:
    """Tell how a staged reset stands.

    Raises:
        UnknownStagedResetError: there is none of this number.

    """
    statement = _select_staged_resets().where(tables.staged_resets.c.id == staged_reset_id)
    row = (await connection.execute(statement)).mappings().one_or_none()
    if row is None:
        raise UnknownStagedResetError(staged_reset_id)
    return _read_item(row)


async def first_failures(connection: AsyncConnection, item: StagedResetItem) -> list[StagedResetFailure]:
    """List the first breakers that could not be reset, at most ten."""
    if item.failed == 0:
        return []
    columns = tables.staged_reset_breakers.c
    statement = (
        select(columns.user_id, columns.settled_at.label("at"), columns.error)
        .where(columns.staged_reset_id == item.id, columns.settlement == int(Settlement.FAILED))
        .order_by(columns.settled_at, columns.user_id)
        .limit(FAILURES_SHOWN)
    )
    return [StagedResetFailure(**row) for row in (await connection.execute(statement)).mappings()]


def _select_staged_resets() -> Select[Any]:
    underway = tables.staged_resets.c.leased_until > func.clock_timestamp()
    return select(tables.staged_resets, underway.label("is_leased"))


def _read_item(row: RowMapping) -> StagedResetItem:
    state = StagedResetState(row["state"])
    is_running = state is StagedResetState.RUNNING
    waiting = row["total"] - row["reset_count"] - row["moved_on_count"] - row["failed_count"]
    return StagedResetItem(
        id=row["id"],
        state=cast("Status", state.label),
        underway=is_running and row["is_leased"],
        filter=row["filter"],
        per_second=row["per_second"],
        total=row["total"],
        waiting=waiting,
        reset=row["reset_count"],
        moved_on=row["moved_on_count"],
        failed=row["failed_count"],
        remaining_seconds=waiting / row["per_second"] if is_running else 0.0,
        actor=row["actor"],
        reason=row["reason"],
        created_at=row["created_at"],
        ended_at=row["ended_at"],
        stopped_by=row["stopped_by"],
    )
