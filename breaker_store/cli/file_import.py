"""Reading a file, importing what it says, and telling what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import typer

from breaker_store.cli.ending import say
from breaker_store.cli.progress import show_progress
from breaker_store.core.cleaning import clean_text
from breaker_store.core.events import CircuitState
from breaker_store.errors import BreakerStoreError
from breaker_store.importing.formats import (
    BadLine,
    DamagedInputError,
    ImportedOutcome,
    LineParser,
    read_outcomes,
)
from breaker_store.importing.opening import open_input
from breaker_store.importing.run import ImportReport, import_outcomes
from breaker_store.settings import Location
from breaker_store.store import open_database

SHOWN: Final = 20
"""How many bad lines, or refused users, are shown at most; the others are counted."""


class BadLineError(BreakerStoreError):
    """A line is bad, and the import is strict.

    Attributes:
        line: which one, and why.

    """

    def __init__(self, line: BadLine) -> None:
        super().__init__(f"{_describe(line)}; nothing was imported")
        self.line = line


@dataclass(slots=True)
class Reading:
    """What a file said; `damage` is why the rest of it could not be read."""

    outcomes: list[ImportedOutcome] = field(default_factory=list)
    bad_lines: list[BadLine] = field(default_factory=list)
    bad_count: int = 0
    damage: DamagedInputError | None = None

    def note_bad_line(self, line: BadLine) -> None:
        self.bad_count += 1
        if len(self.bad_lines) < SHOWN:
            self.bad_lines.append(line)


def read_file(path: Path, parse: LineParser, *, strict: bool) -> Reading:
    """Read a file, and show how far it is.

    Raises:
        BadLineError, DamagedInputError: if it is to be strict, at the first bad line, or damage.
        OSError: the file can't be read.

    """
    reading = Reading()
    on_bad_line = _stop if strict else reading.note_bad_line
    with show_progress("reading") as on_progress, open_input(path, on_progress) as stream:
        try:
            reading.outcomes = read_outcomes(stream, parse, on_bad_line)
        except DamagedInputError as damage:
            if strict:
                raise
            reading.outcomes, reading.damage = damage.outcomes, damage
    return reading


def _stop(line: BadLine) -> None:
    raise BadLineError(line)


async def import_lines(location: Location, reading: Reading, *, as_json: bool) -> bool:
    """Import what was read and tell what came of it; give whether all of it could be had."""
    async with open_database(location) as database_url:
        with show_progress("importing") as on_progress:
            report = await import_outcomes(database_url, reading.outcomes, on_progress=on_progress)
    for line in _complaints(reading, report):
        say(line)
    if as_json:
        typer.echo(json.dumps(_document(reading, report)))
    else:
        for line in _summary(reading, report):
            typer.echo(line)
    return reading.damage is None and not report.refused


def _complaints(reading: Reading, report: ImportReport) -> Iterator[str]:
    yield from map(_describe, reading.bad_lines)
    yield from _and_more(reading.bad_count, "bad lines")
    for user_id, reason in list(report.refused.items())[:SHOWN]:
        yield f"user {user_id} is refused: {reason}"
    yield from _and_more(len(report.refused), "refused users")
    if reading.damage is not None:
        yield f"breaker-store: {reading.damage}; what stands before it was imported"


def _and_more(count: int, what: str) -> Iterator[str]:
    if count > SHOWN:
        yield f"and {count - SHOWN:,} more {what}"


def _describe(line: BadLine) -> str:
    return f"line {line.number}: {line.reason}: {clean_text(line.beginning)}"


def _document(reading: Reading, report: ImportReport) -> dict[str, object]:
    return {
        "lines": report.lines + reading.bad_count,
        "bad": reading.bad_count,
        "stored_before": report.stored_before,
        "counted": report.counted,
        "would_be_refused": report.would_be_refused,
        "late": report.late,
        "left_out": report.left_out,
        "openings": [{"user_id": user_id, "count": count} for user_id, count in report.openings.items()],
        "refused": [{"user_id": user_id, "reason": reason} for user_id, reason in report.refused.items()],
        "breakers": {state: report.states[state] for state in CircuitState},
        "damage": None if reading.damage is None else str(reading.damage),
    }


def _summary(reading: Reading, report: ImportReport) -> Iterator[str]:
    yield f"lines             {report.lines + reading.bad_count:>12,}"
    numbers = (
        ("bad", reading.bad_count),
        ("stored before", report.stored_before),
        ("counted", report.counted),
        ("would be refused", report.would_be_refused),
        ("late", report.late),
        ("of refused users", report.left_out),
    )
    for name, number in numbers:
        yield f"  {name:<16}{number:>12,}"
    yield f"openings          {report.openings.total():>12,}   of {_users(len(report.openings))}"
    yield f"breakers          {report.states.total():>12,}   {_states(report)}"


def _states(report: ImportReport) -> str:
    return ", ".join(f"{report.states[state]:,} {state}" for state in CircuitState)


def _users(count: int) -> str:
    return "1 user" if count == 1 else f"{count:,} users"
