"""The argument that names a user."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from breaker_store.core.events import BIGINTS


def read_user_id(text: str) -> int:
    # Not typer's own bounds of a number: it would show them in every command's help.
    try:
        user_id = int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number") from None
    if user_id not in BIGINTS:
        raise typer.BadParameter(f"{text} is not a number of signed 64 bits")
    return user_id


UserId: TypeAlias = Annotated[
    int, typer.Argument(parser=read_user_id, metavar="USER_ID", help="Whose breaker.")
]
