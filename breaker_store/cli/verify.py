"""`verify`: whether the record is whole."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.core.wording import counted
from breaker_store.settings import Location

if TYPE_CHECKING:
    from breaker_store.postgres.heads import Head
    from breaker_store.postgres.verification import Verification


def verify_log(  # noqa: PLR0913, PLR0917 - one parameter for each option
    head: Annotated[
        str | None,
        typer.Option(
            metavar="HEAD",
            help="What an earlier verify ended with: tells whether the record goes on from there.",
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Check this export, without the database; needs --proof.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    proof: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What `export --proof` wrote with that export.", exists=True, dir_okay=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Check that the record is whole, and nothing was altered.

    Nothing altered, taken out, put in or moved: positions have no gap and their chain is unbroken, every batch of events is
    as it was sealed, each cause of a trip is there, and each breaker's state is what its events say; all as of one
    moment, while bots go on. Ends with the head of the record: keep it elsewhere, and give it to a later verify.

    Exits with 1 if anything is wrong; the first places are named.
    """
    from breaker_store.postgres.heads import Head  # noqa: PLC0415 - slow to import

    try:
        expected = None if head is None else Head.read(head)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--head") from None
    if (export is None) != (proof is None):
        raise typer.BadParameter("--export and --proof belong together")
    if export is not None and proof is not None:
        found = _verify_export(export, proof, expected)
    else:
        found = run(_verify(locate(database_url, data_dir), expected))
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"head": str(found.head)}, default=str))
    else:
        _show(found, expected)
    if found.problems:
        raise typer.Exit(1)


async def _verify(location: Location, expected: Head | None) -> Verification:
    from breaker_store.cli.progress import show_progress  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.verification import verify  # noqa: PLC0415
    from breaker_store.store import open_database  # noqa: PLC0415

    async with open_database(location) as database_url:
        with show_progress("checking") as show:
            return await verify(
                database_url, expected, lambda what, done, total: show(done, total, f"checking {what}")
            )


def _verify_export(export: Path, proof: Path, expected: Head | None) -> Verification:
    from breaker_store.cli.progress import show_progress  # noqa: PLC0415 - slow to import
    from breaker_store.importing.opening import open_input  # noqa: PLC0415
    from breaker_store.postgres.exported_record import verify_export  # noqa: PLC0415

    with (
        open_input(export, lambda _done, _total: None) as events,
        open_input(proof, lambda _done, _total: None) as lines,
        show_progress("checking") as show,
    ):
        return verify_export(
            events, lines, expected, lambda what, done, total: show(done, total, f"checking {what}")
        )


def _show(found: Verification, expected: Head | None) -> None:
    batches = found.batches
    typer.echo(
        f"checked {counted(batches.events, 'event')} in {counted(batches.batches, 'batch', 'batches')}, "
        f"{counted(found.transitions, 'transition')} in their chain, {counted(found.breakers, 'breaker')}"
    )
    for count, what in (
        (batches.old_batches, "of an earlier version: not covered but for their order"),
        (batches.dropped_batches, f"without all their outcomes: these are kept from {found.kept_from} on"),
        (batches.resealed_batches, "sealed again when somebody was erased"),
    ):
        if count:
            typer.echo(f"{counted(count, 'batch', 'batches')} {what}")
    for text in found.findings:
        typer.echo(f"WRONG: {text}")
    if found.problems > len(found.findings):
        typer.echo(f"and {found.problems - len(found.findings):,} more")
    if not found.problems:
        typer.echo(
            "the record is whole" + ("" if expected is None else ", and goes on from the head that was given")
        )
    typer.echo(f"head: {found.head}")
