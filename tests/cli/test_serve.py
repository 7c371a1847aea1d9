from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from breaker_store import BreakerStore
from breaker_store.cli.api_server import _listen
from tests.api.streaming import Connection, commit

from .conftest import Invoke, Start, postmaster_pid_file

SECONDS_TO_END = 5

MAKE_ONE = "(`breaker-store token create NAME --role operator`)"
OPEN = (
    f"no access token was ever made: whoever is on this machine may do all, until one is made {MAKE_ONE}; so may who "
    "comes through a proxy on it that says nothing of them\n"
)
CLOSED = "no access token was ever made: on an address that others reach one is needed"


def read_address(process: subprocess.Popen[str]) -> str:
    """Wait for the line that says where the server is."""
    line = process.stdout.readline()
    match = re.search(r"http://\S+", line)
    assert match, line + process.stderr.read()
    return match[0]


def end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """End a server by a signal, and give what it said on stderr, but that it needs no token yet."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=SECONDS_TO_END)
    return errors.removeprefix(OPEN)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_answers_and_ends(start: Start, database_url: str, number: signal.Signals, code: int) -> None:
    """`serve` answers, and a signal ends it within seconds and without a word, also while a connection is open."""
    process = start("serve", "--port", 0, "--database-url", database_url)
    address = read_address(process)
    with httpx.Client(base_url=address) as client:
        assert client.get("/healthz").status_code == 200
        summary = client.get("/api/admin/system/circuit-breakers/summary").json()
        assert summary["summary"]["total_breakers"] == 0
        assert end(process, number) == ""
    assert process.returncode == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_ends_its_streams(start: Start, database_url: str, number: signal.Signals, code: int) -> None:
    """So it does while streams are read, and while one is not: readers come to the end, and nobody says a word."""
    async with BreakerStore.open(database_url=database_url) as store:
        await commit(store, 2_000, "x" * 2_000)
    process = start("serve", "--port", 0, "--database-url", database_url)
    address = read_address(process)
    async with (
        Connection.to(address) as reader,
        Connection.to(address, query="?after=0", receive_buffer=4_096),
        Connection.to(address, query="?after=0") as busy,
    ):
        await reader.next_event()
        await busy.read_up_to(2_000)
        assert await asyncio.to_thread(end, process, number) == ""
        assert await reader.next_block() == ""
    assert process.returncode == code


def test_without_a_token(start: Start, database_url: str) -> None:
    """As long as no token was made, `serve` says that whoever is on the machine may do all."""
    process = start("serve", "--port", 0, "--database-url", database_url)
    read_address(process)
    process.terminate()
    assert process.communicate(timeout=SECONDS_TO_END)[1] == OPEN


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - what is refused
def test_from_outside_without_a_token(invoke: Invoke, database_url: str, host: str) -> None:
    """So long it listens on no address that others reach, and says which command makes a token."""
    result = invoke("serve", "--host", host, "--port", 0, "--database-url", database_url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"breaker-store: {CLOSED} {MAKE_ONE}\n"


def test_from_outside_while_the_database_is_away(invoke: Invoke) -> None:
    """Where it can't be told whether there are tokens, it doesn't start either."""
    away = "postgresql://nobody@127.0.0.1:1/nothing"
    result = invoke("serve", "--host", "0.0.0.0", "--port", 0, "--database-url", away)  # noqa: S104 - the same
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Postgres can't be reached" in result.stderr


def test_from_outside_with_tokens(
    start: Start, invoke: Invoke, database_url: str, maintenance_url: str
) -> None:
    """Once one was made it does, and asks for it; also when it is revoked: then nobody is let in."""
    token = invoke(
        "token", "create", "alice", "--role", "operator", "--database-url", maintenance_url
    ).stdout.strip()
    process = start("serve", "--host", "0.0.0.0", "--port", 0, "--database-url", database_url)  # noqa: S104
    address = read_address(process).replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    with httpx.Client(base_url=address) as client:
        assert client.get("/docs").status_code == 401
        assert client.get("/docs", headers={"authorization": f"Bearer {token}"}).status_code == 200
    process.terminate()
    said = process.communicate(timeout=SECONDS_TO_END)[1]
    assert said == "an attempt to sign in failed: from 127.0.0.1, with no token\n"
    invoke("token", "revoke", "alice", "--database-url", maintenance_url)
    process = start("serve", "--host", "0.0.0.0", "--port", 0, "--database-url", database_url)  # noqa: S104
    address = read_address(process).replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    answer = httpx.get(f"{address}/", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 401


@pytest.mark.parametrize(("proxies", "address"), [(None, "127.0.0.1"), ("127.0.0.1", "192.0.2.7")])
def test_forwarded_addresses(
    start: Start, invoke: Invoke, database_url: str, maintenance_url: str, monkeypatch, proxies, address: str
) -> None:
    """The address that a proxy tells is believed only of those that FORWARDED_ALLOW_IPS names."""
    invoke("token", "create", "alice", "--role", "operator", "--database-url", maintenance_url)
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if proxies:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", proxies)
    process = start("serve", "--port", 0, "--database-url", database_url)
    httpx.get(f"{read_address(process)}/docs", headers={"x-forwarded-for": "192.0.2.7"})
    process.terminate()
    said = process.communicate(timeout=SECONDS_TO_END)[1]
    assert said == f"an attempt to sign in failed: from {address}, with no token\n"


def test_embedded_database(start: Start, data_dir: Path) -> None:
    """With an embedded database `serve` starts and migrates it, and leaves no server behind."""
    process = start("serve", "--port", 0, "--data-dir", data_dir)
    address = read_address(process)
    assert httpx.get(f"{address}/readyz").status_code == 200
    assert postmaster_pid_file(data_dir).exists()
    assert end(process, signal.SIGTERM) == ""
    assert process.returncode == 0
    assert not postmaster_pid_file(data_dir).exists()


def test_ended_while_starting(start: Start, data_dir: Path) -> None:
    """A signal that comes while the embedded database is starting leaves no server behind."""
    process = start("serve", "--port", 0, "--data-dir", data_dir)
    while not postmaster_pid_file(data_dir).exists():
        assert process.poll() is None
        time.sleep(0.001)  # there is nothing to await: the file is another process's
    end(process, signal.SIGTERM)
    assert process.returncode == 0
    assert not postmaster_pid_file(data_dir).exists()


def test_answers_at_once() -> None:
    """No part of an answer waits until the client has acknowledged the one before."""
    with _listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_port_in_use(invoke: Invoke, database_url: str) -> None:
    """A port that is taken is an error that says so, before any database is asked."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = invoke("serve", "--port", port, "--database-url", database_url)
    assert result.exit_code == 1
    assert f"can't listen on 127.0.0.1, port {port}: Address already in use" in result.stderr


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "x" * 100])
def test_unknown_host(invoke: Invoke, database_url: str, host: str) -> None:
    """So is an address that is not this machine's."""
    result = invoke("serve", "--host", host, "--database-url", database_url)
    assert result.exit_code == 1
    assert f"can't listen on {host}" in result.stderr
