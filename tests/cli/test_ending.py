from __future__ import annotations

import asyncio
import signal

import pytest
import typer
from typer.testing import CliRunner

from breaker_store.cli.ending import CommandGroup, extra_needed, run
from breaker_store.errors import BreakerStoreError, ConfigurationError


def call(work: object) -> tuple[int, str]:
    """Run a command that does this, and give its exit code and what it says on stderr."""
    app = typer.Typer(cls=CommandGroup, pretty_exceptions_enable=False)
    app.command("work")(work)
    app.command("other")(lambda: None)
    result = CliRunner().invoke(app, ["work"], catch_exceptions=False)
    return result.exit_code, result.stderr


def test_our_errors() -> None:
    """An error of ours is a line on stderr, with its text as it is, and exit code 1."""

    def work() -> None:
        raise BreakerStoreError("no [bold]luck")

    assert call(work) == (1, "breaker-store: no [bold]luck\n")


def test_defects() -> None:
    """A defect keeps its traceback."""

    def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(work)


def test_operating_system() -> None:
    """What the operating system refuses is a line too."""

    def work() -> None:
        raise PermissionError(13, "Permission denied", "/there")

    assert call(work) == (1, "breaker-store: [Errno 13] Permission denied: '/there'\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(number: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM let a command clean up, and end it with their codes and no words."""
    cleaned = []

    async def wait() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.Event().wait()
        finally:
            cleaned.append(number)

    assert call(lambda: run(wait())) == (code, "")
    assert cleaned == [number]


def test_a_missing_extra() -> None:
    """A package that is not installed is named with the extra that brings it."""
    said = r"no_such_package .* 'breaker-store\[demo\]'"
    with pytest.raises(ConfigurationError, match=said), extra_needed("demo"):
        import no_such_package.module  # noqa: F401, PLC0415


def test_a_missing_module_of_ours() -> None:
    """A module of our own that is missing is a defect."""
    with pytest.raises(ModuleNotFoundError), extra_needed("demo"):
        import breaker_store.no_such_module  # noqa: F401, PLC0415
