"""Connections that are lost in the middle of a question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

_WAITING = """
SELECT pid FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL
SELECT pid FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'
"""


@asynccontextmanager
async def lost_while_waiting(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Keep whoever asks for a webhook's row in the block waiting for it, and end their session while they wait."""
    async with connection.transaction():
        await connection.execute("SELECT FROM webhooks FOR UPDATE")
        yield
        async with asyncio.timeout(10):
            while (pid := await connection.fetchval(_WAITING)) is None:  # noqa: ASYNC110 - locks tell nobody
                await asyncio.sleep(0)
        await connection.execute("SELECT pg_terminate_backend($1, 5000)", pid)
