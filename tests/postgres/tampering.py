"""What somebody who owns the database can do to the log, past everything that forbids it."""

from __future__ import annotations

import asyncpg

_PROTECTED = (
    "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal AND tgparentid = 0"
)


async def tamper(connection: asyncpg.Connection, statement: str, *arguments: object) -> None:
    """Do what is forbidden, and leave no trace of having been allowed to."""
    triggers = await connection.fetch(_PROTECTED)
    async with connection.transaction():
        for table, name in triggers:
            await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER {name}")
        status = await connection.execute(statement, *arguments)
        assert not status.endswith(" 0"), "nothing was tampered with"
        for table, name in triggers:
            await connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")
