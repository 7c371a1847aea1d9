"""`deliver`: what a process that will not come back left on its disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from breaker_store.cli.ending import run, say
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.runtime.tally import Tally


def deliver_spool(
    spool_dir: Annotated[Path, typer.Argument(metavar="SPOOL_DIR", help="The folder of its spool.")],
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Store what a process that is gone left in its spool."""
    tally = run(_deliver(locate(database_url, data_dir), spool_dir))
    if as_json:
        typer.echo(json.dumps(_document(tally)))
    else:
        typer.echo(f"{tally.flushed:,} events were stored")
    if tally.lost_why:
        say(f"{tally.lost.total():,} events are lost: {tally.lost_why}")
    if tally.set_aside:
        say(f"{tally.set_aside:,} events could not be read or stored: see {spool_dir / 'aside'}")


def _document(tally: Tally) -> dict[str, object]:
    return {
        "flushed": tally.flushed,
        "set_aside": tally.set_aside,
        "lost": tally.lost.total(),
        "lost_why": tally.lost_why,
    }


async def _deliver(location: Location, spool_dir: Path) -> Tally:
    from breaker_store.store import deliver_spool, open_database  # noqa: PLC0415 - slow to import

    async with open_database(location) as database_url:
        return await deliver_spool(database_url, spool_dir)
