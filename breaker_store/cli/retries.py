"""`retries`: how often a bot's calls were tried again, and what came of it."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.times import plain, read_time
from breaker_store.cli.user_id import UserId
from breaker_store.core.retries import DEFAULT_HOURS, MOST_HOURS
from breaker_store.core.wording import counted, shortened
from breaker_store.settings import Location

if TYPE_CHECKING:
    from rich.table import Table

    from breaker_store.postgres.retry_statistics import RetryStatistics

_ERROR_WIDTH: Final = 60


def show_retries(  # noqa: PLR0913, PLR0917 - one parameter for each option
    user_id: UserId,
    hours: Annotated[int, typer.Option(min=1, max=MOST_HOURS, help="Of how many hours.")] = DEFAULT_HOURS,
    until: Annotated[
        datetime | None,
        typer.Option(parser=read_time, metavar="TIME", help="Up to this time. [default: now]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show how often a bot's calls were tried again."""
    found = run(_ask(locate(database_url, data_dir), user_id, hours, until))
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), default=plain))
    else:
        _print(found)


async def _ask(location: Location, user_id: int, hours: int, until: datetime | None) -> RetryStatistics:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.retry_statistics import retry_statistics  # noqa: PLC0415

    async with asking(location) as connection:
        return await retry_statistics(connection, user_id, hours=hours, until=until)


def _print(found: RetryStatistics) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import

    typer.echo(_sentence(found))
    console = Console(markup=False, highlight=False)
    for table in (_attempts(found), _errors(found)):
        if table.row_count:
            console.print()
            console.print(table)


def _sentence(found: RetryStatistics) -> str:
    """Say it in one line, for programs that read lines too."""
    span = f"from {found.since:%Y-%m-%d %H:%M:%S}Z to {found.until:%Y-%m-%d %H:%M:%S}Z"
    if found.is_cut:
        span += ", all that was looked at"
    calls = counted(found.first_attempts, "first attempt")
    if not found.retries:
        return f"User {found.user_id}'s bot tried no call again {span}: {calls}."
    return (
        f"User {found.user_id}'s bot made {calls} and {counted(found.retries, 'retry', 'retries')} {span}: of "
        f"{counted(found.retried_calls, 'retried call')} {found.recovered_calls:,} succeeded in the end."
    )


def _attempts(found: RetryStatistics) -> Table:
    table = _table("attempt", "calls", "succeeded", "declined", "rate limited", "failed")
    for item in found.attempts:
        table.add_row(*(f"{number:,}" for number in dataclasses.astuple(item)))
    return table


def _errors(found: RetryStatistics) -> Table:
    table = _table("retries", "ended with")
    table.columns[1].justify = "left"
    for error in found.errors:
        table.add_row(f"{error.retries:,}", shortened(error.error_type, _ERROR_WIDTH))
    return table


def _table(*names: str) -> Table:
    from rich.table import Table  # noqa: PLC0415 - slow to import

    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right")
    return table
