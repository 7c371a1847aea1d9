"""Connections for questions: a pool of them, on which nothing can be written.

Whoever asks gets a LogUnavailableError while the database is away or busy, whichever of SQLAlchemy and asyncpg noticed;
what is wrong with a question stays what it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import asyncpg
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from breaker_store.errors import LogUnavailableError
from breaker_store.postgres.connecting import UNREACHABLE, Connection, connect, described

_CONNECT_SECONDS: Final = 5.0
_SESSION: Final = "SET statement_timeout = '10s'; SET default_transaction_read_only = on"
_POOL_SIZE: Final = 10
_POOL_SECONDS: Final = 5.0

# The connection broke, transactions stood in each other's way, or the server is short of something or busy; or a
# migration has just changed what a prepared statement gives.
_PASSING_TROUBLE: Final = ("08", "40", "53", "55", "57", "0A000")


def create_engine(database_url: str) -> AsyncEngine:
    """Make a pool of connections for questions; it connects when it is asked, not now."""
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: _connect(database_url),
        isolation_level="REPEATABLE READ",
        pool_size=_POOL_SIZE,
        # They would be opened for one question each, which costs ten times as much as most questions.
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def _refuse_closed(adapted: Any, _record: object, _proxy: object) -> None:
    """Have the pool replace a connection of which the driver knows that it is closed."""
    if adapted.driver_connection.is_closed():
        raise exc.DisconnectionError


async def _connect(database_url: str) -> Connection:
    connection = await connect(database_url, connect_timeout_seconds=_CONNECT_SECONDS)
    await connection.execute(_SESSION)
    return connection


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Lend a connection for as long as the questions take; nothing else belongs into its block.

    Raises:
        LogUnavailableError: the database can't be reached, or didn't answer in time.

    """
    with unavailable_if_lost():
        async with engine.connect() as connection:
            yield connection


@contextmanager
def unavailable_if_lost() -> Iterator[None]:
    """Turn what SQLAlchemy and the driver raise, when the database is away or busy, into a LogUnavailableError."""
    try:
        yield
    except (exc.DBAPIError, asyncpg.PostgresError) as error:
        original = (isinstance(error, exc.DBAPIError) and error.orig) or error
        if not _will_pass(original) and not getattr(error, "connection_invalidated", False):
            raise
        raise LogUnavailableError(described(original)) from error
    except (exc.TimeoutError, *UNREACHABLE) as error:
        raise LogUnavailableError(described(error)) from error


def _will_pass(error: BaseException) -> bool:
    """Tell trouble of the database's from a wrong question, which would be wrong again."""
    return (getattr(error, "sqlstate", None) or "").startswith(_PASSING_TROUBLE)


async def driver_connection_of(connection: AsyncConnection | Connection) -> Connection:
    """Give asyncpg's own connection, for statements that are text; in the transaction that SQLAlchemy has begun."""
    if not isinstance(connection, AsyncConnection):
        return connection
    driver_connection: Connection | None = (await connection.get_raw_connection()).driver_connection
    if driver_connection is None:
        raise asyncpg.InterfaceError("the connection is lost")
    return driver_connection
