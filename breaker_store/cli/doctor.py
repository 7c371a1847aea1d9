"""`doctor`: what is not as it should be, and what to do about it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from breaker_store.cli.ending import FAILED, run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.errors import BreakerStoreError
from breaker_store.settings import SPOOL_DIR_VARIABLE, Location, find_spool_dir

if TYPE_CHECKING:
    from breaker_store.diagnosis.finding import Finding

STYLES: Final = {"ok": "green", "warning": "yellow", "wrong": "bold red"}

SpoolDir = Annotated[
    Path | None,
    typer.Option(
        "--spool-dir", metavar="FOLDER", help=f"A spool to look at as well. [env: {SPOOL_DIR_VARIABLE}]"
    ),
]


def examine_everything(
    spool_dir: SpoolDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="As lines of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Look for what is not as it should be.

    Each finding is ok, a warning or wrong, with what to do. The exit code is 1 if something is wrong.
    """
    findings = run(_examine(locate(database_url, data_dir), find_spool_dir(spool_dir)))
    if as_json:
        for finding in findings:
            typer.echo(json.dumps(dataclasses.asdict(finding)))
    else:
        _print_table(findings)
    if any(finding.verdict == "wrong" for finding in findings):
        raise typer.Exit(FAILED)


async def _examine(location: Location, spool_dir: Path | None) -> list[Finding]:
    from breaker_store.diagnosis.examination import examine  # noqa: PLC0415 - slow to import
    from breaker_store.diagnosis.finding import wrong  # noqa: PLC0415
    from breaker_store.store import open_database  # noqa: PLC0415

    if location.database_url is not None:
        # As it is: whatever its schema, that is one of the findings.
        return [finding async for finding in examine(location.database_url, spool_dir)]
    try:
        async with open_database(location) as database_url:
            return [finding async for finding in examine(database_url, spool_dir)]
    except BreakerStoreError as error:
        return [wrong("connection", "the embedded Postgres can't be used", str(error))]


def _print_table(findings: list[Finding]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415

    from breaker_store.core.wording import printable  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name in ("verdict", "check", "found, and what to do"):
        table.add_column(name, no_wrap=name != "found, and what to do")
    for finding in findings:
        lines = [finding.found] if finding.advice is None else [finding.found, f"-> {finding.advice}"]
        told = "\n".join(map(printable, lines))
        table.add_row(finding.verdict, finding.check, told, style=STYLES[finding.verdict])
    Console(markup=False, highlight=False).print(table)
