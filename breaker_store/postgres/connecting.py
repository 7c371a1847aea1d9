"""Connections of the log's own, beside SQLAlchemy's: asyncpg as it is, for COPY and the hot path."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg

from breaker_store.errors import EventRefusedError, LedgerError, LogUnavailableError, StoreError

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECT_TIMEOUT_SECONDS = 10.0
COMMAND_TIMEOUT_SECONDS = 30.0

SESSION_SETTINGS = {
    "application_name": "breaker-store",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "10s",
    "jit": "off",
    "lock_timeout": "5s",
    "synchronous_commit": "on",
    "timezone": "UTC",
}

# The last of them stands for a connection that is in the middle of something: of its end, if the server said goodbye.
UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What the driver raises when there is no connection to be had."""

STORED_ALREADY = "BS000"
LEDGER_CONTRADICTS = "BS001"
CHECK_VIOLATION = "23514"
UNIQUE_VIOLATION = "23505"

# Data exceptions, integrity violations, program limits: sending the same again can't help.
_REFUSALS = ("22", "23", "54")


async def connect(database_url: str) -> Connection:
    """Open a connection with the session's time limits.

    Raises:
        LogUnavailableError: the server can't be reached, or refuses.

    """
    try:
        return await asyncpg.connect(
            plain_url(database_url),
            server_settings=SESSION_SETTINGS,
            timeout=CONNECT_TIMEOUT_SECONDS,
            command_timeout=COMMAND_TIMEOUT_SECONDS,
        )
    except UNREACHABLE as error:
        raise unreachable(error) from error


def unreachable(error: Exception) -> LogUnavailableError:
    """Say that there is no connection, and why."""
    return LogUnavailableError(f"Postgres can't be reached: {described(error)}")


def plain_url(database_url: str) -> str:
    """Take SQLAlchemy's driver out of an address, since asyncpg doesn't know it."""
    scheme, separator, rest = database_url.partition("://")
    return f"{scheme.partition('+')[0]}{separator}{rest}"


def translated(error: Exception) -> StoreError:
    """Say what an error of the driver means for an append: come again, look at the event, or look at the ledger."""
    state = getattr(error, "sqlstate", None) or ""
    if state in (LEDGER_CONTRADICTS, UNIQUE_VIOLATION):
        return LedgerError(described(error))
    if state.startswith(_REFUSALS):
        return EventRefusedError(described(error))
    return LogUnavailableError(described(error))


def described(error: BaseException) -> str:
    """Give an error's type and first line: what follows may quote the data."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
