from __future__ import annotations

import asyncpg
import pytest

from breaker_store.api.app import create_app
from breaker_store.errors import ConfigurationError


async def test_a_service_with_a_current_database_is_ready(client):
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_a_service_without_a_database_lives(serve):
    async with serve("postgresql://nobody@127.0.0.1:1/nothing") as client:
        answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_broken_connections_are_replaced(client, connection: asyncpg.Connection):
    assert (await client.get("/readyz")).status_code == 200
    broken = await connection.fetchval(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert broken >= 1
    assert (await client.get("/readyz")).status_code == 200


async def test_the_root_leads_to_the_documentation(client):
    answer = await client.get("/", follow_redirects=True)
    assert (answer.status_code, answer.url.path) == (200, "/docs")


def test_an_application_without_a_database_is_not_made(monkeypatch):
    """The command line names the application by its factory, which takes the address from the environment."""
    monkeypatch.delenv("BREAKER_STORE_DATABASE_URL", raising=False)
    monkeypatch.setenv("BREAKER_STORE_DATA_DIR", "/nowhere")
    with pytest.raises(ConfigurationError, match="BREAKER_STORE_DATABASE_URL"):
        create_app()
