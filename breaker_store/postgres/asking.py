"""Questions that are asked often, as fast as Postgres answers them.

One statement sees one moment by itself, so there is no transaction around it. What is asked goes to the driver's connection:
SQLAlchemy lends it from its pool. That it lives and has the right schema isn't asked each time, but once a second on each
connection; one that was lost in between is replaced.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Final, TypeVar

import asyncpg
from sqlalchemy import PoolProxiedConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.migrating import VERSION_TABLE, judge_revision
from breaker_store.postgres.reading import unavailable_if_lost

SCHEMA_CHECK_SECONDS: Final = 1.0
"""For how long a connection's schema is taken to be what it was."""

_CHECKED_AT: Final = "breaker_store_schema_checked_at"

Answer = TypeVar("Answer")
Question = Callable[[Connection], Awaitable[Answer]]


async def ask(engine: AsyncEngine, question: Question[Answer]) -> Answer:
    """Put a question; once more if the connection is lost meanwhile, since questions change nothing.

    Raises:
        LogUnavailableError: the database can't be reached, or didn't answer in time.
        SchemaError: the schema is not the one that this code needs.

    """
    with unavailable_if_lost():
        # Given back at once: nothing was begun that would have to be rolled back first.
        with closing(await engine.raw_connection()) as lent:
            connection: Connection = lent.driver_connection
            try:
                return await _ask(lent, connection, question)
            except Exception as error:
                if not _is_lost(connection, error):
                    raise
                lent.invalidate()
        with closing(await engine.raw_connection()) as lent:
            return await _ask(lent, lent.driver_connection, question)


async def ask_at_one_moment(engine: AsyncEngine, question: Question[Answer]) -> Answer:
    """Put a question of several statements, which all see the same moment; otherwise as `ask`."""
    return await ask(engine, lambda connection: _at_one_moment(connection, question))


async def _at_one_moment(connection: Connection, question: Question[Answer]) -> Answer:
    try:
        async with connection.transaction(isolation="repeatable_read"):
            return await question(connection)
    except asyncio.CancelledError:
        # Whether the transaction has begun, or ended, nobody knows: nobody may get it with this connection.
        connection.terminate()
        raise


def _is_lost(connection: Connection, error: Exception) -> bool:
    # A server that said goodbye has not closed the connection yet, and the driver takes that for a question under way.
    return connection.is_closed() or isinstance(error, asyncpg.InternalClientError)


async def _ask(lent: PoolProxiedConnection, connection: Connection, question: Question[Answer]) -> Answer:
    # Remembered with the connection for as long as it lives, so that another server's is asked anew.
    now = time.monotonic()
    if now - lent.info.get(_CHECKED_AT, -math.inf) >= SCHEMA_CHECK_SECONDS:
        judge_revision(await _read_revision(connection))
        lent.info[_CHECKED_AT] = now
    return await question(connection)


async def _read_revision(connection: Connection) -> str | None:
    try:
        revision: str | None = await connection.fetchval(f"SELECT version_num FROM {VERSION_TABLE}")
    except asyncpg.UndefinedTableError:
        return None
    return revision
