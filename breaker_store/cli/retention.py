"""`retention`: for how long what is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from breaker_store.cli.acting import Actor
from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.times import plain
from breaker_store.core.retention import ADVISED_DAYS, Kept, read_days
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.retention import RetentionPolicy

    Policies: TypeAlias = dict[Kept, RetentionPolicy]

COLUMNS: Final = ("what", "is kept", "advised", "imports", "set by", "set")
FOR_EVER: Final = "for ever"
NOTHING: Final = "-"

app = typer.Typer()

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="As lines of JSON.")]
What: TypeAlias = Annotated[Kept, typer.Argument(help="Outcomes, or roll-ups by minute, hour or day.")]


def read_keep_days(text: str) -> int:
    try:
        return read_days(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Say for how long things are kept; without a command, show it.

    Nothing is deleted until it is said here, and then by `maintain` or a `serve` that runs. Transitions are kept for ever.
    """
    if context.invoked_subcommand is None:
        _tell(run(_read(locate(database_url, data_dir))), as_json)
    elif as_json or database_url is not None or data_dir is not None:
        raise typer.BadParameter(f"options stand behind the command {context.invoked_subcommand!r}")


@app.command("set")
def set_one(  # noqa: PLR0913, PLR0917 - one parameter for each option
    what: What,
    keep: Annotated[
        int, typer.Argument(parser=read_keep_days, metavar="DAYS", help="As in 30d, from 1d to 36500d.")
    ],
    actor: Actor,
    with_imports: Annotated[
        bool, typer.Option("--with-imports", help="Days that an import touched go too; they stay otherwise.")
    ] = False,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Keep something for so many days since it was stored, and no longer.

    What that lets go is gone for ever with the next maintenance: `maintain --dry-run` tells what it is.
    """
    _tell(run(_set(locate(database_url, data_dir), what, keep, with_imports, actor)), as_json)


@app.command("clear")
def clear_one(
    what: What, as_json: AsJson = False, database_url: DatabaseUrl = None, data_dir: DataDir = None
) -> None:
    """Keep something for ever again."""
    _tell(run(_clear(locate(database_url, data_dir), what)), as_json)


async def _read(location: Location) -> Policies:
    from breaker_store.postgres.retention import find_policies  # noqa: PLC0415 - slow to import
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location) as database_url:
        return await find_policies(database_url)


async def _set(location: Location, what: Kept, keep_days: int, imports: bool, actor: str) -> Policies:
    from breaker_store.postgres.retention import find_policies, set_policy  # noqa: PLC0415 - slow to import
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location, maintaining=True) as database_url:
        await set_policy(database_url, what, keep_days, imports=imports, actor=actor)
        return await find_policies(database_url)


async def _clear(location: Location, what: Kept) -> Policies:
    from breaker_store.postgres.retention import clear_policy, find_policies  # noqa: PLC0415 - slow to import
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location, maintaining=True) as database_url:
        await clear_policy(database_url, what)
        return await find_policies(database_url)


def _tell(policies: Policies, as_json: bool) -> None:
    if as_json:
        for what in Kept:
            typer.echo(json.dumps(_document(what, policies.get(what)), default=plain))
    else:
        _print_table(policies)


def _document(what: Kept, policy: RetentionPolicy | None) -> dict[str, object]:
    unset = dict.fromkeys(("keep_days", "imports", "set_at", "actor"))
    found = unset if policy is None else asdict(policy)
    return {"kind": what.value} | found | {"advised_days": ADVISED_DAYS[what]}


def _print_table(policies: Policies) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415

    from breaker_store.core.wording import printable  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, no_wrap=True)
    for what in Kept:
        table.add_row(*map(printable, _cells(what, policies.get(what))))
    table.add_row("transitions", FOR_EVER, FOR_EVER, *[NOTHING] * 3)
    Console(markup=False, highlight=False).print(table)


def _cells(what: Kept, policy: RetentionPolicy | None) -> Iterator[str]:
    yield what if what is Kept.OUTCOMES else f"roll-ups: {what}"
    yield FOR_EVER if policy is None else f"{policy.keep_days} days"
    advised = ADVISED_DAYS[what]
    yield FOR_EVER if advised is None else f"{advised} days"
    if policy is None:
        yield from [NOTHING] * 3
        return
    yield "go too" if policy.imports else "stay"
    yield policy.actor or NOTHING
    yield f"{policy.set_at:%Y-%m-%d %H:%M}Z"
