"""`migrate`: the database's schema, up and down. An embedded database is also migrated up by every other command."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from breaker_store.cli.location import DatabaseUrl, DataDir, locate, owner_address

app = typer.Typer(help="Bring the database's schema up to date, or back.", no_args_is_help=True)


@app.command("up")
def migrate_up(
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="How far.")] = "head",
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Bring the schema up to date."""
    from breaker_store.postgres import migrating  # noqa: PLC0415 - slow to import

    with owner_address(locate(database_url, data_dir)) as url:
        before = asyncio.run(migrating.current(url))
        asyncio.run(migrating.upgrade(url, revision))
        after = asyncio.run(migrating.current(url))
    typer.echo(
        f"the schema is at {after}" + (" already" if before == after else f", up from {before or 'nothing'}")
    )


@app.command("down")
def migrate_down(
    revision: Annotated[
        str,
        typer.Argument(help="How far: a revision, or base, which deletes all tables.", metavar="REVISION"),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Take the schema back.

    What stands in tables that are taken away is gone.
    """
    from breaker_store.postgres import migrating  # noqa: PLC0415 - slow to import

    location = locate(database_url, data_dir)
    if not yes:
        what = "the whole log of events" if revision == "base" else "what newer revisions brought"
        typer.confirm(f"This deletes {what}, for ever. Go on?", abort=True, err=True)
    with owner_address(location) as url:
        asyncio.run(migrating.downgrade(url, revision))
        after = asyncio.run(migrating.current(url))
    typer.echo("the schema is gone" if after is None else f"the schema is at {after}")


@app.command("current")
def show_current(
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Tell which revision the schema is at, and which one is needed."""
    from breaker_store.postgres import migrating  # noqa: PLC0415 - slow to import

    with owner_address(locate(database_url, data_dir)) as url:
        found = asyncio.run(migrating.current(url))
    needed = migrating.needed_revision()
    if as_json:
        typer.echo(json.dumps({"current": found, "needed": needed}))
        return
    typer.echo(f"{found or 'none'} ({'up to date' if found == needed else f'needed: {needed}'})")
