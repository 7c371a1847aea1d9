from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time

import asyncpg
import httpx
import pytest

from tests.postgres.faults import USER, outage, seed

from .conftest import Invoke, Start

# At the most a second that is allowed, 5,000 take a minute: this is the short form.
MANY = int(os.environ.get("BREAKER_STORE_TEST_RESETS", "300"))
LAPSE = "UPDATE staged_resets SET leased_until = clock_timestamp()"
RESETS = "SELECT user_id, count(*) FROM breaker_transitions WHERE kind = 13 AND position IS NOT NULL GROUP BY user_id"


def ask(database_url: str, query: str) -> list[asyncpg.Record]:
    async def fetch() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(database_url)
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()

    return asyncio.run(fetch())


@pytest.fixture
def tripped(database_url: str) -> None:
    """Have twelve breakers trip by the same error."""
    asyncio.run(seed(database_url, outage(range(USER, USER + 12))))


@pytest.mark.usefixtures("tripped")
def test_start(call: Invoke, database_url: str) -> None:
    """`staged-resets start` resets what an error opened, and says what became of it."""
    counted = call("staged-resets", "start", "--error", "NetworkError", "--per-second", 100, "--dry-run")
    assert counted.stdout == "12 breakers would be reset\n"
    result = call(
        "staged-resets",
        "start",
        "--error",
        "NetworkError",
        "--per-second",
        100,
        "--reason",
        "it is back",
        "--json",
    )
    assert result.exit_code == 0
    item = json.loads(result.stdout)
    assert (item["state"], item["reset"], item["total"]) == ("done", 12, 12)
    assert [row["count"] for row in ask(database_url, RESETS)] == [1] * 12
    listed = call("staged-resets", "list").stdout
    assert "done" in listed


@pytest.mark.usefixtures("tripped")
def test_stop(call: Invoke) -> None:
    """What is left to a server can be stopped before one comes."""
    arguments = ["--error", "NetworkError", "--per-second", 1, "--in-background", "--json"]
    number = json.loads(call("staged-resets", "start", *arguments, "--actor", "alice").stdout)["id"]
    assert call("staged-resets", "stop", number, "--actor", "bob").exit_code == 0
    shown = json.loads(call("staged-resets", "show", number, "--json").stdout)
    assert (shown["state"], shown["reset"]) == ("stopped", 0)
    assert (shown["actor"], shown["stopped_by"]) == ("alice (command line)", "bob (command line)")


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["start", "--per-second", 1], 2),
        (["start", "--error", "NoSuchError", "--per-second", 1], 1),
        (["start", "--error", "NetworkError", "--per-second", 0], 2),
        (["start", "--error", "NetworkError", "--per-second", "1e9"], 2),
        (["start", "--error", "x'; DROP TABLE breaker_states; --", "--per-second", 1], 1),
        (["show", 4], 1),
        (["stop", 4], 1),
    ],
)
def test_mistakes(call: Invoke, arguments: list, exit_code: int) -> None:
    """What makes no sense, or matches nobody, is said, and stages nothing."""
    result = call("staged-resets", *arguments)
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output
    assert json.loads(call("staged-resets", "list", "--json").stdout or "[]") == []


@pytest.mark.timeout(240)
def test_a_server_that_is_killed_in_the_middle_resets_nobody_twice(
    start: Start, call: Invoke, database_url: str
) -> None:
    """Of many each is reset once, over a SIGKILL of the server, and the counts are right."""
    asyncio.run(seed(database_url, outage(range(USER, USER + MANY))))
    serving = ["serve", "--port", 0, "--database-url", database_url]
    server = start(*serving)
    address = re.search(r"http://[\d.:]+", server.stdout.readline())[0]
    staged = f"{address}/api/admin/system/circuit-breakers/staged-resets"
    body = {"error": "NetworkError", "per_second": 100, "reason": "the provider is back"}
    answer = httpx.post(staged, json=body)
    assert answer.status_code == 201
    wait_for(database_url, "SELECT count(*) FROM breaker_transitions WHERE kind = 13", MANY // 5)
    server.send_signal(signal.SIGKILL)
    server.wait()
    done_before = ask(database_url, "SELECT count(*) AS count FROM breaker_transitions WHERE kind = 13")[0][
        "count"
    ]
    assert done_before < MANY
    ask(database_url, LAPSE)
    start(*serving)
    wait_for(database_url, "SELECT count(*) FROM staged_resets WHERE state = 2", 1)
    assert {row["count"] for row in ask(database_url, RESETS)} == {1}
    assert len(ask(database_url, RESETS)) == MANY
    item = json.loads(call("staged-resets", "show", 1, "--json").stdout)
    assert (item["reset"], item["moved_on"], item["failed"], item["waiting"]) == (MANY, 0, 0, 0)


def wait_for(database_url: str, query: str, least: int) -> None:
    deadline = time.monotonic() + 100
    while ask(database_url, query)[0][0] < least:
        assert time.monotonic() < deadline, "it does not go on"
        time.sleep(0.2)
