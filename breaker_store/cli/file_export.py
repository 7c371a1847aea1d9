"""Writing events to a file or a pipe, and telling how far it is and what came of it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.progress import ProgressColumn, Task
from rich.text import Text

from breaker_store.cli.ending import say
from breaker_store.cli.output_file import Write, is_terminal, write_file, write_standard_output
from breaker_store.cli.progress import show_progress
from breaker_store.postgres.exporting import ExportFilter, ExportFormat, ExportReport, export_events
from breaker_store.settings import Location
from breaker_store.store import open_database

STANDARD_OUTPUT: Final = Path("-")


class _EventsAndRate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = "" if task.speed is None else f", {task.speed:,.0f}/s"
        return Text(f"{task.completed:,.0f} events{rate}")


async def export_history(  # noqa: PLR0913, PLR0917 - one parameter for each option
    location: Location,
    wanted: ExportFilter,
    export_format: ExportFormat,
    output: Path,
    overwrite: bool,
    proof: Path | None,
) -> None:
    """Write the events that are wanted, and say on stderr how many they are.

    Raises:
        OutputError: they could not be written.
        UnknownBreakerError: nothing is stored of the user.

    """
    # A bar among the lines would spoil both.
    apart = output != STANDARD_OUTPUT or not is_terminal()
    with _open(output, overwrite) as write, _open_proof(proof, overwrite) as write_proof:
        async with open_database(location) as database_url:
            with show_progress("exporting", _EventsAndRate(), wanted=apart) as on_progress:
                report = await export_events(
                    database_url, wanted, export_format, write, on_progress, write_proof
                )
    say(_summary(report))


def _open(output: Path, overwrite: bool) -> AbstractContextManager[Write]:
    if output == STANDARD_OUTPUT:
        return write_standard_output()
    return write_file(output, overwrite=overwrite)


def _open_proof(proof: Path | None, overwrite: bool) -> AbstractContextManager[Write | None]:
    return nullcontext() if proof is None else write_file(proof, overwrite=overwrite)


def _summary(report: ExportReport) -> str:
    count = "1 event" if report.events == 1 else f"{report.events:,} events"
    if report.first is None or report.last is None:
        return count
    return f"{count}, from {_time(report.first)} to {_time(report.last)}"


def _time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
