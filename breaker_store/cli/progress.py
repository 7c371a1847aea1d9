"""How far a command is, on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)


class Show(Protocol):
    """Tells a bar what is done, and of how much; None if nobody knows. `what` is said from then on."""

    def __call__(self, done: int, total: int | None, what: str | None = None) -> None: ...


@contextmanager
def show_progress(what: str, *columns: ProgressColumn, wanted: bool = True) -> Iterator[Show]:
    """Show a bar on stderr, as long as it takes; none if that is no terminal, or none is wanted."""
    console = Console(stderr=True)
    shown = wanted and console.is_terminal
    usual = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    with Progress(
        *usual, *columns, TimeElapsedColumn(), console=console, transient=True, disable=not shown
    ) as progress:
        task = progress.add_task(what, total=None)

        def show(done: int, total: int | None, what: str | None = None) -> None:
            # A file that grows passes its total, and so does what was estimated.
            most = None if total is None else max(done, total)
            progress.update(task, completed=done, total=most, description=what)

        yield show
