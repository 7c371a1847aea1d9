"""`why`: what opened a breaker, and whose trouble it looks like."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.times import plain
from breaker_store.cli.user_id import UserId
from breaker_store.core.events import EventId
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.explanation_items import ExplanationItem


def read_id(text: str) -> EventId:
    try:
        return EventId.read(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def explain_transition(
    user_id: UserId,
    event_id: Annotated[
        EventId | None,
        typer.Argument(
            parser=read_id,
            metavar="[EVENT_ID]",
            help="Which transition, as `history` shows it. [default: the one that blocks the user, or did last]",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Explain why a breaker opened, with the evidence."""
    item = run(_ask(locate(database_url, data_dir), user_id, event_id))
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(item), default=plain))
    else:
        from breaker_store.cli.explanation_lines import print_explanation  # noqa: PLC0415 - slow to import

        print_explanation(item)


async def _ask(location: Location, user_id: int, event_id: EventId | None) -> ExplanationItem:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.explaining import why  # noqa: PLC0415

    async with asking(location) as connection:
        return await why(connection, user_id, event_id)
