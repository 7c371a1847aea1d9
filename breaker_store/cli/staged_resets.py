"""`staged-resets`: many breakers reset, a few a second."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from breaker_store.cli.acting import Actor
from breaker_store.cli.breaker_list import read_state
from breaker_store.cli.ending import FAILED, INTERRUPTED, run, say
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.narrowing import Since
from breaker_store.cli.times import plain
from breaker_store.core.events import CircuitState
from breaker_store.core.staged_resets import FASTEST_PER_SECOND, NOT_CLOSED, SLOWEST_PER_SECOND
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.staged_resets import StagedFilter, StagedResetFailure, StagedResetItem

NUMBERS: Final = ("number", "a second", "reset", "moved on", "failed", "waiting")
COLUMNS: Final = ("number", "state", *NUMBERS[1:], "since", "actor", "reason")
NOTHING: Final = "-"
CELL_WIDTH: Final = 80
WIDEST: Final = 100_000
WATCH_SECONDS: Final = 0.5

app = typer.Typer(help="Reset many breakers, a few a second.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(metavar="NUMBER", min=1, max=2**63 - 1, help="The staged reset's.")]
AsJson = Annotated[bool, typer.Option("--json", help="As one line of JSON.")]


def read_rate(text: str) -> float:
    # Not typer's own bounds: they let pass what is no number.
    try:
        rate = float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None
    if not SLOWEST_PER_SECOND <= rate <= FASTEST_PER_SECOND:
        raise typer.BadParameter(f"it is from {SLOWEST_PER_SECOND:g} to {FASTEST_PER_SECOND:g}")
    return rate


@app.command("start")
def start_staged_reset(  # noqa: PLR0913, PLR0917 - one parameter for each option
    per_second: Annotated[
        float,
        typer.Option(parser=read_rate, metavar="N", help="How many are reset in any second at most."),
    ],
    actor: Actor,
    error: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Those that tripped by this type of error.")
    ] = None,
    since: Since = None,
    states: Annotated[
        list[CircuitState] | None,
        typer.Option("--state", parser=read_state, metavar="STATE", help="Only open, or only half_open."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept with each reset.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them, and reset none.")] = False,
    in_background: Annotated[
        bool, typer.Option("--in-background", help="Leave it to a server: don't carry it out, or wait.")
    ] = False,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Reset the breakers that an error opened.

    At least an error, or a time since when they tripped. Ctrl-C stops the watching and not the reset, with which a
    server goes on.
    """
    wanted = _read_filter(error, since, states)
    location = locate(database_url, data_dir)
    if dry_run:
        matched = run(_count(location, wanted))
        typer.echo(json.dumps({"matched": matched}) if as_json else f"{_how_many(matched)} would be reset")
        return
    try:
        number = run(_stage(location, wanted, per_second, actor, reason))
    except KeyboardInterrupt:
        say("it may be staged nevertheless: breaker-store staged-resets list")
        raise
    if in_background:
        say(f"staged reset {number} is left to a server: breaker-store staged-resets watch {number}")
        _print_one(run(_ask(location, number)), as_json=as_json)
    else:
        _watch_to_end(location, number, as_json=as_json)


def _read_filter(
    error: str | None, since: datetime | None, states: list[CircuitState] | None
) -> StagedFilter:
    from breaker_store.postgres.staged_resets import StagedFilter  # noqa: PLC0415 - slow to import

    try:
        return StagedFilter(error, since, frozenset(states) if states else NOT_CLOSED)
    except ValueError as mistake:
        raise typer.BadParameter(str(mistake)) from None


def _how_many(matched: int) -> str:
    from breaker_store.postgres.staged_resets import LARGEST  # noqa: PLC0415 - slow to import

    if matched > LARGEST:
        return f"more than {LARGEST:,} breakers, which is the most for one staged reset,"
    return f"{matched:,} breaker{'' if matched == 1 else 's'}"


async def _count(location: Location, wanted: StagedFilter) -> int:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.staged_resets import count_matches  # noqa: PLC0415

    async with asking(location) as connection:
        return await count_matches(connection, wanted)


async def _stage(
    location: Location, wanted: StagedFilter, per_second: float, actor: str, reason: str | None
) -> int:
    from breaker_store.postgres.staged_resets import stage_reset  # noqa: PLC0415 - slow to import
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location) as database_url:
        return await stage_reset(database_url, wanted, per_second, actor=actor, reason=reason)


@app.command("watch")
def watch_staged_reset(
    number: Number, as_json: AsJson = False, database_url: DatabaseUrl = None, data_dir: DataDir = None
) -> None:
    """Wait for its end; carry it out if no server does."""
    _watch_to_end(locate(database_url, data_dir), number, as_json=as_json)


def _watch_to_end(location: Location, number: int, *, as_json: bool) -> None:
    try:
        found = run(_watch(location, number))
    except KeyboardInterrupt:
        say(
            f"staged reset {number} is not stopped: a server goes on with it, or `staged-resets watch {number}`;"
        )
        say(f"to stop it: breaker-store staged-resets stop {number}")
        raise typer.Exit(INTERRUPTED) from None
    _print_one(found, as_json=as_json)
    if found[0].failed or found[0].state != "done":
        raise typer.Exit(FAILED)


Found = tuple["StagedResetItem", list["StagedResetFailure"]]


async def _watch(location: Location, number: int) -> Found:
    """Show how far it is until it has ended, and carry it out whenever nobody else does."""
    from breaker_store.cli.progress import show_progress  # noqa: PLC0415 - slow to import
    from breaker_store.staged_reset import resetting  # noqa: PLC0415
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location) as database_url:
        here = Location(database_url)
        with show_progress(f"staged reset {number}") as show:
            async with resetting(database_url, number):
                return await _wait_for_end(here, number, show)


async def _wait_for_end(here: Location, number: int, show: Callable[[int, int | None], None]) -> Found:
    from breaker_store.errors import LogUnavailableError  # noqa: PLC0415 - as the others

    while True:
        try:
            item, failures = await _ask(here, number)
        except LogUnavailableError:
            # It goes on when the database is back, and so does this.
            await asyncio.sleep(WATCH_SECONDS)
            continue
        show(item.total - item.waiting, item.total)
        if item.state != "running":
            return item, failures
        await asyncio.sleep(WATCH_SECONDS)


async def _ask(location: Location, number: int) -> Found:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.staged_resets import first_failures, staged_reset  # noqa: PLC0415

    async with asking(location) as connection:
        item = await staged_reset(connection, number)
        return item, await first_failures(connection, item)


@app.command("show")
def show_staged_reset(
    number: Number, as_json: AsJson = False, database_url: DatabaseUrl = None, data_dir: DataDir = None
) -> None:
    """Show how far one is, and what could not be reset."""
    _print_one(run(_ask(locate(database_url, data_dir), number)), as_json=as_json)


@app.command("stop")
def stop_staged_reset(
    number: Number,
    actor: Actor,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Stop one for good.

    At most the breaker that is under way is still reset. It can't be resumed: start another one.
    """
    _print_one(run(_stop(locate(database_url, data_dir), number, actor)), as_json=as_json)


async def _stop(location: Location, number: int, actor: str) -> Found:
    from breaker_store.postgres.staged_resets import stop_staged_reset  # noqa: PLC0415 - slow to import
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location) as database_url:
        await stop_staged_reset(database_url, number, actor=actor)
        return await _ask(Location(database_url), number)


@app.command("list")
def list_staged_resets(
    as_json: Annotated[bool, typer.Option("--json", help="As lines of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """List them, newest first."""
    items = run(_list(locate(database_url, data_dir)))
    if as_json:
        for item in items:
            typer.echo(json.dumps(dataclasses.asdict(item), default=plain))
    elif items:
        _print_table(items)
    else:
        say("there are no staged resets")


async def _list(location: Location) -> list[StagedResetItem]:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.staged_resets import staged_resets  # noqa: PLC0415

    async with asking(location) as connection:
        return await staged_resets(connection)


def _print_table(items: list[StagedResetItem]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415

    from breaker_store.core.wording import shortened  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=True)
    for item in items:
        table.add_row(*(shortened(cell, CELL_WIDTH) for cell in _cells(item)))
    # As wide as it needs to be: a line that is too long is the terminal's to wrap.
    Console(markup=False, highlight=False, width=WIDEST).print(table)


def _cells(item: StagedResetItem) -> Iterator[str]:
    yield str(item.id)
    yield _state(item)
    yield f"{item.per_second:g}"
    for count in (item.reset, item.moved_on, item.failed, item.waiting):
        yield f"{count:,}"
    yield f"{item.created_at:%Y-%m-%d %H:%M:%S}Z"
    yield item.actor or NOTHING
    yield item.reason or NOTHING


def _state(item: StagedResetItem) -> str:
    return "waits for a server" if item.state == "running" and not item.underway else item.state


def _print_one(found: Found, *, as_json: bool) -> None:
    from breaker_store.core.wording import printable  # noqa: PLC0415 - as the others

    item, failures = found
    if as_json:
        told = [dataclasses.asdict(failure) for failure in failures]
        typer.echo(json.dumps({**dataclasses.asdict(item), "first_failures": told}, default=plain))
        return
    typer.echo(
        f"staged reset {item.id}: {_state(item)}; {item.reset:,} of {item.total:,} reset, "
        f"{item.moved_on:,} had moved on, {item.failed:,} failed, {item.waiting:,} "
        f"{'wait' if item.state == 'running' else 'left as they are'}"
    )
    if item.state == "running":
        typer.echo(f"at most {item.per_second:g} a second: {item.remaining_seconds:,.0f} s at least")
    for failure in failures:
        typer.echo(printable(f"user {failure.user_id}: {failure.error}"))
