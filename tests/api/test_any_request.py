"""Requests made up from the API's own documentation, sane and insane, are answered as it says: no 5xx among them."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from breaker_store.api.app import create_app
from tests.api.example_requests import PREFIX, seed

STREAM = f"{PREFIX}/transitions/stream"
RULES = Path(__file__).with_name("schemathesis_rules.py")
EXAMPLES = 25
"""Requests for each operation and way of making them up; a thousand found no more."""


@pytest.fixture
async def address(database_url: str) -> str:
    await seed(database_url)
    return database_url


@pytest.fixture
def server(address: str) -> Iterator[str]:
    """Serve the API as users do: a process of its own, on a real socket."""
    command = [sys.executable, "-m", "breaker_store.cli", "serve", "--port", "0", "--database-url", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[2]
        process.terminate()


@pytest.fixture
def ending_streams(address: str) -> Iterator[str]:
    """Serve the API, with streams that end where they would wait: a stream has no end of its own."""
    app = create_app(address)
    app.state.feed.ending.set()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.mark.timeout(300)
def test_any_request_is_answered_as_documented(server: str, tmp_path: Path) -> None:
    ask_anything(server, tmp_path, "--exclude-path", STREAM)


@pytest.mark.timeout(300)
def test_any_request_for_the_stream_is_answered_as_documented(ending_streams: str, tmp_path: Path) -> None:
    ask_anything(ending_streams, tmp_path, "--include-path", STREAM)


def ask_anything(server: str, tmp_path: Path, *paths: str) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{server}/openapi.json", *paths),
        *("--checks", "all", "--continue-on-failure", "--no-color"),
        *("--generation-deterministic", "--max-examples", EXAMPLES),
    ]
    environment = {"PYTHONPATH": str(RULES.parent), "SCHEMATHESIS_HOOKS": RULES.stem}
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout
