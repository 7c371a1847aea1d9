"""`reset`, `force-open`, `release`, `suspend`, `resume`: what an operator does to a breaker."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from breaker_store.cli.acting import Actor, AsJson, IfVersion, Reason, act, read_span, tell
from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.times import read_time
from breaker_store.cli.user_id import UserId

if TYPE_CHECKING:
    from breaker_store.postgres.standing import Standing


def reset(  # noqa: PLR0913, PLR0917 - one parameter for each option
    user_id: UserId,
    actor: Actor,
    reason: Reason = None,
    expected: IfVersion = None,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Close a user's breaker and forget its failures."""

    async def action(address: str) -> Standing:
        from breaker_store import control  # noqa: PLC0415 - slow to import

        return await control.reset(address, user_id, expected=expected, actor=actor, reason=reason)

    tell(run(act(locate(database_url, data_dir), action)), as_json=as_json)


def force_open(  # noqa: PLR0913, PLR0917 - one parameter for each option
    user_id: UserId,
    actor: Actor,
    for_seconds: Annotated[
        float | None,
        typer.Option("--for", parser=read_span, metavar="TIME", help="For so long: 90s, 30m, 2h, 1d12h."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(parser=read_time, metavar="TIME", help="Until then; ISO 8601, UTC unless it says."),
    ] = None,
    reason: Reason = None,
    expected: IfVersion = None,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Open a user's breaker until it is released, or for a time.

    After the time the next call may try, as after any wait. Once more sets another end.
    """
    if for_seconds is not None and until is not None:
        raise typer.BadParameter("--for and --until exclude each other")

    async def action(address: str) -> Standing:
        from breaker_store import control  # noqa: PLC0415 - slow to import

        return await control.force_open(
            address,
            user_id,
            for_seconds=for_seconds,
            until=until,
            expected=expected,
            actor=actor,
            reason=reason,
        )

    tell(run(act(locate(database_url, data_dir), action)), as_json=as_json)


def release(  # noqa: PLR0913, PLR0917 - one parameter for each option
    user_id: UserId,
    actor: Actor,
    reason: Reason = None,
    expected: IfVersion = None,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Close a user's breaker that is forced open."""

    async def action(address: str) -> Standing:
        from breaker_store import control  # noqa: PLC0415 - slow to import

        return await control.release(address, user_id, expected=expected, actor=actor, reason=reason)

    tell(run(act(locate(database_url, data_dir), action)), as_json=as_json)


def suspend(  # noqa: PLR0913, PLR0917 - one parameter for each option
    user_id: UserId,
    actor: Actor,
    reason: Reason = None,
    expected: IfVersion = None,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Refuse all calls of a user's bot until it is resumed.

    Nothing else ends it; once more sets another reason.
    """

    async def action(address: str) -> Standing:
        from breaker_store import control  # noqa: PLC0415 - slow to import

        return await control.suspend(address, user_id, expected=expected, actor=actor, reason=reason)

    tell(run(act(locate(database_url, data_dir), action)), as_json=as_json)


def resume(  # noqa: PLR0913, PLR0917 - one parameter for each option
    user_id: UserId,
    actor: Actor,
    reason: Reason = None,
    expected: IfVersion = None,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Let a suspended bot make calls again."""

    async def action(address: str) -> Standing:
        from breaker_store import control  # noqa: PLC0415 - slow to import

        return await control.resume(address, user_id, expected=expected, actor=actor, reason=reason)

    tell(run(act(locate(database_url, data_dir), action)), as_json=as_json)
