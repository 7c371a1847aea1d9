"""The application over a database of the test's own, and a store that makes its history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import asyncpg
import httpx
import pytest

from breaker_store import BreakerStore, CircuitBreakerOpenError
from breaker_store.api.app import create_app
from breaker_store.api.authentication import Authenticate
from breaker_store.importing.formats import ImportedOutcome
from breaker_store.importing.run import import_outcomes

from .example_requests import CONTEND

ImportLines = Callable[..., Awaitable[None]]
Calls = Callable[[int, int], Awaitable[None]]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


class ServiceError(Exception):
    """What the bots' service answers when it fails."""


class FromAnywhere(httpx.ASGITransport):
    """Asks from another address each time, so that failures to sign in are not slowed."""

    _asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._asked += 1
        self.client = (f"192.0.2.{self._asked}", 1)
        return await super().handle_async_request(request)


@asynccontextmanager
async def serve_in_process(
    database_url: str,
    *,
    raise_app_exceptions: bool = True,
    authenticate: Authenticate | None = None,
    transport: type[httpx.ASGITransport] = httpx.ASGITransport,
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(database_url, authenticate=authenticate)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport(app, raise_app_exceptions), base_url="http://127.0.0.1"
        ) as client,
    ):
        yield client


@pytest.fixture
def serve() -> Serve:
    return serve_in_process


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with serve_in_process(database_url) as client:
        yield client


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[BreakerStore]:
    async with BreakerStore.open(database_url=database_url) as store:
        yield store


@pytest.fixture
def succeed(store: BreakerStore) -> Calls:
    """Have a user's calls succeed so many times."""

    async def answer() -> None:
        pass

    async def succeed(user_id: int, times: int) -> None:
        for _ in range(times):
            await store.registry.get_breaker(user_id).call(answer)
        await store.flush()

    return succeed


@pytest.fixture
def fail(store: BreakerStore) -> Calls:
    """Have a user's calls fail so many times; from the fifth on they are refused."""

    async def answer() -> None:
        raise ServiceError("out of order")

    async def fail(user_id: int, times: int) -> None:
        for _ in range(times):
            with suppress(ServiceError, CircuitBreakerOpenError):
                await store.registry.get_breaker(user_id).call(answer)
        await store.flush()

    return fail


@pytest.fixture
def import_lines(database_url: str) -> ImportLines:
    """Store histories that happened elsewhere, with their own times."""

    async def import_lines(*histories: list[ImportedOutcome]) -> None:
        lines = sorted((line for history in histories for line in history), key=lambda line: line.at_us)
        await import_outcomes(database_url, lines)

    return import_lines


@pytest.fixture
async def contended(owner: asyncpg.Connection) -> None:
    """Have every breaker change at the moment in which somebody else wants to change it."""
    await owner.execute(CONTEND)
