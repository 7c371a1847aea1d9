"""A FastAPI application of a user's own, behind a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, WebSocket

from breaker_store import CircuitBreakerOpenError, CircuitBreakerRegistry
from breaker_store.bots import RateLimitedError
from breaker_store.integrations.asgi import lifespan
from breaker_store.integrations.fastapi import Store, UserBreaker, answer_refusal, install
from breaker_store.runtime.clock import ManualClock
from tests.integrations.serving import served
from tests.runtime.driving import begin, succeed, trip

USER = 101


@pytest.fixture
def registry() -> CircuitBreakerRegistry:
    return CircuitBreakerRegistry(clock=ManualClock())


@pytest.fixture
def clock(registry: CircuitBreakerRegistry) -> ManualClock:
    clock = registry.surroundings.clock
    assert isinstance(clock, ManualClock)
    return clock


@pytest.fixture
async def client(database_url: str, registry: CircuitBreakerRegistry) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI(lifespan=lifespan(database_url=database_url, registry=registry))
    install(app)

    @app.post("/bots/{user_id}/messages")  # noqa: FAST003 - the breaker's
    async def send(breaker: UserBreaker) -> str:
        return await breaker.call(succeed)

    @app.get("/bots")
    async def count(store: Store) -> int:
        return len(store.registry)

    @app.post("/bots/{user_id}/broadcasts")
    async def broadcast(user_id: int) -> None:
        raise RateLimitedError(user_id, 499.2)

    async with served(app) as client:
        yield client


async def send(client: httpx.AsyncClient, user_id: object = USER) -> httpx.Response:
    return await client.post(f"/bots/{user_id}/messages")


async def test_a_route_has_the_breaker_of_the_paths_user(
    client: httpx.AsyncClient, registry: CircuitBreakerRegistry
) -> None:
    await trip(registry.get_breaker(USER))
    assert (await send(client)).status_code == 503
    answer = await send(client, 102)
    assert (answer.status_code, answer.json()) == (200, "sent")
    assert (await client.get("/bots")).json() == len(registry) == 2


async def test_a_refusal_is_a_503_that_says_when_to_come_back_in_whole_seconds(
    client: httpx.AsyncClient, registry: CircuitBreakerRegistry, clock: ManualClock
) -> None:
    await trip(registry.get_breaker(USER))
    clock.advance(47.2)
    answer = await send(client)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "13")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:problem-type:breaker-store:circuit-open",
        "title": "The circuit breaker is open",
        "status": 503,
        "detail": "calls are refused for another 13 s",
        "instance": f"/bots/{USER}/messages",
    }


async def test_who_is_refused_while_a_probe_runs_may_come_back_in_a_second(
    client: httpx.AsyncClient, registry: CircuitBreakerRegistry, clock: ManualClock
) -> None:
    breaker = registry.get_breaker(USER)
    await trip(breaker)
    clock.advance(60)
    probe = await begin(breaker)
    answer = await send(client)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    await probe.succeed()
    assert (await send(client)).status_code == 200


async def test_where_there_is_no_end_no_time_to_come_back_is_said(
    client: httpx.AsyncClient, registry: CircuitBreakerRegistry
) -> None:
    registry.get_breaker(USER).force_open()
    answer = await send(client)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, False)
    assert answer.json()["detail"] == "calls are refused until it is released"


async def test_a_bot_that_the_service_wants_to_wait_is_a_503_that_says_how_long(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post(f"/bots/{USER}/broadcasts")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "500")
    assert answer.json() == {
        "type": "urn:problem-type:breaker-store:rate-limited",
        "title": "The bot is rate limited",
        "status": 503,
        "detail": "calls wait for another 500 s",
        "instance": f"/bots/{USER}/broadcasts",
    }


async def test_of_a_suspended_bot_neither_who_did_it_nor_why_is_told(
    client: httpx.AsyncClient, registry: CircuitBreakerRegistry
) -> None:
    registry.get_breaker(USER).suspend(actor="Mallory", reason="does not pay")
    answer = await send(client)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, False)
    assert answer.json()["title"] == "The bot is suspended"
    assert "Mallory" not in answer.text
    assert "pay" not in answer.text


async def test_what_failed_is_not_told_to_end_users(
    client: httpx.AsyncClient, registry: CircuitBreakerRegistry
) -> None:
    await trip(registry.get_breaker(USER))
    refused = await send(client)
    assert "no answer" not in refused.text
    assert "NoAnswerError" not in refused.text


@pytest.mark.parametrize("user_id", ["me", 2**63, -(2**63) - 1])
async def test_an_id_that_no_user_can_have_is_the_requests_mistake(
    client: httpx.AsyncClient, registry: CircuitBreakerRegistry, user_id: object
) -> None:
    assert (await send(client, user_id)).status_code == 422
    assert len(registry) == 0


async def test_a_web_socket_is_not_answered_as_a_request_is() -> None:
    async def nothing(*_: object) -> dict[str, object]:
        return {}

    error = CircuitBreakerOpenError(USER, 1.0, None, None, None)
    socket = WebSocket({"type": "websocket"}, nothing, nothing)
    with pytest.raises(CircuitBreakerOpenError) as raised:
        await answer_refusal(socket, error)  # type: ignore[arg-type]
    assert raised.value is error
