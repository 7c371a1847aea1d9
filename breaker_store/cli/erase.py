"""`erase`: a person's right to be forgotten."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from breaker_store.cli.acting import Actor, AsJson
from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.user_id import UserId
from breaker_store.core.wording import counted
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.erasure import Erasure


def erase_user(  # noqa: PLR0913, PLR0917 - one parameter for each option
    user_id: UserId,
    actor: Actor,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Erase a user from the log: a person's right.

    All texts about them go, and whose the events are; what happened and when stays. Stop the user's bot before. Their events, and their breaker, are nobody's afterwards: counts, positions and the chain
    stay, and verify goes on to prove them. The erasure itself is an event. It can't be undone.

    Backups, exports, spools and what programs printed are not reached: see the README.
    """
    if not yes:
        typer.confirm(f"Erase user {user_id} from the log, for ever?", abort=True, err=True)
    found = run(_erase(locate(database_url, data_dir), user_id, actor))
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        typer.echo(
            f"erased user {user_id} from {counted(found.events, 'event')}; "
            f"{counted(found.batches, 'batch', 'batches')} sealed again"
        )


async def _erase(location: Location, user_id: int, actor: str) -> Erasure:
    from breaker_store.cli.progress import show_progress  # noqa: PLC0415 - slow to import
    from breaker_store.erasure import erase  # noqa: PLC0415
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location, maintaining=True) as database_url:
        with show_progress("looking for events") as show:
            return await erase(database_url, user_id, actor=actor, on_progress=show)
