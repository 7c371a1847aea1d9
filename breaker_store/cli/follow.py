"""`follow`: the transitions of all breakers, as they come."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from breaker_store.cli.ending import run, say
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.times import plain
from breaker_store.errors import LogUnavailableError
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.feed import AnotherHistory, FeedCursor, FeedItem, TransitionFeed

POLL_SECONDS: Final = 0.1
AWAY_SECONDS: Final = 1.0
PAGE: Final = 500


def read_place(text: str) -> FeedCursor:
    from breaker_store.postgres.feed import FeedCursor, FeedCursorError  # noqa: PLC0415 - slow to import

    try:
        return FeedCursor.read(text)
    except FeedCursorError:
        raise typer.BadParameter(f"{text!r} is not a position, such as 17, or 0 for the beginning") from None


def follow(
    after: Annotated[
        str | None,
        typer.Option(
            parser=read_place,
            metavar="POSITION",
            help="Begin behind this position, with 0 at the very first transition; otherwise now.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As lines of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Follow the transitions of all breakers until Ctrl-C."""
    # What the option's parser gave; typer takes the type of the parameter for that of what was typed.
    place: FeedCursor | None = after  # type: ignore[assignment]
    run(_follow(locate(database_url, data_dir), place, as_json))


async def _follow(location: Location, after: FeedCursor | None, as_json: bool) -> None:
    from breaker_store.cli.event_lines import print_event  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.feed import TransitionFeed  # noqa: PLC0415
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location) as database_url:
        feed = TransitionFeed(database_url)
        try:
            async for item in _read(feed, await feed.find(after)):
                if as_json:
                    typer.echo(json.dumps(dataclasses.asdict(item.transition), default=plain))
                else:
                    print_event(item.transition, with_user=True)
        finally:
            await feed.close()


async def _read(feed: TransitionFeed, start: FeedCursor | AnotherHistory) -> AsyncIterator[FeedItem]:
    """Give transitions for ever, also over times in which Postgres is away."""
    cursor = _face(start)
    away = False
    while True:
        try:
            page = await feed.read(cursor, PAGE)
        except LogUnavailableError as error:
            if not away:
                say(f"breaker-store: waiting for Postgres: {error}")
            away = True
            await asyncio.sleep(AWAY_SECONDS)
            continue
        away = False
        if not isinstance(page, list):
            cursor = _face(page)
            continue
        for item in page:
            yield item
            cursor = item.cursor
        if not page:
            await asyncio.sleep(POLL_SECONDS)


def _face(place: FeedCursor | AnotherHistory) -> FeedCursor:
    """Give the place to go on behind, and say so if it is in another history than before."""
    from breaker_store.postgres.feed import FeedCursor  # noqa: PLC0415 - slow to import

    if isinstance(place, FeedCursor):
        return place
    say(
        f"breaker-store: the database has another history, without {place.asked}: it was restored, or failed over;"
        f" going on behind {place.last}"
    )
    return place.last
