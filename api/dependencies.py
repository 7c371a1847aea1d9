"""What the routes are handed: the database, its connections, the stream, and who asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from breaker_store.api.authentication import Principal
from breaker_store.api.feed import Feed
from breaker_store.postgres.migrating import check_schema
from breaker_store.postgres.reading import reading


@dataclass(frozen=True, slots=True)
class Database:
    """The database that the API is about, by its address and as a pool for questions."""

    # It may hold a password.
    url: str = field(repr=False)
    engine: AsyncEngine


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _engine(request: Request) -> AsyncEngine:
    database: Database = request.app.state.database
    return database.engine


async def _reader(database: Annotated[Database, Depends(_database)]) -> AsyncIterator[AsyncConnection]:
    async with reading(database.engine) as connection:
        await check_schema(connection)
        yield connection


async def _ready_database(database: Annotated[Database, Depends(_database)]) -> Database:
    async with reading(database.engine) as connection:
        await check_schema(connection)
    return database


async def _feed(request: Request) -> Feed:
    feed: Feed = request.app.state.feed
    return feed


ReadyDatabase = Annotated[Database, Depends(_ready_database)]
"""The database, which can be reached and has the schema that is needed."""

Engine = Annotated[AsyncEngine, Depends(_engine)]
"""Its pool of connections, for questions of one statement: see `ask`."""

Reader = Annotated[AsyncConnection, Depends(_reader, scope="function")]
"""A connection to it for questions, given back before the answer is sent."""

TransitionStream = Annotated[Feed, Depends(_feed)]
"""The stream of transitions that all its readers share."""


async def _actor(request: Request) -> str:
    principal: Principal = request.state.principal
    return principal.name


Actor = Annotated[str, Depends(_actor)]
"""The name of who asks, by which the log will have it."""
