"""`history`: what happened to a breaker."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.narrowing import AsJsonLines, Kinds, Since, Until, check_order
from breaker_store.cli.times import plain
from breaker_store.cli.user_id import UserId
from breaker_store.settings import Location

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from breaker_store.postgres.history import EventItem, TransitionItem
    from breaker_store.postgres.queries import HistoryFilter

    Item: TypeAlias = EventItem | TransitionItem


def show_history(  # noqa: PLR0913, PLR0917 - one parameter for each option
    user_id: UserId,
    limit: Annotated[int, typer.Option(min=1, help="How many events at most.")] = 50,
    kinds: Kinds = None,
    since: Since = None,
    until: Until = None,
    transitions: Annotated[
        bool, typer.Option("--transitions", help="Only transitions, with all that is known of them.")
    ] = False,
    as_json: AsJsonLines = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show what happened to a user's breaker, newest first."""
    from breaker_store.postgres.queries import HistoryFilter  # noqa: PLC0415 - slow to import

    check_order(since, until)
    wanted = HistoryFilter(since, until, frozenset(kinds) if kinds else None, limit)
    run(_show(locate(database_url, data_dir), user_id, wanted, transitions, as_json))


async def _show(
    location: Location, user_id: int, wanted: HistoryFilter, transitions: bool, as_json: bool
) -> None:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.cli.event_lines import print_event  # noqa: PLC0415

    async with asking(location) as connection:
        async for item in _read(connection, user_id, wanted, transitions):
            if as_json:
                typer.echo(json.dumps(dataclasses.asdict(item), default=plain))
            else:
                print_event(item)


async def _read(
    connection: AsyncConnection, user_id: int, wanted: HistoryFilter, transitions: bool
) -> AsyncIterator[Item]:
    """Give events page by page, as many as are wanted."""
    from breaker_store.postgres import queries  # noqa: PLC0415 - slow to import

    read_page = queries.transitions if transitions else queries.events
    missing, cursor = wanted.limit, wanted.after
    while missing > 0:
        page_filter = dataclasses.replace(wanted, limit=min(missing, queries.LARGEST_PAGE), after=cursor)
        page = await read_page(connection, user_id, page_filter)
        for item in page.items:
            yield item
        missing, cursor = missing - len(page.items), page.next_cursor
        if cursor is None:
            return
