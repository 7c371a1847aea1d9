"""A connection for the length of a question."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.postgres.reading import create_engine, reading
from breaker_store.settings import Location
from breaker_store.store import open_database


@asynccontextmanager
async def asking(location: Location) -> AsyncIterator[AsyncConnection]:
    """Lend a connection to the database at a location, whose embedded server runs as long."""
    async with open_database(location) as database_url:
        engine = create_engine(database_url)
        try:
            async with reading(engine) as connection:
                yield connection
        finally:
            await engine.dispose()
