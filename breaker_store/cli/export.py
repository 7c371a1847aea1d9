"""`export`: the history out of the log, whole, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from breaker_store.cli.ending import run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.cli.narrowing import Kinds, Since, Until, check_order
from breaker_store.cli.user_id import read_user_id


def export_events(  # noqa: PLR0913, PLR0917 - one parameter for each option
    user_id: Annotated[
        int | None,
        typer.Argument(parser=read_user_id, metavar="USER_ID", help="Whose events. [default: everybody's]"),
    ] = None,
    export_format: Annotated[
        Literal["ndjson", "csv"],
        typer.Option("--format", help="ndjson: a JSON object a line; csv: a table with a header."),
    ] = "ndjson",
    output: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="A file, which gets its name when it is whole; - is the standard output.",
        ),
    ] = Path("-"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FILE if it is there, at the end.")
    ] = False,
    proof: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A second file, with which `verify --export` checks the first without the database. For everything alone.",
        ),
    ] = None,
    kinds: Kinds = None,
    since: Since = None,
    until: Until = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Write all that is stored of a user's or everybody's events.

    Events come oldest first, of the same time by id; all are of one moment, also while bots go on. Every line has
    every key, or column; what is not known is null, or an empty cell (an empty text is ""). Texts are as they came: a
    spreadsheet may take one that begins with = for a formula, so import them as text.

    Exits with 1 if not all could be written. Then there is no FILE; what went to the standard output is only a part.
    """
    from breaker_store.cli.file_export import export_history  # noqa: PLC0415 - slow to import
    from breaker_store.postgres.exporting import ExportFilter  # noqa: PLC0415

    check_order(since, until)
    if proof is not None and (export_format, user_id, kinds, since, until) != (
        "ndjson",
        None,
        None,
        None,
        None,
    ):
        raise typer.BadParameter("a proof is of everything, as ndjson", param_hint="--proof")
    wanted = ExportFilter(user_id, since, until, frozenset(kinds) if kinds else None)
    location = locate(database_url, data_dir)
    run(export_history(location, wanted, export_format, output, overwrite, proof))
