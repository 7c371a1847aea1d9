"""`policy`: the rules of one user's breaker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from breaker_store.cli.acting import Actor, AsJson, IfVersion, Reason, act
from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.user_id import UserId
from breaker_store.core.policy import Policy
from breaker_store.core.standing import StateVersion, describe_policy
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.standing import Standing

Names: TypeAlias = list[str] | None


def show_or_set_policy(  # noqa: PLR0913, PLR0917 - one parameter for each option
    user_id: UserId,
    actor: Actor,
    failure_threshold: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Failures in a row that open it.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long it then refuses calls.")
    ] = None,
    success_threshold: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Successful probes that close it.")
    ] = None,
    half_open_max_calls: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Probes that may run at once.")
    ] = None,
    counts: Annotated[
        Names,
        typer.Option(
            metavar="NAME",
            help="An exception that is a failure; may be repeated. `Exception` is all of them.",
        ),
    ] = None,
    ignores: Annotated[
        Names, typer.Option(metavar="NAME", help="One that is none; may be repeated. An empty name: none is.")
    ] = None,
    default: Annotated[bool, typer.Option("--default", help="Give up the user's own rules.")] = False,
    reason: Reason = None,
    expected: IfVersion = None,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show a user's policy, or set it.

    What is not given stays as it is in force. Without any option it is shown.
    """
    changes = _changes(
        failure_threshold=failure_threshold,
        timeout_seconds=timeout,
        success_threshold=success_threshold,
        half_open_max_calls=half_open_max_calls,
        counted_errors=_names(counts),
        ignored_errors=_names(ignores),
    )
    if default and changes:
        raise typer.BadParameter("--default takes no rules beside it")
    if (reason or expected) and not (changes or default):
        raise typer.BadParameter("--reason and --if-version belong to a change, and none is given")
    location = locate(database_url, data_dir)
    if changes or default:
        standing = run(_set(location, user_id, None if default else changes, expected, actor, reason))
    else:
        standing = run(_ask(location, user_id))
    _print(standing, as_json=as_json)


def _changes(**given: Any) -> dict[str, Any]:
    changes = {name: value for name, value in given.items() if value is not None}
    try:
        Policy(**changes)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return changes


def _names(names: Names) -> tuple[str, ...] | None:
    return None if not names else tuple(filter(None, names))


async def _ask(location: Location, user_id: int) -> Standing:
    from breaker_store.cli.asking import asking  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.standing import read_standing  # noqa: PLC0415

    async with asking(location) as connection:
        return await read_standing(connection, user_id)


async def _set(  # noqa: PLR0913, PLR0917 - each is another fact
    location: Location,
    user_id: int,
    changes: dict[str, Any] | None,
    expected: StateVersion | None,
    actor: str,
    reason: str | None,
) -> Standing:
    """Set a policy, or with no changes at all the default."""

    async def action(address: str) -> Standing:
        from breaker_store import control  # noqa: PLC0415 - slow to import

        if changes is None:
            return await control.clear_policy(address, user_id, expected=expected, actor=actor, reason=reason)
        return await control.set_policy(
            address, user_id, changes, expected=expected, actor=actor, reason=reason
        )

    return await act(location, action)


def _print(standing: Standing, *, as_json: bool) -> None:
    if as_json:
        document = {
            "user_id": standing.user_id,
            **standing.policy.to_document(),
            "policy_is_own": standing.policy_is_own,
            "version": str(standing.version),
        }
        typer.echo(json.dumps(document))
    else:
        typer.echo(describe_policy(standing.user_id, standing.policy, is_own=standing.policy_is_own))
