"""`list`: the breakers of all users."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.narrowing import AsJsonLines, ListLimit, say_how_many
from breaker_store.cli.times import plain
from breaker_store.core.events import CircuitState
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.breaker_list import BreakerFilter, BreakerItem, BreakerOrder

COLUMNS: Final = ("user", "state", "last change", "trips", "tripped by", "may try in")
NUMBERS: Final = ("user", "trips", "may try in")
STYLES: Final = {"open": "red", "half_open": "yellow"}
NOTHING: Final = "-"


def read_state(text: str) -> CircuitState:
    try:
        return CircuitState(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(CircuitState)}") from None


def read_order(text: str) -> BreakerOrder:
    from breaker_store.postgres.breaker_list import BreakerOrder  # noqa: PLC0415 - slow to import

    try:
        return BreakerOrder(text.replace("-", "_"))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is none of last-transition, trips, user-id") from None


def list_breakers(  # noqa: PLR0913, PLR0917 - one parameter for each option
    states: Annotated[
        list[CircuitState] | None,
        typer.Option(
            "--state", parser=read_state, metavar="STATE", help="Only in this state; may be repeated."
        ),
    ] = None,
    error: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Only those whose last trip was by this type of error.")
    ] = None,
    sort: Annotated[
        str,
        typer.Option(metavar="ORDER", help="last-transition, newest first; trips, most first; or user-id."),
    ] = "last-transition",
    limit: ListLimit = 50,
    as_json: AsJsonLines = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """List breakers: those that changed last, or that trip most."""
    from breaker_store.postgres.breaker_list import BreakerFilter  # noqa: PLC0415 - slow to import

    wanted = BreakerFilter(frozenset(states) if states else None, error, read_order(sort), limit)
    items, more = run(_ask(locate(database_url, data_dir), wanted))
    if as_json:
        for item in items:
            typer.echo(json.dumps(dataclasses.asdict(item), default=plain))
    elif items:
        _print_table(items)
    say_how_many(len(items), "breaker", more=more)


async def _ask(location: Location, wanted: BreakerFilter) -> tuple[list[BreakerItem], bool]:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres import breaker_list  # noqa: PLC0415

    async with asking(location) as connection:
        page = await breaker_list.list_breakers(connection, wanted)
    return page.items, page.next_cursor is not None


def _print_table(items: list[BreakerItem]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415

    from breaker_store.core.wording import printable  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in NUMBERS else "left")
    for item in items:
        table.add_row(*map(printable, _cells(item)), style=STYLES.get(item.state))
    Console(markup=False, highlight=False).print(table)


def _cells(item: BreakerItem) -> Iterator[str]:
    yield str(item.user_id)
    yield item.state
    yield NOTHING if item.since is None else f"{item.since:%Y-%m-%d %H:%M:%S}Z"
    yield f"{item.trips:,}"
    yield item.trip_error or NOTHING
    yield _wait(item)


def _wait(item: BreakerItem) -> str:
    if item.state != CircuitState.OPEN:
        return NOTHING
    if item.suspended:
        return "until resumed"
    return "until released" if item.retry_at is None else f"{item.timeout_remaining:.1f} s"
