"""How commands end: what went wrong is a line on stderr and an exit code, never a traceback.

0 is success, 1 an error, 2 a mistake in the command line, 130 Ctrl-C and 143 SIGTERM. Only a defect of ours shows a
traceback.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import typer
from typer.core import TyperGroup

from breaker_store.errors import BreakerStoreError, ConfigurationError

FAILED: Final = 1
INTERRUPTED: Final = 128 + signal.SIGINT
TERMINATED: Final = 128 + signal.SIGTERM

EXIT_CODES: Final = (
    "Exit codes: 0 success, 1 an error, which is one line on stderr, 2 a mistake in the command line, 130 Ctrl-C, "
    "143 SIGTERM."
)

Result = TypeVar("Result")


class CommandGroup(TyperGroup):
    """Commands under headings, whose errors are shown as this module says."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands under their panels' names: typer itself does so only with its boxes and markup."""
        commands = {name: self.commands[name] for name in self.list_commands(ctx)}
        width = max(map(len, commands))
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in commands.items():
            line = command.get_short_help_str(formatter.width - width - 6)
            panel = getattr(command, "rich_help_panel", None) or "Commands"
            panels.setdefault(panel, []).append((name.ljust(width), line))
        for panel, lines in panels.items():
            with formatter.section(panel):
                formatter.write_dl(lines)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except asyncio.CancelledError:
            raise typer.Exit(TERMINATED) from None
        except BrokenPipeError:
            # Whoever read our output has seen enough; typer ends in silence.
            raise
        except Exception as error:
            trouble = describe_trouble(error)
            if trouble is None:
                raise
            say(f"breaker-store: {trouble}")
            raise typer.Exit(FAILED) from None


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's work to its end; SIGTERM lets it clean up first, as Ctrl-C does."""

    async def end_by_signals() -> Result:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    return asyncio.run(end_by_signals())


@contextmanager
def extra_needed(extra: str) -> Iterator[None]:
    """Say which extra to install when an import in this block fails.

    Raises:
        ConfigurationError: a package of somebody else's is missing.

    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "breaker_store":
            raise
        raise ConfigurationError(
            f"{error.name} is not installed: run `pip install 'breaker-store[{extra}]'`"
        ) from error


def describe_trouble(error: Exception) -> str | None:
    """Give the line to show for an error that is no defect of ours; None for one that is."""
    if isinstance(error, BreakerStoreError):
        return str(error)
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return f"Postgres can't be reached: {_first_line(error)}"
    if isinstance(error, OSError):
        return _first_line(error)
    return _first_line(error) if isinstance(error, _foreign_errors()) else None


def _foreign_errors() -> tuple[type[Exception], ...]:
    import asyncpg  # noqa: PLC0415 - slow, and not needed when all is well
    from alembic.util import CommandError  # noqa: PLC0415
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    return asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError, CommandError


def _first_line(error: Exception) -> str:
    """Give what an error says up to where it may go on with a statement and its data."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def say(text: str) -> None:
    """Write a line to stderr."""
    typer.echo(text, err=True)
