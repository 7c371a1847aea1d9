"""The policies of retention in the database, and what they let go.

What drops something is a function of the database that sees to the policy itself (see the migration 0015): so bots and
API, whose role may call it, can do no more than somebody allowed who may set policies.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import asyncpg

from breaker_store.core.retention import Kept
from breaker_store.errors import ConfigurationError
from breaker_store.postgres.connecting import Connection, connect

ATTEMPTS: Final = 40
"""How often it is asked for a lock, each time for 40 ms at most: while it waits, appends wait behind it."""

_PAUSE_SECONDS: Final = (0.1, 0.4)

_POLICIES: Final = "SELECT kind, keep_days, imports, set_at, actor FROM retention"

_SET: Final = """
INSERT INTO retention (kind, keep_days, imports, actor) VALUES ($1, $2, $3, $4)
ON CONFLICT (kind) DO UPDATE SET
    keep_days = excluded.keep_days, imports = excluded.imports, actor = excluded.actor, set_at = clock_timestamp()
"""

_CLEAR: Final = "DELETE FROM retention WHERE kind = $1 RETURNING true"

# How many outcomes there are is what the roll-ups have counted; a part of a day that was dropped before is not in it.
_DUE: Final = """
SELECT
    kind, first_day, last_day, pg_total_relation_size(relation) AS bytes,
    CASE WHEN kind = 'outcomes' THEN (
        SELECT sum(successes + failures + refusals)::bigint
        FROM fleet_rollups
        WHERE bucket = 2 AND started_at = first_day::timestamp AT TIME ZONE 'UTC'
            AND drops = (SELECT count(*) FROM dropped_partitions WHERE day = first_day)
    ) END AS outcomes
FROM unnest($1::text[]) WITH ORDINALITY AS wanted (kind, number)
CROSS JOIN LATERAL due_spans(kind)
ORDER BY number, first_day
"""

_UNCOUNTED: Final = "SELECT uncounted_of($1)"
_OWING: Final = "SELECT breakers_owing($1) ORDER BY 1"

_DROP_OUTCOMES: Final = "SELECT drop_outcomes($1, $2)"
_DROP_ROLLUPS: Final = "SELECT drop_rollups($1, $2, $3)"

Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """For how long what is kept, by whom and since when.

    Attributes:
        keep_days: since the youngest of a day was stored.
        imports: whether days that an import touched go as well.
        actor: None if nobody was named.

    """

    kind: Kept
    keep_days: int
    imports: bool
    set_at: datetime
    actor: str | None


@dataclass(frozen=True, slots=True)
class Span:
    """Something of which a policy lets go: what is kept of one day, or of one month.

    Attributes:
        bytes: on disk, with indexes; None of rows among others.
        outcomes: as they were rolled up; None of roll-ups, and if they are not.

    """

    kind: Kept
    first_day: date
    last_day: date
    bytes: int | None
    outcomes: int | None

    def __str__(self) -> str:
        if self.first_day == self.last_day:
            return f"{self.kind} of {self.first_day}"
        return f"{self.kind} of {self.first_day:%Y-%m}"


async def read_policies(connection: Connection) -> dict[Kept, RetentionPolicy]:
    rows = await connection.fetch(_POLICIES)
    policies = [RetentionPolicy(**(dict(row) | {"kind": Kept(row["kind"])})) for row in rows]
    return {policy.kind: policy for policy in policies}


async def find_policies(database_url: str) -> dict[Kept, RetentionPolicy]:
    """Read the policies that are set.

    Raises:
        LogUnavailableError: the database can't be reached.

    """
    async with _maintaining(database_url) as connection:
        return await read_policies(connection)


async def set_policy(
    database_url: str, kind: Kept, keep_days: int, *, imports: bool, actor: str | None
) -> None:
    """Say for how long something is kept; what that lets go is dropped by the next maintenance.

    Raises:
        ConfigurationError: this role may not.
        LogUnavailableError: the database can't be reached.

    """
    async with _maintaining(database_url) as connection:
        await connection.execute(_SET, kind.value, keep_days, imports, actor)


async def clear_policy(database_url: str, kind: Kept) -> bool:
    """Keep something for ever again; tell whether there was a policy. The errors are those of `set_policy`."""
    async with _maintaining(database_url) as connection:
        return await connection.fetchval(_CLEAR, kind.value) or False


@asynccontextmanager
async def _maintaining(database_url: str) -> AsyncIterator[Connection]:
    connection = await connect(database_url, writing=True)
    try:
        yield connection
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigurationError(
            "this role may not set for how long things are kept: connect as the maintenance role, or as the owner"
        ) from error
    finally:
        connection.terminate()


async def list_due(connection: Connection) -> list[Span]:
    """Give what the policies let go, of each kind the oldest first."""
    rows = await connection.fetch(_DUE, list(Kept))
    return [Span(**(dict(row) | {"kind": Kept(row["kind"])})) for row in rows]


async def why_uncounted(connection: Connection, span: Span) -> str | None:
    """Say why the roll-ups of a day of outcomes are not final; None if they are."""
    why: str | None = await connection.fetchval(_UNCOUNTED, span.first_day)
    return why


async def users_owing(connection: Connection, span: Span) -> list[int]:
    """Give the users whose breaker's count needs outcomes of this day, or of before."""
    before = datetime.combine(span.last_day + timedelta(days=1), time(), UTC)
    return [row[0] for row in await connection.fetch(_OWING, before)]


async def drop(
    connection: Connection, span: Span, actor: str | None, *, pause: Pause = asyncio.sleep
) -> str | None:
    """Drop something; say why it stays otherwise, and give None if it is gone.

    Raises:
        asyncpg.PostgresError: as the driver raises it, but for locks that can't be had.

    """
    for _ in range(ATTEMPTS):
        try:
            return await _drop(connection, span, actor)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await pause(random.uniform(*_PAUSE_SECONDS))  # noqa: S311 - no secret
    return "somebody reads it, such as an export: the next run tries again"


async def _drop(connection: Connection, span: Span, actor: str | None) -> str | None:
    why: str | None
    if span.kind is Kept.OUTCOMES:
        why = await connection.fetchval(_DROP_OUTCOMES, span.first_day, actor)
    else:
        why = await connection.fetchval(_DROP_ROLLUPS, span.kind.value, span.first_day, actor)
    return why
