"""`state`: how a breaker stands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.times import plain, read_time
from breaker_store.cli.user_id import UserId
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.standing import Standing


def show_state(
    user_id: UserId,
    at: Annotated[
        datetime | None,
        typer.Option(
            parser=read_time,
            metavar="TIME",
            help="How it stood at this time, by the events up to then; ISO 8601, UTC unless it says.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show how a user's breaker stands, or stood at a time."""
    standing = run(_ask(locate(database_url, data_dir), user_id, at))
    if as_json:
        typer.echo(json.dumps({"at": at, **to_document(standing)}, default=plain))
    else:
        _print_table(at, standing)


def to_document(standing: Standing) -> dict[str, object]:
    """Give it for programs: the keys of `get_state`, and what goes with them."""
    return {
        "user_id": standing.user_id,
        **standing.state,
        "sentence": standing.sentence,
        "version": str(standing.version),
        "forced": standing.forced,
        "suspended": standing.suspension is not None,
    }


async def _ask(location: Location, user_id: int, at: datetime | None) -> Standing:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.standing import read_standing  # noqa: PLC0415
    from breaker_store.postgres.time_travel import read_standing_at  # noqa: PLC0415

    async with asking(location) as connection:
        if at is None:
            return await read_standing(connection, user_id)
        return await read_standing_at(connection, user_id, at)


def _print_table(at: datetime | None, standing: Standing) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _rows(at, standing):
        table.add_row(name, value)
    Console(markup=False, highlight=False).print(table)


def _rows(at: datetime | None, standing: Standing) -> Iterator[tuple[str, str]]:
    state = standing.state
    yield "user", str(standing.user_id)
    if at is not None:
        yield "at", plain(at)
    yield "state", state["state"]
    if standing.forced:
        yield "by hand", standing.sentence
    elif state["state"] == "open":
        remaining = state["timeout_remaining"]
        yield "refuses for", f"{remaining:.1f} s" if remaining else "no longer: the next call may try"
    yield "failures", f"{state['failure_count']} of {state['failure_threshold']}"
    yield "successes while half-open", f"{state['success_count']} of {state['success_threshold']}"
    yield "wait when open", f"{state['timeout_seconds']:g} s"
    last_failure = state["last_failure_time"]
    yield "last failure", "none" if last_failure is None else _time(last_failure)
    yield "version", str(standing.version)


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
