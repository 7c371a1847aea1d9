"""What the commands that act on one breaker have in common: their options, and what they say afterwards."""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from breaker_store.cli.state import to_document
from breaker_store.core.standing import StateVersion
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.standing import Standing

# With what is said behind it, no longer than what a sentence has of an actor.
_LONGEST_NAME: Final = 64
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def login_name() -> str:
    """Tell who runs this process, by the operating system and not by the environment, which anybody sets."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def read_actor(text: str) -> str:
    """Give the actor that the log gets: whom a token knows is never called so, and this is only what somebody says."""
    if not text.strip() or len(text) > _LONGEST_NAME or not text.isprintable():
        raise typer.BadParameter(f"a name has 1 to {_LONGEST_NAME} printable characters, and not only spaces")
    return f"{text} (command line)"


def read_span(text: str) -> float:
    """Read a length of time in seconds."""
    if re.fullmatch("([0-9]{1,12}(\\.[0-9]{1,6})?[smhd])+", text) is None:
        raise typer.BadParameter(f"{text!r} is not a length of time, such as 90s, 30m, 2h or 1d12h")
    return sum(float(part[:-1]) * _SECONDS[part[-1]] for part in re.findall("[0-9.]+[smhd]", text))


def read_version(text: str) -> StateVersion:
    # As the API's ETag has it, or without the quotation marks, which a shell takes away.
    try:
        return StateVersion.read(text.strip('"'))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Actor: TypeAlias = Annotated[
    str,
    typer.Option(
        default_factory=login_name,
        parser=read_actor,
        metavar="NAME",
        help="Who does it; the log adds that the command line says so. [default: your login name]",
        show_default=False,
    ),
]
Reason: TypeAlias = Annotated[str | None, typer.Option(metavar="TEXT", help="Why; it is kept with it.")]
IfVersion: TypeAlias = Annotated[
    StateVersion | None,
    typer.Option(
        "--if-version",
        parser=read_version,
        metavar="VERSION",
        help="Only if the breaker still is at this version, as `state` shows it.",
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="As one line of JSON.")]


async def act(location: Location, action: Callable[[str], Awaitable[Standing]]) -> Standing:
    """Carry out an action, given the database's address, at a location whose embedded server runs as long."""
    from breaker_store.store import open_database  # noqa: PLC0415 - slow to import

    async with open_database(location) as database_url:
        return await action(database_url)


def tell(standing: Standing, *, as_json: bool) -> None:
    """Say how the breaker stands after it."""
    typer.echo(json.dumps(to_document(standing)) if as_json else standing.sentence)
