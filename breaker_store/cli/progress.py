"""How far a command is, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)


@contextmanager
def show_progress(
    what: str, *columns: ProgressColumn, wanted: bool = True
) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar on stderr, as long as it takes; none if that is no terminal, or none is wanted.

    The bar is told what is done, and of how much; None if nobody knows.
    """
    console = Console(stderr=True)
    shown = wanted and console.is_terminal
    usual = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    with Progress(
        *usual, *columns, TimeElapsedColumn(), console=console, transient=True, disable=not shown
    ) as progress:
        task = progress.add_task(what, total=None)

        def show(done: int, total: int | None) -> None:
            # A file that grows passes its total, and so does what was estimated.
            progress.update(task, completed=done, total=None if total is None else max(done, total))

        yield show
