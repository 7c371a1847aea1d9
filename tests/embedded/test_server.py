from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from breaker_store.embedded import EmbeddedPostgresError, ServerNotReadyError, ServerStartError


def test_makes_the_database_in_a_new_data_dir(new_place, query):
    """A new data directory gets a cluster in UTF-8 with the product's database."""
    with new_place.server() as server:
        assert query(server.host, "SELECT current_database()") == server.dbname == "breaker_store"
        assert query(server.host, "SHOW server_encoding") == "UTF8"


async def test_takes_asyncpg_and_sqlalchemy_by_its_url(place):
    """The one URL serves asyncpg and, with the driver named, SQLAlchemy, and starting works in a thread."""
    server = await asyncio.to_thread(place.server().acquire)
    connection = await asyncpg.connect(server.url)
    assert await connection.fetchval("SELECT fact FROM seen") == "committed"
    await connection.close()
    engine = create_async_engine(server.url.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT fact FROM seen"))).scalar() == "committed"
    await engine.dispose()
    await asyncio.to_thread(server.release)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("listen_addresses", ""),
        ("max_connections", "7"),
        ("TimeZone", "UTC"),
    ],
)
def test_runs_with_durable_settings_and_the_callers(place, query, name, value):
    """Nothing committed is lost and nothing listens on the network, unless and beside what the caller sets."""
    with place.server(settings={"max_connections": "7", "listen_addresses": "*"}) as server:
        assert query(server.host, f"SHOW {name}") == value


def test_keeps_data_across_runs(place, query):
    """What was committed in one run is there in the next."""
    with place.server() as server:
        query(server.host, "INSERT INTO seen VALUES ('in the first run')")
    with place.server() as server:
        assert query(server.host, "SELECT count(*) FROM seen WHERE fact = 'in the first run'") == 1


def test_has_no_address_when_not_acquired(place):
    """Asking a server that was left for its URL is an error, and leaving it twice is none."""
    server = place.server().acquire()
    server.release()
    server.release()
    with pytest.raises(EmbeddedPostgresError, match="not acquired"):
        _ = server.url


def test_is_acquired_once_by_each_object(place):
    """An object that uses the server already can't begin to use it again."""
    with place.server() as server, pytest.raises(EmbeddedPostgresError, match="acquired already"):
        server.acquire()


def test_recovers_from_a_crash(place, query):
    """After a kill -9 of the server, the next start recovers what was committed."""
    with place.server(settings={}) as server:
        query(server.host, "INSERT INTO seen VALUES ('before the crash')")
        place.kill_postmaster()
    with place.server(settings={}) as server:
        assert query(server.host, "SELECT count(*) FROM seen WHERE fact = 'before the crash'") == 1


def test_waits_for_the_last_processes_of_a_killed_server(place, query):
    """While processes of a killed server hold its memory, the next start waits for them."""
    with place.server() as server, psycopg.connect(server.url) as connection:
        lingering = connection.info.backend_pid
        os.kill(lingering, signal.SIGSTOP)
        place.kill_postmaster()
        connection.close()
    with place.log() as wait_for, ThreadPoolExecutor() as threads:
        acquired = threads.submit(place.server().acquire)
        wait_for("pre-existing shared memory block")
        os.kill(lingering, signal.SIGCONT)
        assert query(acquired.result().host, "SELECT fact FROM seen") == "committed"


def test_starts_anew_after_one_that_is_stopping(place, query):
    """A server that somebody else has told to stop is waited for, and another one started."""
    abandoned = place.user_process()
    url = f"postgresql://postgres@/breaker_store?host={abandoned.line()}"
    with psycopg.connect(url), place.log() as wait_for:
        abandoned.kill()
        stopping = place.postmaster_pid()
        os.kill(stopping, signal.SIGTERM)  # it waits for its connections to end
        wait_for("received smart shutdown request")
        with pytest.raises(ServerNotReadyError):
            place.server(patience_seconds=0).acquire()
    with place.server() as server:
        assert place.postmaster_pid() != stopping
        assert query(server.host, "SELECT fact FROM seen") == "committed"


def test_is_not_misled_by_a_reused_process_id(place, query):
    """A stale postmaster.pid with the number of another process of the same user hinders no start."""
    data = place.home / "data"
    account = {"user": data.stat().st_uid} if os.geteuid() == 0 else {}
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd="/", **account) as other:
        (data / "postmaster.pid").write_text(f"{other.pid}\n{data}\n1\n5432\n{data}\n\n\nready   \n")
        with place.server() as server:
            assert query(server.host, "SELECT fact FROM seen") == "committed"
            assert place.postmaster_pid() != other.pid
        assert other.poll() is None
        other.communicate()


def test_says_why_it_did_not_start(place):
    """A start that fails raises with the last lines of the server's log."""
    with pytest.raises(ServerStartError, match="max_connections") as caught:
        place.server(settings={"max_connections": "none"}).acquire()
    assert "max_connections" in caught.value.log_tail
    assert caught.value.log_file.exists()


def test_leaves_a_server_that_takes_longer_than_the_patience_to_its_start(place, query):
    """When patience runs out the server goes on starting, and the next user finds it."""
    with pytest.raises(ServerNotReadyError, match="after 0 s"):
        place.server(patience_seconds=0).acquire()
    with place.server(settings={"max_connections": "7"}) as server:
        assert query(server.host, "SHOW max_connections") == "100"
    assert place.postmaster_pid() is None


def test_does_not_hear_the_terminals_interrupt(place):
    """The server is in no session of its users', so a terminal's Ctrl-C passes it by."""
    with place.server():
        assert os.getsid(place.postmaster_pid()) != os.getsid(0)


@pytest.mark.parametrize("name", ["long-" + "x" * 120, "comma, colon: % and é"])
def test_serves_a_data_dir_whose_name_no_socket_can_have(new_place, query, name):
    """For such a data directory the socket is in a private folder that is gone when the server is."""
    new_place.data_dir = new_place.folder / name
    with new_place.server() as server:
        socket_dir = Path(server.host)
        assert re.fullmatch(r"breaker-store-\w+", socket_dir.name)
        assert socket_dir.stat().st_mode & 0o077 == 0
        assert query(server.host, "SELECT 1") == 1
    assert not socket_dir.exists()


def test_puts_a_long_log_aside(place):
    """A log that has grown long becomes the one old log that is kept."""
    log_file = place.home / "data" / "server.log"
    log_file.write_text("x" * 1_000_001)
    with place.server() as server:
        assert server.log_file == log_file
        assert log_file.stat().st_size < 10_000
    assert log_file.with_suffix(".log.1").stat().st_size == 1_000_001
