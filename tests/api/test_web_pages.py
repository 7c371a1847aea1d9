from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn

from breaker_store.api.app import create_app

PREFIX = "/api/admin/system/circuit-breakers"


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Ask an application that listens on the loopback address."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_app(database_url), log_level="warning", timeout_graceful_shutdown=5)
    )
    serving = asyncio.create_task(server.serve([listening]))
    port = listening.getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    server.should_exit = True
    await serving


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1"},
        {"sec-fetch-site": "none"},
        {"origin": "http://127.0.0.1"},
        # A proxy in front that speaks TLS.
        {"origin": "https://127.0.0.1"},
    ],
)
async def test_a_reset_by_a_program_or_a_page_of_ours_is_done(client, succeed, headers):
    await succeed(1, 1)
    assert (await client.post(f"{PREFIX}/1/reset", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ],
)
async def test_a_reset_by_a_foreign_page_is_refused(client, succeed, headers):
    await succeed(1, 1)
    answer = await client.post(f"{PREFIX}/1/reset", headers=headers)
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await client.get(f"{PREFIX}/1/transitions", headers=headers)).json()["transitions"] == []


@pytest.mark.parametrize(
    "host", [None, "localhost", "localhost:8000", "bots.localhost", "127.0.0.1", "[::1]:80", "10.0.0.1"]
)
async def test_the_loopback_address_is_asked_by_its_name_or_an_address(served, host):
    headers = {} if host is None else {"host": host}
    assert (await served.get("/readyz", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"]
)
async def test_a_foreign_name_that_leads_to_the_loopback_address_is_refused(served, host):
    answer = await served.get(f"{PREFIX}/summary", headers={"host": host})
    assert answer.status_code == 403
    assert "localhost" in answer.json()["detail"]


async def test_a_service_answers_many_questions_at_once(served, succeed):
    """More than the pool has connections: the others wait for their turn."""
    await succeed(1, 3)
    answers = await asyncio.gather(*(served.get(f"{PREFIX}/1/events") for _ in range(40)))
    assert [len(answer.json()["events"]) for answer in answers] == [3] * 40
