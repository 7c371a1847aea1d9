"""Connections of the log's own, beside SQLAlchemy's: asyncpg as it is, for COPY and the hot path.

An address may name several hosts, of which one is the primary. They are tried one after the other, each for the whole
of the time limit: asyncpg's own is for all of them together, so that a machine that vanished would keep it from ever
asking the next one.
"""

from __future__ import annotations

from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

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
    # Where the network fell silent in the middle of a COPY, the server waits for the rest of it, and the batch that is
    # sent again waits for the server: two hours, by the usual settings. No other time limit reaches it there.
    "tcp_keepalives_count": "3",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
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


async def connect(
    database_url: str,
    *,
    writing: bool = False,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    command_timeout_seconds: float = COMMAND_TIMEOUT_SECONDS,
) -> Connection:
    """Open a connection with the session's time limits.

    Args:
        database_url: the address.
        writing: pass over servers that take no writes; see `reach`.
        connect_timeout_seconds: for each host of the address.
        command_timeout_seconds: for each statement.

    Raises:
        LogUnavailableError: no server can be reached, or they refuse.

    """
    return await reach(
        database_url,
        writing=writing,
        server_settings=SESSION_SETTINGS,
        timeout=connect_timeout_seconds,
        command_timeout=command_timeout_seconds,
    )


async def reach(database_url: str, *, writing: bool, **options: Any) -> Connection:
    """Open a connection to the first host of an address that gives one, with asyncpg's options.

    `writing` passes over standbys and servers that are read-only, unless the address itself says what to look for
    (`target_session_attrs`). From Postgres 14 on a server tells so by itself; an older one is asked once.

    Raises:
        LogUnavailableError: none gives one.

    """
    attributes = "read-write" if writing and "target_session_attrs=" not in database_url else None
    errors: list[Exception] = []
    for address in divide_hosts(plain_url(database_url)):
        try:
            return await asyncpg.connect(address, target_session_attrs=attributes, **options)
        except UNREACHABLE as error:
            errors.append(error)
    raise unreachable(*errors) from errors[-1]


def unreachable(*errors: Exception) -> LogUnavailableError:
    """Say that there is no connection, and why; once for hosts that say the same."""
    reasons = dict.fromkeys(map(_reason, errors))
    return LogUnavailableError(f"Postgres can't be reached: {'; '.join(reasons)}")


def _reason(error: Exception) -> str:
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "the server takes no writes: it is a standby, or read-only"
    return described(error)


def divide_hosts(address: str) -> list[str]:
    """Give an address for each host of an address, in their order."""
    parts = urlsplit(address)
    account, at, hosts = parts.netloc.rpartition("@")
    if "," in hosts:
        return [parts._replace(netloc=f"{account}{at}{host}").geturl() for host in hosts.split(",")]
    query = dict(parse_qsl(parts.query))
    places = [{"host": host} for host in query.get("host", "").split(",")]
    ports = query["port"].split(",") if "port" in query else []
    if hosts or len(places) == 1 or len(ports) not in {0, 1, len(places)}:
        return [address]  # also where the numbers differ: asyncpg says what is wrong
    # A port that stands alone is that of all hosts.
    for place, port in zip(places, ports * len(places), strict=False):
        place["port"] = port
    return [parts._replace(query=urlencode(query | place)).geturl() for place in places]


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
