"""Access tokens in the database: made, listed, revoked, looked up.

A name is never used again, also when its token was revoked or has expired, and not in other case either: people read in the
log by it who did what. So rows are never deleted, and an API for which a token was ever made does not become open again.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import asyncpg
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.access import (
    PUBLIC_ID_BYTES,
    SECRET_BYTES,
    AccessToken,
    Principal,
    Role,
    hash_secret,
    write_token,
)
from breaker_store.postgres import tables
from breaker_store.postgres.connecting import Connection, connect

_STORE: Final = """
INSERT INTO access_tokens (public_id, name, role, secret_hash, expires_at)
VALUES ($1, $2, $3, $4, clock_timestamp() + $5::interval)
ON CONFLICT (lower(name)) DO NOTHING
RETURNING expires_at
"""

_REVOKE: Final = """
UPDATE access_tokens SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE name = $1 RETURNING true
"""

_IN_FORCE: Final = """
SELECT public_id, name, role, secret_hash,
    extract(epoch FROM expires_at - clock_timestamp())::double precision AS seconds_left
FROM access_tokens
WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
"""

_ANY_MADE: Final = "SELECT EXISTS (SELECT FROM access_tokens)"

_NOTE_USE: Final = "UPDATE access_tokens SET last_used_at = clock_timestamp() WHERE public_id = ANY($1)"


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A token that was just made; `token` is shown now or never."""

    name: str
    role: Role
    expires_at: datetime | None
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccessTokenItem:
    """What is told of a token.

    Attributes:
        last_used_at: to the minute; None if it never was.
        expires_at: None if it never does.

    """

    name: str
    role: Role
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class TokensInForce:
    """The tokens that may be used, by their ids; and whether there ever were any."""

    by_id: dict[str, AccessToken]
    any_made: bool


async def create_token(
    database_url: str, name: str, role: Role, expires_in: timedelta | None = None
) -> CreatedToken | None:
    """Make a token; None if the name is taken, or was, or one that differs by upper and lower case alone.

    Raises:
        LogUnavailableError: the database can't be reached.

    """
    public_id, secret = secrets.token_hex(PUBLIC_ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    async with _connected(database_url, writing=True) as connection:
        stored = await connection.fetchrow(
            _STORE, public_id, name, role.value, hash_secret(secret), expires_in
        )
    if stored is None:
        return None
    return CreatedToken(name, role, stored["expires_at"], write_token(public_id, secret))


async def revoke_token(database_url: str, name: str) -> bool:
    """End a token for ever; tell whether there is one of this name. One that was revoked stays as it is.

    Raises:
        LogUnavailableError: the database can't be reached.

    """
    async with _connected(database_url, writing=True) as connection:
        return await connection.fetchval(_REVOKE, name) or False


async def list_tokens(connection: AsyncConnection) -> list[AccessTokenItem]:
    """List all tokens ever made, by name."""
    columns = tables.access_tokens.c
    chosen = (
        *(columns.name, columns.role, columns.created_at),
        *(columns.last_used_at, columns.expires_at, columns.revoked_at),
    )
    rows = (await connection.execute(select(*chosen).order_by(columns.name))).mappings()
    return [AccessTokenItem(**(dict(row) | {"role": Role(row["role"])})) for row in rows]


async def read_tokens(connection: Connection) -> TokensInForce:
    """Read the tokens that may be used now."""
    rows = await connection.fetch(_IN_FORCE)
    any_made = bool(rows) or await connection.fetchval(_ANY_MADE)
    return TokensInForce({row["public_id"]: _read_token(row) for row in rows}, any_made)


async def any_token_made(database_url: str) -> bool:
    """Tell whether a token was ever made, also one that may not be used any more.

    Raises:
        LogUnavailableError: the database can't be reached.

    """
    async with _connected(database_url) as connection:
        any_made: bool = await connection.fetchval(_ANY_MADE)
        return any_made


async def note_use(database_url: str, public_ids: Collection[str]) -> None:
    """Write down that tokens were used now.

    Raises:
        LogUnavailableError: the database can't be reached.

    """
    async with _connected(database_url, writing=True) as connection:
        await connection.execute(_NOTE_USE, list(public_ids))


def _read_token(row: asyncpg.Record) -> AccessToken:
    principal = Principal(row["name"], Role(row["role"]))
    return AccessToken(row["public_id"], row["secret_hash"], principal, row["seconds_left"])


@asynccontextmanager
async def _connected(database_url: str, *, writing: bool = False) -> AsyncIterator[Connection]:
    connection = await connect(database_url, writing=writing)
    try:
        yield connection
    finally:
        await connection.close()
