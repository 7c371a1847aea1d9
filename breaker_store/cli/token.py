"""`token`: who may use the admin API."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from breaker_store.cli.ending import run, say
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.times import plain
from breaker_store.core.access import NAME_RULE, Role, is_token_name
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.access_tokens import AccessTokenItem, CreatedToken

COLUMNS: Final = ("token", "role", "created", "last used", "expires", "revoked")
NOTHING: Final = "-"
WIDEST: Final = 100_000

_DURATION: Final = re.compile(r"([1-9][0-9]{0,6})([mhd])")
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_LONGEST: Final = timedelta(days=3_650)

app = typer.Typer(help="Say who may use the admin API.", no_args_is_help=True)


def read_name(text: str) -> str:
    if not is_token_name(text):
        raise typer.BadParameter(f"a name has {NAME_RULE}")
    return text


def read_duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    duration = timedelta() if match is None else int(match[1]) * _UNITS[match[2]]
    if not timedelta() < duration <= _LONGEST:
        raise typer.BadParameter("a time is written as in 90d, 12h or 30m, and is at most 3650d")
    return duration


Name = Annotated[str, typer.Argument(parser=read_name, metavar="NAME", help=f"Whose: {NAME_RULE}.")]


@app.command("create")
def create(  # noqa: PLR0913, PLR0917 - each is an option
    name: Name,
    role: Annotated[Role, typer.Option(help="A viewer reads, an operator acts too.")],
    expires_in: Annotated[
        timedelta | None,
        typer.Option(parser=read_duration, metavar="TIME", help="As in 90d, 12h or 30m; without it never."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make a token, and show it this once.

    Only a hash of it is kept. The name is the actor of what is done with it, and is never used again, also when it is
    revoked. Servers know of it within 2 seconds.
    """
    created = run(_create(locate(database_url, data_dir), name, role, expires_in))
    if created is None:
        raise typer.BadParameter(
            f"there is or was a token {name}, or one that differs by upper and lower case alone: a name is never used "
            "again, since the log says by it who did what"
        )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(created), default=plain))
    else:
        # By itself, so that a script can take it; what is said of it goes elsewhere.
        typer.echo(created.token)
        say(f"made the {role} token {name}{_until(created.expires_at)}; it is not shown again")


def _until(expires_at: datetime | None) -> str:
    return ", which never expires" if expires_at is None else f", which holds until {_to_minute(expires_at)}"


async def _create(
    location: Location, name: str, role: Role, expires_in: timedelta | None
) -> CreatedToken | None:
    from breaker_store.postgres.access_tokens import create_token  # noqa: PLC0415 - slow to import
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location, maintaining=True) as database_url:
        return await create_token(database_url, name, role, expires_in)


@app.command("list")
def show_tokens(
    as_json: Annotated[bool, typer.Option("--json", help="As lines of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show all tokens ever made, and when they were used last."""
    items = run(_list(locate(database_url, data_dir)))
    if as_json:
        for item in items:
            typer.echo(json.dumps(dataclasses.asdict(item), default=plain))
    elif items:
        _print_table(items)
    else:
        say("no token was ever made: the admin API is open, on the loopback address alone")


async def _list(location: Location) -> list[AccessTokenItem]:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.access_tokens import list_tokens  # noqa: PLC0415

    async with asking(location) as connection:
        return await list_tokens(connection)


def _print_table(items: list[AccessTokenItem]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, no_wrap=True)
    for item in items:
        table.add_row(*_cells(item), style="dim" if item.revoked_at else None)
    # As wide as it needs to be: a line that is too long is the terminal's to wrap.
    Console(markup=False, highlight=False, width=WIDEST).print(table)


def _cells(item: AccessTokenItem) -> Iterator[str]:
    yield from (item.name, item.role)
    for at in (item.created_at, item.last_used_at, item.expires_at, item.revoked_at):
        yield NOTHING if at is None else _to_minute(at)


def _to_minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}Z"


@app.command("revoke")
def revoke(name: Name, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """End a token for ever.

    Servers refuse it within 2 seconds, and end its streams within 10.
    """
    if not run(_revoke(locate(database_url, data_dir), name)):
        raise typer.BadParameter("there is no token of this name")
    typer.echo(f"the token {name} is revoked")


async def _revoke(location: Location, name: str) -> bool:
    from breaker_store.postgres.access_tokens import revoke_token  # noqa: PLC0415 - slow to import
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location, maintaining=True) as database_url:
        return await revoke_token(database_url, name)
