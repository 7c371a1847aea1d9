from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
from typing import TextIO

import asyncpg
import pytest

from breaker_store import BreakerStore
from tests.conftest import Connect, Server
from tests.postgres.restoring import Restored, restorable

from .conftest import Invoke, Start


@pytest.fixture
async def restored(postgres_server: Server, database_url: str, connect: Connect):
    async with restorable(postgres_server, database_url, connect) as restored:
        yield restored


async def reset(database_url: str, *user_ids: int) -> None:
    async with BreakerStore.open(database_url=database_url) as store:
        for user_id in user_ids:
            store.registry.get_breaker(user_id).reset(reason="\x1b[31mmended", actor="ann")


async def wait_until_asked(connection: asyncpg.Connection) -> None:
    """Wait until the command has begun to follow."""
    while not await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%position >= $1%' AND pid <> pg_backend_pid()"
        " AND datname = current_database()"
    ):
        pass


def end(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=5)
    return errors


async def test_shows_transitions_as_they_come(
    start: Start, database_url: str, connection: asyncpg.Connection
):
    """`follow` shows what is committed while it runs, a line each, and Ctrl-C ends it."""
    await reset(database_url, 1)
    process = start("follow", "--database-url", database_url)
    await wait_until_asked(connection)
    await reset(database_url, -7)
    line = process.stdout.readline()
    assert re.fullmatch(r"\S+ \S+Z  reset +user -7  \\x1b\[31mmended  by ann  -?\d+-1\n", line)
    assert end(process) == ""
    assert process.returncode == 130


async def test_begins_where_it_is_told(start: Start, database_url: str):
    """`--after` begins in the past, and `--json` writes objects."""
    await reset(database_url, 1, 2, 3)
    process = start("follow", "--after", 1, "--json", "--database-url", database_url)
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [(line["position"], line["user_id"]) for line in lines] == [(2, 2), (3, 3)]
    end(process)


@pytest.mark.parametrize("text", ["x", "01", "-1"])
def test_refuses_what_is_no_position(call: Invoke, text: str):
    """Anything else than a position is a mistake in the command line."""
    result = call("follow", "--after", text)
    assert result.exit_code == 2
    assert "is not a position" in result.stderr


async def hear(output: TextIO) -> str:
    """Read a line while the proxy, which runs in this loop, goes on."""
    return await asyncio.wait_for(asyncio.to_thread(output.readline), 60)


@pytest.mark.timeout(150)  # a connection to a server that has just gone may hang until its own time-out
async def test_goes_on_after_an_outage_and_in_a_restored_database(
    start: Start, restored: Restored, database_url: str
):
    """`follow` outlives its Postgres, and says when the database is another."""
    process = start("follow", "--after", 0, "--json", "--database-url", restored.proxy.url)
    await reset(database_url, 1)
    assert json.loads(await hear(process.stdout))["position"] == 1
    await restored.copy()
    await reset(database_url, 2)
    assert json.loads(await hear(process.stdout))["position"] == 2
    await restored.restore()
    waiting = await hear(process.stderr)
    told = await hear(process.stderr)
    while told.startswith("breaker-store: waiting"):
        told = await hear(process.stderr)
    await reset(database_url, 3)
    assert json.loads(await hear(process.stdout))["user_id"] == 3
    assert waiting.startswith("breaker-store: waiting for Postgres: ")
    assert "another history, without 2." in told
    end(process)
