"""`state`: how a breaker stands."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.user_id import UserId
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.runtime.told_state import StateDict


def show_state(
    user_id: UserId,
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show how a user's breaker stands, as the log has it."""
    state = run(_ask(locate(database_url, data_dir), user_id))
    if as_json:
        typer.echo(json.dumps({"user_id": user_id, **state}))
    else:
        _print_table(user_id, state)


async def _ask(location: Location, user_id: int) -> StateDict:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.queries import breaker_state  # noqa: PLC0415

    async with asking(location) as connection:
        return await breaker_state(connection, user_id)


def _print_table(user_id: int, state: StateDict) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _rows(user_id, state):
        table.add_row(name, value)
    Console(markup=False, highlight=False).print(table)


def _rows(user_id: int, state: StateDict) -> list[tuple[str, str]]:
    last_failure = state["last_failure_time"]
    rows = [
        ("user", str(user_id)),
        ("state", state["state"]),
        ("failures", f"{state['failure_count']} of {state['failure_threshold']}"),
        ("successes while half-open", f"{state['success_count']} of {state['success_threshold']}"),
        ("wait when open", f"{state['timeout_seconds']:g} s"),
        ("last failure", "none" if last_failure is None else _time(last_failure)),
    ]
    if state["state"] == "open":
        remaining = state["timeout_remaining"]
        rows.insert(
            2, ("refuses for", f"{remaining:.1f} s" if remaining else "no longer: the next call may try")
        )
    return rows


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
