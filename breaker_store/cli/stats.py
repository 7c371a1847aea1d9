"""`stats`: what is stored, how it grows, and when the disk will be full."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from breaker_store.cli.acting import AsJson
from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.core.storage import advise_interval, advise_retention, days_until_full
from breaker_store.core.wording import counted, size
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.core.storage import Storage

COLUMNS: Final = ("what", "size", "a day", "is kept")
UNKNOWN_DISK: Final = (
    "when the disk is full can't be known from here: say how large it is, as in --capacity 500GB"
)

_SIZE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(MB|GB|TB)")
_UNITS: Final = {"MB": 10**6, "GB": 10**9, "TB": 10**12}


def read_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None or float(match[1]) == 0:
        raise typer.BadParameter("a size is written as in 500GB, 750MB or 1.5TB")
    return round(float(match[1]) * _UNITS[match[2]])


def show_stats(
    capacity: Annotated[
        int | None,
        typer.Option(
            parser=read_size,
            metavar="SIZE",
            help="What the database may take in all, as in 500GB. [default: the disk, of an embedded one]",
        ),
    ] = None,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show what is stored, how it grows, when the disk is full.

    Numbers of rows are estimates; growth is that of the last seven whole days, as far as there are any.
    """
    location = locate(database_url, data_dir)
    storage, free_bytes = run(_measure(location, capacity))
    days = None if free_bytes is None else days_until_full(storage.parts, free_bytes)
    full_on = None if days is None else datetime.now(UTC).date() + timedelta(days=days)
    advice = [advise_interval(storage), *advise_retention(storage.parts)]
    if as_json:
        typer.echo(json.dumps(_document(storage, free_bytes, full_on, advice)))
        return
    _print_table(storage)
    for line in (*_lines(storage), _disk_line(free_bytes, days, full_on), *advice):
        typer.echo(line)


async def _measure(location: Location, capacity: int | None) -> tuple[Storage, int | None]:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.reading import driver_connection_of  # noqa: PLC0415
    from breaker_store.postgres.storage import database_bytes, measure  # noqa: PLC0415

    async with asking(location) as connection:
        driver_connection = await driver_connection_of(connection)
        storage = await measure(driver_connection)
        if capacity is None:
            return storage, _free_disk(location)
        return storage, max(0, capacity - await database_bytes(driver_connection))


def _free_disk(location: Location) -> int | None:
    """Tell what is free on the disk of an embedded Postgres; its data may be elsewhere than the folder that was named."""
    if location.data_dir is None:
        return None
    from breaker_store.embedded import EmbeddedPostgres  # noqa: PLC0415 - an extra

    with EmbeddedPostgres(location.data_dir) as server:
        return shutil.disk_usage(server.log_file.parent).free


def _document(
    storage: Storage, free_bytes: int | None, full_on: date | None, advice: list[str]
) -> dict[str, Any]:
    totals = {"bytes": storage.bytes, "bytes_a_day": storage.bytes_a_day}
    disk = {"free_bytes": free_bytes, "full_on": full_on and full_on.isoformat(), "advice": advice}
    return asdict(storage) | totals | disk


def _lines(storage: Storage) -> Iterator[str]:
    yield f"about {counted(storage.outcomes, 'outcome')}; {_growth(storage)}"
    if storage.table_bytes is not None and storage.index_bytes is not None:
        ledger = storage.ledger_bytes or 0.0
        total = storage.table_bytes + storage.index_bytes + ledger
        yield (
            f"{total:,.0f} bytes an event: {storage.table_bytes:,.0f} in tables, {storage.index_bytes:,.0f} in "
            f"indexes, {ledger:,.0f} in the ledger"
        )


def _growth(storage: Storage) -> str:
    if storage.days_measured == 0:
        return f"{storage.events_a_day:,.0f} events today, and no whole day yet to measure growth by"
    return f"{storage.events_a_day:,.0f} events a day in the last {counted(storage.days_measured, 'day')}"


def _disk_line(free_bytes: int | None, days: int | None, full_on: date | None) -> str:
    if free_bytes is None:
        return UNKNOWN_DISK
    if days is None:
        return f"{size(free_bytes)} are free: at this rate enough for a century"
    return f"{size(free_bytes)} are free: at this rate full in {counted(days, 'day')}, on {full_on}"


def _print_table(storage: Storage) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, no_wrap=True, justify="right" if name in {"size", "a day"} else "left")
    for part in storage.parts:
        kept = "for ever" if part.keep_days is None else counted(part.keep_days, "day")
        table.add_row(part.name, size(part.bytes), size(round(part.bytes_a_day)), kept)
    table.add_row("in all", size(storage.bytes), size(round(storage.bytes_a_day)), "")
    Console(markup=False, highlight=False).print(table)
