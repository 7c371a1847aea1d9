"""The admin API over a database of breakers, for an ASGI server.

It reads and writes Postgres alone, so it may run beside the bots or far from them. Who may use it is told by access tokens,
or by what is put in their place; see `authentication`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from importlib import metadata

from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from breaker_store.api.authentication import Authenticate, TokenSignIn
from breaker_store.api.dependencies import Database
from breaker_store.api.documentation import complete_document, name_operation
from breaker_store.api.failed_attempts import FailedAttempts
from breaker_store.api.feed import Feed
from breaker_store.api.problems import describe_status, handle_errors
from breaker_store.api.routers import (
    bots,
    circuit_breakers,
    explanations,
    health,
    histories,
    lists,
    staged_resets,
    stream,
)
from breaker_store.api.sign_in import REFUSALS, RequireSignIn
from breaker_store.api.web_pages import RefuseWebPages
from breaker_store.errors import ConfigurationError
from breaker_store.postgres import access_tokens
from breaker_store.postgres.asking import ask
from breaker_store.postgres.reading import create_engine
from breaker_store.settings import DATABASE_URL_VARIABLE, find_location


def create_app(database_url: str | None = None, *, authenticate: Authenticate | None = None) -> FastAPI:
    """Make the application.

    The database is not asked for anything yet: the application starts without it, and `/readyz` tells.

    Args:
        database_url: None takes the address from BREAKER_STORE_DATABASE_URL.
        authenticate: another way of telling who asks; then access tokens are not looked at, and none are needed.

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
        responses=describe_status(HTTPStatus.INTERNAL_SERVER_ERROR, "What nobody expected; the log has it"),
        generate_unique_id_function=name_operation,
        lifespan=_closing_connections,
    )
    app.state.database = Database(address, create_engine(address))
    app.state.feed = Feed(address)
    app.state.token_sign_in = _make_token_sign_in(app.state.database)
    _close_door(app, authenticate or app.state.token_sign_in.authenticate)
    handle_errors(app)
    # First, since routes are tried in their order, and these are asked most.
    app.include_router(histories.router, responses=REFUSALS)
    # Before those with a user's id alone, which would take the words of these for one.
    app.include_router(lists.router, responses=REFUSALS)
    app.include_router(explanations.router, responses=REFUSALS)
    app.include_router(stream.router, responses=REFUSALS)
    app.include_router(staged_resets.router, responses=REFUSALS)
    app.include_router(circuit_breakers.router, responses=REFUSALS)
    app.include_router(bots.router, responses=REFUSALS)
    app.include_router(health.router)
    complete_document(app)
    app.add_api_route("/", _show_documentation, include_in_schema=False)
    return app


def _make_token_sign_in(database: Database) -> TokenSignIn:
    return TokenSignIn(
        read=partial(ask, database.engine, access_tokens.read_tokens),
        note_use=partial(access_tokens.note_use, database.url),
    )


def _close_door(app: FastAPI, authenticate: Authenticate) -> None:
    app.add_middleware(RequireSignIn, authenticate=authenticate, failed_attempts=FailedAttempts())
    # What was added last comes first.
    app.add_middleware(RefuseWebPages)


@asynccontextmanager
async def _closing_connections(app: FastAPI) -> AsyncIterator[None]:
    yield
    feed: Feed = app.state.feed
    await feed.close()
    token_sign_in: TokenSignIn = app.state.token_sign_in
    await token_sign_in.close()
    database: Database = app.state.database
    await database.engine.dispose()


async def _show_documentation() -> RedirectResponse:
    return RedirectResponse("docs")
