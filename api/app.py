"""The admin API over a database of breakers, for an ASGI server.

It reads and writes Postgres alone, so it may run beside the bots or far from them. There is no login yet: whoever
reaches the port is an operator. So it belongs on the loopback address, where `web_pages` keeps out what a web page in
a browser on the same machine could do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib import metadata

from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from breaker_store.api.dependencies import Database
from breaker_store.api.documentation import name_operation, show_examples
from breaker_store.api.feed import Feed
from breaker_store.api.problems import describe_status, handle_errors
from breaker_store.api.routers import (
    circuit_breakers,
    explanations,
    health,
    histories,
    lists,
    staged_resets,
    stream,
)
from breaker_store.api.web_pages import RefuseWebPages
from breaker_store.errors import ConfigurationError
from breaker_store.postgres.reading import create_engine
from breaker_store.settings import DATABASE_URL_VARIABLE, find_location


def create_app(database_url: str | None = None) -> FastAPI:
    """Make the application; None takes the address from BREAKER_STORE_DATABASE_URL.

    The database is not asked for anything yet: the application starts without it, and `/readyz` tells.

    Raises:
        ConfigurationError: there is no address, or it is none of Postgres.

    """
    address = find_location(database_url).database_url
    if address is None:
        raise ConfigurationError(f"the API needs a running Postgres: set {DATABASE_URL_VARIABLE}")
    app = FastAPI(
        title="breaker-store",
        summary="Circuit breakers, and why they are as they are.",
        version=metadata.version("breaker-store"),
        responses={
            **describe_status(
                HTTPStatus.FORBIDDEN, "A web page asked, or a host that is none of this machine's"
            ),
            **describe_status(HTTPStatus.INTERNAL_SERVER_ERROR, "What nobody expected; the log has it"),
        },
        generate_unique_id_function=name_operation,
        lifespan=_closing_connections,
    )
    app.state.database = Database(address, create_engine(address))
    app.state.feed = Feed(address)
    app.add_middleware(RefuseWebPages)
    handle_errors(app)
    # First, since routes are tried in their order, and these are asked most.
    app.include_router(histories.router)
    # Before those with a user's id alone, which would take the words of these for one.
    app.include_router(lists.router)
    app.include_router(explanations.router)
    app.include_router(stream.router)
    app.include_router(staged_resets.router)
    app.include_router(circuit_breakers.router)
    app.include_router(health.router)
    show_examples(app)
    app.add_api_route("/", _show_documentation, include_in_schema=False)
    return app


@asynccontextmanager
async def _closing_connections(app: FastAPI) -> AsyncIterator[None]:
    yield
    feed: Feed = app.state.feed
    await feed.close()
    database: Database = app.state.database
    await database.engine.dispose()


async def _show_documentation() -> RedirectResponse:
    return RedirectResponse("docs")
