"""A store that is open for as long as an ASGI application lives, behind a real server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from breaker_store import CircuitBreakerRegistry, ConfigurationError
from breaker_store.integrations.asgi import Message, Receive, Scope, Send, StoreLifespan, lifespan, store_of
from tests.integrations.serving import running, served
from tests.runtime.driving import succeed

USER = 101


async def use_breaker(request: Request) -> JSONResponse:
    answer = await request.state.breaker_store.registry.get_breaker(USER).call(succeed)
    return JSONResponse([answer, getattr(request.state, "mine", None)])


ROUTES = [Route("/", use_breaker)]


async def count_events(connection: asyncpg.Connection) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM breaker_events")
    return count


class Mine:
    """An application's own lifespan, which says what it saw.

    Attributes:
        seen: whether it found an open store at its start and at its end.

    """

    def __init__(self) -> None:
        self.seen: list[bool] = []

    @asynccontextmanager
    async def __call__(self, app: Starlette) -> AsyncIterator[dict[str, object]]:
        registry: CircuitBreakerRegistry = app.state.breaker_store.registry
        self.seen.append(registry.surroundings.has_store)
        yield {"mine": "too"}
        self.seen.append(registry.surroundings.has_store)


async def test_requests_find_the_store_and_its_end_drains_it(
    database_url: str, connection: asyncpg.Connection
) -> None:
    app = Starlette(routes=ROUTES, lifespan=lifespan(database_url=database_url))
    async with served(app) as client:
        assert (await client.get("/")).json() == ["sent", None]
    assert await count_events(connection) == 1


async def test_the_applications_own_lifespan_runs_within_the_stores(database_url: str) -> None:
    mine = Mine()
    app = Starlette(routes=ROUTES, lifespan=lifespan(mine, database_url=database_url))
    async with served(app) as client:
        assert (await client.get("/")).json() == ["sent", "too"]
    assert mine.seen == [True, True]
    assert not app.state.breaker_store.registry.surroundings.has_store


async def answer_plainly(scope: Scope, _receive: Receive, send: Send) -> None:
    answer = await store_of(scope).registry.get_breaker(USER).call(succeed)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": answer.encode()})


async def refuse_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await answer_plainly(scope, receive, send)


async def pass_over_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await answer_plainly(scope, receive, send)


@pytest.mark.parametrize("app", [refuse_lifespan, pass_over_lifespan])
async def test_an_application_without_a_lifespan_gets_one(
    database_url: str, connection: asyncpg.Connection, app: Any
) -> None:
    async with served(StoreLifespan(app, database_url=database_url)) as client:
        assert (await client.get("/")).text == "sent"
    assert await count_events(connection) == 1


async def test_the_lifespan_of_a_wrapped_application_still_runs(
    database_url: str, connection: asyncpg.Connection
) -> None:
    ended: list[int] = []

    @asynccontextmanager
    async def own(_app: Starlette) -> AsyncIterator[dict[str, str]]:
        yield {"mine": "too"}
        ended.append(await count_events(connection))

    app = StoreLifespan(Starlette(routes=ROUTES, lifespan=own), database_url=database_url)
    async with served(app) as client:
        assert (await client.get("/")).json() == ["sent", "too"]
    assert len(ended) == 1
    assert await count_events(connection) == 1


async def live(app: Any) -> list[Message]:
    """Have an application live as a server has it that ends it at once, and give what it sent."""
    sent: list[Message] = []
    told: asyncio.Queue[Message] = asyncio.Queue()
    told.put_nowait({"type": "lifespan.startup"})
    told.put_nowait({"type": "lifespan.shutdown"})

    async def send(message: Message) -> None:
        sent.append(message)

    try:
        await app({"type": "lifespan", "asgi": {}, "state": {}}, told.get, send)
    except Exception as error:
        sent.append({"type": type(error).__name__})
    return sent


def types_of(messages: list[Message]) -> list[str]:
    return [message["type"] for message in messages]


async def test_a_store_that_does_not_open_is_a_startup_that_failed(unused_tcp_port: int) -> None:
    address = f"postgresql://me:hunter2@127.0.0.1:{unused_tcp_port}/none"
    failed, error = await live(StoreLifespan(pass_over_lifespan, database_url=address))
    assert (failed["type"], error["type"]) == ("lifespan.startup.failed", "LogUnavailableError")
    assert "hunter2" not in failed["message"]
    assert "LogUnavailableError" in failed["message"]


async def test_an_application_that_does_not_start_has_said_so_and_leaves_no_store_open(
    database_url: str,
) -> None:
    registry = CircuitBreakerRegistry()

    @asynccontextmanager
    async def own(_app: Starlette) -> AsyncIterator[None]:
        raise ZeroDivisionError("mine")
        yield

    app = StoreLifespan(Starlette(lifespan=own), database_url=database_url, registry=registry)
    (failed,) = await live(app)
    assert failed["type"] == "lifespan.startup.failed"
    assert "ZeroDivisionError: mine" in failed["message"]
    assert not registry.surroundings.has_store


async def test_an_application_that_does_not_end_well_leaves_no_store_open_either(database_url: str) -> None:
    registry = CircuitBreakerRegistry()

    @asynccontextmanager
    async def own(_app: Starlette) -> AsyncIterator[None]:
        yield
        raise ZeroDivisionError("mine")

    app = StoreLifespan(Starlette(lifespan=own), database_url=database_url, registry=registry)
    started, failed, error = await live(app)
    assert types_of([started, failed]) == ["lifespan.startup.complete", "lifespan.shutdown.failed"]
    assert "ZeroDivisionError: mine" in failed["message"]
    assert error["type"] == "ZeroDivisionError"
    assert not registry.surroundings.has_store


async def test_the_server_hears_of_the_end_when_the_store_is_closed(database_url: str) -> None:
    registry = CircuitBreakerRegistry()
    app = StoreLifespan(pass_over_lifespan, database_url=database_url, registry=registry)
    open_at: list[tuple[str, bool]] = []

    async def send(message: Message) -> None:
        open_at.append((message["type"], registry.surroundings.has_store))

    told: asyncio.Queue[Message] = asyncio.Queue()
    told.put_nowait({"type": "lifespan.startup"})
    told.put_nowait({"type": "lifespan.shutdown"})
    await app({"type": "lifespan"}, told.get, send)
    assert open_at == [("lifespan.startup.complete", True), ("lifespan.shutdown.complete", False)]


@pytest.mark.parametrize("scope", [{}, {"state": {}}, {"state": {"breaker_store": None}}])
def test_without_a_store_it_is_said_what_is_missing(scope: Scope) -> None:
    with pytest.raises(ConfigurationError, match="lifespan"):
        store_of(scope)


PROGRAM = """
import asyncio
from fastapi import FastAPI
from breaker_store.integrations.asgi import lifespan
from breaker_store.integrations.fastapi import UserBreaker

app = FastAPI(lifespan=lifespan(database_url=DATABASE_URL))

async def sleep(seconds):
    await asyncio.sleep(seconds)

@app.post("/bots/{user_id}")
async def work(breaker: UserBreaker, seconds: float = 0.0) -> None:
    for _ in range(100):
        await breaker.call(sleep, seconds / 100)
"""


async def test_a_server_that_is_told_to_end_by_sigterm_loses_no_event(
    database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    source = PROGRAM.replace("DATABASE_URL", repr(database_url))
    async with (
        running(tmp_path, source) as (process, address),
        httpx.AsyncClient(base_url=address, trust_env=False, timeout=20) as client,
    ):
        slow = asyncio.create_task(client.post("/bots/1", params={"seconds": 0.5}))
        assert (await client.post("/bots/2")).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert (await slow).status_code == 200
        assert await process.wait() == -signal.SIGTERM
    assert await count_events(connection) == 200
