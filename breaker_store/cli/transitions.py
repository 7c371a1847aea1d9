"""`transitions`: how the breakers of all users changed."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.narrowing import (
    AsJsonLines,
    ListLimit,
    Since,
    TransitionKinds,
    Until,
    check_order,
    say_how_many,
)
from breaker_store.cli.times import plain
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.transition_list import TransitionFilter


def list_transitions(  # noqa: PLR0913, PLR0917 - one parameter for each option
    limit: ListLimit = 50,
    kinds: TransitionKinds = None,
    error: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Only those that this type of error led to.")
    ] = None,
    actor: Annotated[str | None, typer.Option(metavar="NAME", help="Only what this one did.")] = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJsonLines = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show how the breakers of all users changed, newest first."""
    from breaker_store.postgres.transition_list import TransitionFilter  # noqa: PLC0415 - slow to import

    check_order(since, until)
    wanted = TransitionFilter(since, until, frozenset(kinds) if kinds else None, error, actor, limit)
    run(_show(locate(database_url, data_dir), wanted, as_json))


async def _show(location: Location, wanted: TransitionFilter, as_json: bool) -> None:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.cli.event_lines import print_event  # noqa: PLC0415
    from breaker_store.postgres import transition_list  # noqa: PLC0415

    async with asking(location) as connection:
        page = await transition_list.list_transitions(connection, wanted)
    for item in page.items:
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(item), default=plain))
        else:
            print_event(item, with_user=True)
    say_how_many(len(page.items), "transition", more=page.next_cursor is not None)
