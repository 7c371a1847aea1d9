"""All checks, in an order in which the first trouble explains those behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg

from breaker_store.diagnosis.finding import Finding, Verdict, ok, wrong
from breaker_store.diagnosis.recording import RECORDING_CHECKS
from breaker_store.diagnosis.schema import SCHEMA_CHECKS, check_schema
from breaker_store.diagnosis.server import SERVER_CHECKS
from breaker_store.diagnosis.spool_folder import check_spool
from breaker_store.diagnosis.upkeep import UPKEEP_CHECKS
from breaker_store.errors import LogUnavailableError
from breaker_store.postgres.connecting import Connection, connect, described


async def examine(database_url: str, spool_dir: Path | None) -> AsyncIterator[Finding]:
    """Look at everything, and change nothing; without a connection, or the schema, what needs it is left out.

    spool_dir: None where there is no spool.
    """
    try:
        connection = await connect(database_url)
    except LogUnavailableError as error:
        yield wrong("connection", str(error), "see whether the server runs, and whether the address is right")
    else:
        try:
            async for finding in _examine_database(connection):
                yield finding
        finally:
            connection.terminate()
    if spool_dir is not None:
        for finding in check_spool(spool_dir):
            yield finding


async def _examine_database(connection: Connection) -> AsyncIterator[Finding]:
    yield ok("connection", "the database answers")
    for check in SERVER_CHECKS:
        yield await check(connection)
    schema = await _look(check_schema, connection)
    yield schema
    if schema.verdict is Verdict.OK:
        for check in (*SCHEMA_CHECKS, *RECORDING_CHECKS, *UPKEEP_CHECKS):
            yield await _look(check, connection)


async def _look(check: Callable[[Connection], Awaitable[Finding]], connection: Connection) -> Finding:
    try:
        return await check(connection)
    except asyncpg.InsufficientPrivilegeError as error:
        subject = check.__name__.removeprefix("check_")
        return wrong(
            subject,
            f"this role may not look at it ({described(error)})",
            "run `breaker-store roles apply` as the owner, and connect as the application role",
        )
