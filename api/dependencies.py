"""What the routes are handed: the database, and requests that no web page made behind an operator's back.

A page in a browser on the operator's machine can send requests to the loopback address. Two checks keep it from doing
so, both by what browsers always tell and pages can't forge:

- a request that changes something comes from our own pages, or from no page (the way of Go's `CrossOriginProtection`);
- a request to the loopback address names it, and not a domain whose owner points it there (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request, status
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from breaker_store.api.feed import Feed
from breaker_store.postgres.migrating import check_schema
from breaker_store.postgres.queries import reading

_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


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
    return f"admin API, from {request.client.host}" if request.client else "admin API"


Actor = Annotated[str, Depends(_actor)]
"""Who it will have been, as far as can be told without a login."""


async def refuse_web_pages(request: Request) -> None:
    """Refuse what a foreign page in a browser asks for.

    Raises:
        HTTPException: 403, with the reason.

    """
    if request.method not in _READING_METHODS and _is_cross_origin(request):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "a page of another origin may not change anything")
    if _is_loopback(request.scope.get("server")) and not _names_loopback(request.url.hostname):
        raise HTTPException(
            status.HTTP_403_FORBIDDEN,
            "on the loopback address, the host must be given as localhost or as an address",
        )


def _is_cross_origin(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = request.headers.get("origin")
    # Neither of the two: no browser, or one older than 2020.
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


@lru_cache(maxsize=16)
def _is_loopback(server: tuple[str, int | None] | None) -> bool:
    """Tell whether the address on which the request arrived is of this machine alone."""
    try:
        return server is not None and ip_address(server[0]).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=16)
def _names_loopback(host: str | None) -> bool:
    if host is None or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
