"""Requests made up from the API's own documentation, sane and insane, are answered as it says: no 5xx among them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.example_requests import PREFIX, seed

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


@pytest.mark.timeout(300)
def test_any_request_is_answered_as_documented(server: str, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{server}/openapi.json"),
        # A stream never ends.
        *(
            "--exclude-path",
            f"{PREFIX}/transitions/stream",
            "--checks",
            "all",
            "--continue-on-failure",
            "--no-color",
        ),
        *("--generation-deterministic", "--max-examples", EXAMPLES),
    ]
    environment = {"PYTHONPATH": str(RULES.parent), "SCHEMATHESIS_HOOKS": RULES.stem}
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout
