from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import asyncpg
import pytest
from rich.console import Console

from breaker_store.demo import run_demo
from breaker_store.demo.provider import make_token
from breaker_store.demo.serving import API_PATH, DEFAULT_PORT, bind_api_port
from breaker_store.errors import ConfigurationError
from breaker_store.settings import Location

PROGRAM = """
import asyncio, sys
from breaker_store.demo import run_demo
from breaker_store.settings import Location
asyncio.run(run_demo(location=Location(database_url=sys.argv[1]), bots=8, port=0))
"""


async def run_to_text(database_url: str, *, seconds: float, bots: int = 8) -> str:
    """Run the demo without a terminal and give all that it said."""
    written = io.StringIO()
    location = Location(database_url=database_url)
    await run_demo(location=location, bots=bots, seconds=seconds, port=0, console=Console(file=written))
    return written.getvalue()


async def test_a_few_seconds_store_an_opening_with_its_cleaned_cause(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """User 102's service fails from the start, so its breaker opens, and the events say why without the token."""
    text = await run_to_text(database_url, seconds=4)
    opened = await connection.fetchrow("SELECT user_id, details FROM breaker_events WHERE kind = 10")
    outcomes = await connection.fetch("SELECT kind, sum(coalesce(count, 1)) FROM breaker_outcomes GROUP BY 1")
    stored = await connection.fetchval("SELECT count(*) FROM breaker_events")
    assert opened is not None
    assert opened["user_id"] == 102
    assert "bot[hidden]/sendMessage" in opened["details"]
    assert make_token(1) not in opened["details"] + text
    assert {row["kind"] for row in outcomes} >= {1, 2}
    assert re.search(r"user 102  closed -> open: 5 failures in a row; ServiceUnavailable: 503", text)
    assert f"{stored:,} events were stored. To look at them: breaker-store history 102" in text


async def test_a_second_run_goes_on_with_what_the_first_one_left(database_url: str) -> None:
    """A breaker that was open when the first run ended is open in the second, for what remains of its wait."""
    first = await run_to_text(database_url, seconds=4)
    second = await run_to_text(database_url, seconds=0)
    assert "no breaker is known yet" in first
    remaining = re.search(r"8 breakers known, 1 still open: user 102 for another (\d+) s", second)
    assert remaining is not None
    assert 1 <= int(remaining[1]) <= 9
    assert "7 closed, 1 open, 0 half-open" in second


async def test_a_named_database_s_address_is_not_repeated(database_url: str) -> None:
    assert database_url not in await run_to_text(database_url, seconds=1)


async def test_the_title_tells_the_shortened_wait_and_the_first_line_comes_before_the_database(
    database_url: str,
) -> None:
    lines = (await run_to_text(database_url, seconds=0)).splitlines()
    assert "opening the database that was named" in lines[0]
    assert "8 bots; open breakers wait 10 s (default 60)" in lines[3]


@asynccontextmanager
async def running(database_url: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run the demo as a process until it shows live lines, and give it with the API's address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-W", "error", "-X", "dev", "-c", PROGRAM, database_url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        api = ""
        while "closed, " not in (line := (await process.stdout.readline()).decode()):
            assert line
            api = line.partition("curl ")[2].strip() or api
        yield process, api
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_cleanly(database_url: str, which: signal.Signals) -> None:
    """It says what was stored, complains of nothing, and ends with 0; more signals don't hurt."""
    async with running(database_url) as (process, _):
        assert process.stdout is not None
        await process.stdout.readline()
        process.send_signal(which)
        process.send_signal(which)
        said, complaints = await process.communicate()
    assert process.returncode == 0
    assert not complaints
    assert f"{which.name}: ending" in said.decode()
    assert "events were stored" in said.decode().splitlines()[-1]


async def test_the_api_answers_while_it_runs(database_url: str) -> None:
    async with running(database_url) as (_, address), aiohttp.ClientSession() as session:
        assert address.endswith(f"{API_PATH}/summary")
        async with session.get(address) as response:
            answer = json.loads(await response.text())
    assert (response.status, answer["status"]) == (200, "ok")


def test_another_port_is_taken_when_the_default_one_is_not_free() -> None:
    with bind_api_port(DEFAULT_PORT) as first, bind_api_port(DEFAULT_PORT) as second:
        assert first.getsockname()[1] != second.getsockname()[1]


def test_a_port_that_was_named_and_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} is taken"), bind_api_port(port):
            pass


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_an_error(port: int) -> None:
    with pytest.raises(ConfigurationError, match="from 0 to 65535"), bind_api_port(port):
        pass


@pytest.mark.parametrize(
    "numbers", [{"bots": 0}, {"bots": 1_001}, {"seconds": -1}, {"seconds": float("nan")}]
)
async def test_numbers_that_make_no_sense_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        await run_demo(location=Location(database_url="postgresql://nobody"), port=0, **numbers)


async def test_logging_is_as_before_afterwards(database_url: str) -> None:
    before = list(logging.getLogger().handlers)
    await run_to_text(database_url, seconds=0)
    assert logging.getLogger().handlers == before
