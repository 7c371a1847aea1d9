"""What is left of a staged reset, for the process that carries it out.

As with webhooks a lease on the database's clock says which process that is. What became of a breaker is recorded after
its reset, in another transaction, so a crash may come between them. Therefore each process appends under writers that
are recorded first: a reset by one of them is found in the log by whoever takes over, and not made again. What is
recorded here can so be had again, and does not wait for the disk.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import uuid4

import asyncpg

from breaker_store.core.events import EventId, Kind
from breaker_store.core.staged_resets import SAME_TROUBLE, Settlement, StagedResetState
from breaker_store.errors import LogUnavailableError, StoreError
from breaker_store.postgres.connecting import UNREACHABLE, Connection, connect, described
from breaker_store.postgres.stored_events import list_kinds

LEASE_SECONDS: Final = 10.0
"""How long after its death a process is still taken to carry a staged reset out."""

PAGE: Final = 500
"""How many breakers are read at a time."""

_ERROR_LIMIT: Final = 500

_IS_HELD: Final = f"id = $1 AND holder = $2 AND state = {StagedResetState.RUNNING}"

_CLAIMABLE = f"""
SELECT id FROM staged_resets
WHERE state = {StagedResetState.RUNNING} AND leased_until <= clock_timestamp()
ORDER BY id
"""

_CLAIM = f"""
UPDATE staged_resets SET holder = $2, leased_until = clock_timestamp() + $3,
    writers = CASE WHEN $4 = ANY(writers) THEN writers ELSE writers || $4 END
WHERE id = $1 AND state = {StagedResetState.RUNNING} AND (holder = $2 OR leased_until <= clock_timestamp())
RETURNING per_second, actor, reason
"""

_RENEW = f"UPDATE staged_resets SET leased_until = clock_timestamp() + $3 WHERE {_IS_HELD} RETURNING id"

_WAITING = f"""
SELECT user_id, version FROM staged_reset_breakers
WHERE staged_reset_id = $1 AND ($2::bigint IS NULL OR user_id > $2) AND settlement = {Settlement.WAITING}
ORDER BY user_id
LIMIT {PAGE}
"""

# The first transition with which the trouble that was seen has ended, or become another one.
_LOOK = f"""
SELECT ended.writer_id, ended.writer_seq, ended.kind = {Kind.RESET} AND ended.writer_id = ANY(staged.writers) AS is_own
FROM staged_resets AS staged
LEFT JOIN LATERAL (
    SELECT kind, writer_id, writer_seq FROM breaker_transitions
    WHERE user_id = $3 AND version > $4 AND position IS NOT NULL AND kind NOT IN ({list_kinds(SAME_TROUBLE)})
    ORDER BY version
    LIMIT 1
) AS ended ON true
WHERE {_IS_HELD}
"""

# Also once it is stopped: what was under way then is counted. A breaker is counted once, whoever says it again.
_SETTLE = f"""
WITH held AS (
    SELECT id FROM staged_resets WHERE id = $1 AND holder = $2 FOR UPDATE
),
settled AS (
    UPDATE staged_reset_breakers SET
        settlement = $5, writer_id = $6, writer_seq = $7, error = $8, settled_at = clock_timestamp()
    FROM held
    WHERE staged_reset_id = held.id AND user_id = $4 AND settlement = {Settlement.WAITING}
    RETURNING settlement
)
UPDATE staged_resets SET
    leased_until = clock_timestamp() + $3,
    reset_count = reset_count + (SELECT count(*) FROM settled WHERE settlement = {Settlement.RESET}),
    moved_on_count = moved_on_count + (SELECT count(*) FROM settled WHERE settlement = {Settlement.MOVED_ON}),
    failed_count = failed_count + (SELECT count(*) FROM settled WHERE settlement = {Settlement.FAILED})
WHERE id = $1 AND holder = $2
RETURNING id
"""

_FINISH = f"""
UPDATE staged_resets SET state = {StagedResetState.DONE}, ended_at = clock_timestamp()
WHERE {_IS_HELD} AND reset_count + moved_on_count + failed_count = total
RETURNING id
"""

_RELEASE = "UPDATE staged_resets SET leased_until = clock_timestamp() WHERE id = $1 AND holder = $2"


class NotHeldError(StoreError):
    """The staged reset was stopped, or another process carries it out by now."""

    def __init__(self) -> None:
        super().__init__(type(self).__doc__)


@dataclass(frozen=True, slots=True)
class Orders:
    """What each reset of a staged reset is to say, and how many there may be in a second."""

    per_second: float
    actor: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class StagedBreaker:
    """A breaker that waits for its reset; `version` is the one that was seen when it was staged."""

    user_id: int
    version: int


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a breaker: of a reset its event, of a failure why."""

    settlement: Settlement
    event_id: EventId | None = None
    error: str | None = None


MOVED_ON: Final = Result(Settlement.MOVED_ON)


async def claimable(connection: Connection) -> list[int]:
    """List the staged resets that no process carries out, oldest first."""
    return [row["id"] for row in await connection.fetch(_CLAIMABLE)]


class StagedResetQueue:
    """The breakers that a staged reset has still to reset, for the process that holds its lease; asked by one task.

    Steps raise NotHeldError once it is stopped or the lease has passed to another process, and LogUnavailableError
    while the database is away.
    """

    def __init__(
        self, database_url: str, staged_reset_id: int, *, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        self.id = staged_reset_id
        self._database_url = database_url
        self._length = timedelta(seconds=lease_seconds)
        self._holder = uuid4()
        self._connection: Connection | None = None
        self._held_until = 0.0

    @property
    def held_seconds(self) -> float:
        """How long the lease still lasts, to be on the safe side; negative if it has lapsed."""
        return self._held_until - time.monotonic()

    async def claim(self, writer_id: int) -> Orders | None:
        """Take the lease, or keep it, to append under a writer; None if another process has it, or it has ended."""
        rows = await self._lease(_CLAIM, writer_id)
        return Orders(**rows[0]) if rows else None

    async def renew(self) -> None:
        _check_held(await self._lease(_RENEW))

    async def waiting(self, after: int | None) -> list[StagedBreaker]:
        """Give the next breakers that wait, in the order of users, behind one of them; None gives the first."""
        return [StagedBreaker(**row) for row in await self._fetch(_WAITING, self.id, after)]

    async def look(self, breaker: StagedBreaker) -> Result | None:
        """Tell whether a breaker has been reset by this staged reset already, or has moved on; None is neither."""
        rows = await self._fetch(_LOOK, self.id, self._holder, breaker.user_id, breaker.version)
        _check_held(rows)
        row = rows[0]
        if row["writer_id"] is None:
            return None
        if not row["is_own"]:
            return MOVED_ON
        return Result(Settlement.RESET, EventId(row["writer_id"], row["writer_seq"]))

    async def settle(self, breaker: StagedBreaker, result: Result) -> None:
        """Record what became of a breaker, and count it."""
        event = (None, None) if result.event_id is None else tuple(result.event_id)
        error = None if result.error is None else result.error[:_ERROR_LIMIT]
        _check_held(await self._lease(_SETTLE, breaker.user_id, int(result.settlement), *event, error))

    async def finish(self) -> bool:
        """Say that it is done, if every breaker is; tell whether it was said."""
        return bool(await self._fetch(_FINISH, self.id, self._holder))

    async def close(self) -> None:
        """Give the lease back, if this process has it, and part with the database."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            # Where the database is away the lease lapses by itself.
            with suppress(*UNREACHABLE):
                await connection.execute(_RELEASE, self.id, self._holder)
                await connection.close()
        finally:
            connection.terminate()

    async def _lease(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        asked = time.monotonic()
        rows = await self._fetch(statement, self.id, self._holder, self._length, *arguments)
        self._held_until = asked + self._length.total_seconds() if rows else 0.0
        return rows

    async def _fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        connection = self._connection
        try:
            if connection is None or connection.is_closed():
                connection = self._connection = await connect(self._database_url, writing=True)
                await connection.execute("SET synchronous_commit = off")
            rows: list[asyncpg.Record] = await connection.fetch(statement, *arguments)
        except BaseException as error:
            if connection is not None:
                connection.terminate()
            self._connection = None
            if isinstance(error, UNREACHABLE):
                raise LogUnavailableError(described(error)) from error
            raise
        return rows


def _check_held(rows: list[asyncpg.Record]) -> None:
    if not rows:
        raise NotHeldError
