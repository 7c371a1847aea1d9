"""One moment of the log, for as long as somebody reads: the log has nothing to vacuum that this would keep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from breaker_store.errors import LogUnavailableError
from breaker_store.postgres.connecting import (
    CONNECT_TIMEOUT_SECONDS,
    SESSION_SETTINGS,
    Connection,
    described,
    reach,
)

# Whoever takes what is read sets the pace, also one who pages through it. Meanwhile a statement lasts, and between two of
# them the server may be waiting for us. That the network is still there is asked by the keepalives of every session.
_SETTINGS: Final = SESSION_SETTINGS | {
    "idle_in_transaction_session_timeout": "0",
    "statement_timeout": "0",
}

# No day is dropped before its turn. The lock comes before the snapshot is taken; appends and new days pass by it.
_KEEP_DAYS: Final = "LOCK TABLE breaker_events IN ACCESS SHARE MODE"


@asynccontextmanager
async def snapshot(database_url: str, what: str) -> AsyncIterator[Connection]:
    """Lend a connection that sees the log as it is now, however long it takes; `what` is what broke off otherwise.

    Raises:
        LogUnavailableError: the database can't be reached, or broke off.

    """
    connection = await reach(
        database_url,
        writing=False,
        server_settings=_SETTINGS,
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=None,
    )
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await connection.execute(_KEEP_DAYS)
        yield connection
        await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise LogUnavailableError(f"{what} broke off: {described(error)}") from error
    finally:
        # There is nothing to roll back; and where it was broken off, the driver would wait for the server's end of a
        # COPY that it has heard already.
        connection.terminate()
