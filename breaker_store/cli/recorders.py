"""`recorders`: how the recording of all processes goes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from breaker_store.cli.ending import run, say
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.times import plain
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.recorders import RecorderItem, RecorderList

NUMBERS: Final = ("queued", "spooled", "flushed", "set aside", "lost")
COLUMNS: Final = (
    "writer",
    "host",
    "pid",
    "status",
    "durability",
    *NUMBERS,
    "missing in the log",
    "oldest waiting",
    "last error",
)
STYLES: Final = {"recording": "green", "silent": "bold red", "ended": "dim"}
NOTHING: Final = "-"
WIDEST: Final = 100_000


def list_recorders(
    since_hours: Annotated[
        int, typer.Option(min=1, max=8_760, help="Those that have said something in so many hours.")
    ] = 24,
    as_json: Annotated[bool, typer.Option("--json", help="As lines of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show how each process records, and what it lost.

    What is missing is shown with the reason.
    """
    found = run(_ask(locate(database_url, data_dir), since_hours))
    if as_json:
        for item in found.recorders:
            typer.echo(json.dumps(dataclasses.asdict(item), default=plain))
    elif found.recorders:
        _print_table(found.recorders)
    else:
        say(f"no process has reported in {since_hours} hours")
    if found.truncated:
        say(f"there are more: these are the newest {len(found.recorders)}")


async def _ask(location: Location, since_hours: int) -> RecorderList:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.recorders import recorders  # noqa: PLC0415

    async with asking(location) as connection:
        return await recorders(connection, since_hours)


def _print_table(items: list[RecorderItem]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415

    from breaker_store.core.wording import printable  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=True)
    for item in items:
        table.add_row(*map(printable, _cells(item)), style=STYLES[item.status])
    # As wide as it needs to be: a line that is too long is the terminal's to wrap.
    Console(markup=False, highlight=False, width=WIDEST).print(table)


def _cells(item: RecorderItem) -> Iterator[str]:
    yield from (item.writer_id, item.host, str(item.pid), item.status, item.durability)
    for number in (item.queued, item.spooled, item.flushed, item.set_aside, item.lost):
        yield f"{number:,}"
    yield _missing(item)
    waiting = item.oldest_waiting_seconds
    yield NOTHING if waiting is None else f"{waiting:.1f} s"
    yield item.last_error or NOTHING


def _missing(item: RecorderItem) -> str:
    """Tell what the log says to be missing; what was lost just now it has not been told yet."""
    told = [f"{gap.events:,}: {gap.reason}" for gap in item.gaps]
    if not told and item.lost_why:
        told = [item.lost_why]
    return "; ".join(told) or NOTHING
