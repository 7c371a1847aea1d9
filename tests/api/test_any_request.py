"""Requests made up from the API's own documentation, sane and insane, are answered as it says: no 5xx among them.

Viewers and operators share the requests, since most are answered alike.
"""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from breaker_store.api.app import create_app
from breaker_store.api.authentication import Role
from breaker_store.postgres.access_tokens import create_token
from tests.addresses import as_maintenance
from tests.api.example_requests import seed
from tests.depth import DEPTH

RULES = Path(__file__).with_name("schemathesis_rules.py")
EXAMPLES = 6 * DEPTH
"""Requests for each operation, role and way of making them up; a thousand found no more."""

# A viewer is told that it may not act, before anything else is looked at. What goes through all parameters one by one is
# left to operators.
AS_VIEWER = ("--exclude-checks", "unsupported_method", "--warnings", "off", "--phases", "examples,fuzzing")


@pytest.fixture
async def address(database_url: str) -> str:
    await seed(database_url)
    return database_url


@pytest.fixture
async def tokens(address: str) -> dict[Role, str]:
    created = {role: await create_token(as_maintenance(address), role, role) for role in Role}
    return {role: each.token for role, each in created.items() if each is not None}


class FromAnywhere:
    """Has each request come from another address, so that failures to sign in are not slowed."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._numbers = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope | {"client": (f"client {next(self._numbers)}", 1)}, receive, send)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(FromAnywhere(app), log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Otherwise each answer waits 40 ms for an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("role", Role)
def test_any_request_is_answered_as_documented(
    address: str, tokens: dict[Role, str], tmp_path: Path, role: Role
) -> None:
    app = create_app(address)
    # A stream has no end of its own: these end where they would wait.
    app.state.feed.ending.set()
    with serving(app) as url:
        ask_anything(url, tokens[role], tmp_path, *options_of(role))


def options_of(role: Role) -> tuple[str, ...]:
    return AS_VIEWER if role is Role.VIEWER else ()


def ask_anything(server: str, token: str, tmp_path: Path, *options: str) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{server}/openapi.json", *options),
        *("--checks", "all", "--continue-on-failure", "--no-color"),
        *("--header", f"Authorization: Bearer {token}"),
        *("--generation-deterministic", "--max-examples", EXAMPLES),
    ]
    environment = {"PYTHONPATH": str(RULES.parent), "SCHEMATHESIS_HOOKS": RULES.stem}
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout, done.stdout
