"""`import`: outcomes that happened elsewhere, into the log."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from breaker_store.cli.ending import FAILED, run
from breaker_store.cli.location import DatabaseUrl, DataDir, locate
from breaker_store.importing.opening import STANDARD_INPUT

if TYPE_CHECKING:
    from breaker_store.importing.formats import LineParser


class LineFormat(StrEnum):
    COMBINED = "combined"
    NDJSON = "ndjson"


class UserIdFrom(StrEnum):
    IPV4 = "ipv4"
    HASH = "hash"


def read_path(text: str) -> Path:
    # Not typer's own check of files: it takes - for one.
    path = Path(text)
    if text != STANDARD_INPUT and not path.exists():
        raise typer.BadParameter(f"there is no file {text!r}")
    if path.is_dir():
        raise typer.BadParameter(f"{text!r} is a folder")
    return path


def import_file(  # noqa: PLR0913, PLR0917 - one parameter for each option
    file: Annotated[
        Path,
        typer.Argument(
            parser=read_path,
            metavar="FILE",
            help="Lines of text, plain or compressed by gzip; - is the standard input.",
        ),
    ],
    line_format: Annotated[
        LineFormat,
        typer.Option("--format", help="combined: a web server's access log; ndjson: JSON objects."),
    ],
    fail_on: Annotated[
        int | None,
        typer.Option(min=100, max=999, help="combined: the lowest status that is a failure. [default: 400]"),
    ] = None,
    user_id: Annotated[
        UserIdFrom | None,
        typer.Option(
            help="combined: whether clients without an IPv4 address are bad lines, or get a hash as user id. "
            "[default: ipv4]"
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Add nothing if a line is bad or the input damaged.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as one line of JSON.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Run outcomes that happened elsewhere through the breakers.

    They keep their own times.

    Exits with 1 if the input was damaged or users were refused; what could be imported is.
    """  # fmt: skip
    location = locate(database_url, data_dir)
    parse = _choose_parser(line_format, fail_on, user_id)
    from breaker_store.cli.file_import import import_lines, read_file  # noqa: PLC0415 - slow to import

    reading = read_file(file, parse, strict=strict)
    if not run(import_lines(location, reading, as_json=as_json)):
        raise typer.Exit(FAILED)


def _choose_parser(line_format: LineFormat, fail_on: int | None, user_id: UserIdFrom | None) -> LineParser:
    from breaker_store.importing.combined import CombinedFormat  # noqa: PLC0415 - only here
    from breaker_store.importing.ndjson import NdjsonFormat  # noqa: PLC0415 - only here

    if line_format is LineFormat.COMBINED:
        return CombinedFormat(fail_on or 400, "hash" if user_id is UserIdFrom.HASH else "ipv4")
    if fail_on is not None or user_id is not None:
        raise typer.BadParameter("--fail-on and --user-id are for --format combined")
    return NdjsonFormat()
