"""The log, or one user's part of it, as lines of text: every event, and all that is stored of it.

The server itself writes the lines, and COPY sends them: neither memory nor an event's cost grows with the log, and
what is not made into Python objects can't lose anything on the way. All of it is of one snapshot, however long it takes.
So long vacuum keeps what the breakers' rows were (the log itself has nothing to vacuum), and no day can be dropped.

Events come in the order (at, writer, seq): one user's by the index on histories. Nothing in the log is an index of all
events by time, so that everybody's come in one statement a day: it reads the day's partition and sorts that alone.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from breaker_store.core.events import Kind, Verdict
from breaker_store.errors import UnknownBreakerError
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.history import STORED_KINDS
from breaker_store.postgres.proof import write_proof
from breaker_store.postgres.snapshots import snapshot

_DAY_BOUNDS: Final = """
SELECT DISTINCT bound[1]::timestamptz AS bound
FROM pg_inherits
JOIN pg_class ON pg_class.oid = inhrelid
CROSS JOIN regexp_matches(pg_get_expr(relpartbound, inhrelid), '''([^'']+)''', 'g') AS bound
WHERE inhparent = 'breaker_outcomes'::regclass
ORDER BY bound
"""

_KNOWN: Final = """
SELECT EXISTS (SELECT FROM breaker_states WHERE user_id = $1)
    OR EXISTS (SELECT FROM breaker_events WHERE user_id = $1)
"""


ExportFormat: TypeAlias = Literal["ndjson", "csv"]


@dataclass(frozen=True, slots=True)
class ExportFilter:
    """Which events.

    Attributes:
        user_id: whose; None means everybody's.
        since, until: from the first on, up to the second but without it; None is no bound.
        kinds: None means all of them, also those that this version doesn't know.

    """

    user_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    kinds: frozenset[Kind] | None = None


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported; `first` and `last` are the times of the first and last event, None if there are none."""

    events: int
    first: datetime | None
    last: datetime | None


Write = Callable[[bytes], None]
OnProgress = Callable[[int, int | None], None]
"""Told how many events are written, roughly, and how many the server expects; None if it can't say."""


async def export_events(  # noqa: PLR0913, PLR0917 - what, how and where to
    database_url: str,
    wanted: ExportFilter,
    export_format: ExportFormat,
    write: Write,
    on_progress: OnProgress = lambda _done, _total: None,
    write_proof_to: Write | None = None,
) -> ExportReport:
    """Write events as UTF-8 text, in pieces that end with an event; and the proof of them, if it is wanted.

    `write` may block: nothing else happens in the meantime, and no time limit runs.

    Raises:
        UnknownBreakerError: nothing is stored of this user; nothing was written.
        LogUnavailableError: the database can't be reached, or broke off. What was written is not the whole.

    """
    async with snapshot(database_url, "the export") as connection:
        if wanted.user_id is not None and not await connection.fetchval(_KNOWN, wanted.user_id):
            raise UnknownBreakerError(wanted.user_id)
        total = await _estimate(connection, wanted)
        parts = await _divide(connection, wanted)
        lines = _Lines(connection, export_format, write)
        lines.begin()
        filled = [part for part in parts if await lines.add(part, lambda done: on_progress(done, total))]
        if write_proof_to is not None:
            await write_proof(connection, write_proof_to)
        if not filled:
            return ExportReport(0, None, None)
        first, _ = await _tell_times(connection, filled[0])
        _, last = await _tell_times(connection, filled[-1])
        return ExportReport(lines.done, first, last)


async def _divide(connection: Connection, wanted: ExportFilter) -> list[_Part]:
    """Divide time, so that no part has events of two days' partitions; a user's events are in one part."""
    rows = [] if wanted.user_id is not None else await connection.fetch(_DAY_BOUNDS)
    bounds = [row["bound"] for row in rows if _is_within(row["bound"], wanted)]
    spans = itertools.pairwise([wanted.since, *bounds, wanted.until])
    return [_Part.of(wanted, since, until) for since, until in spans]


def _is_within(bound: datetime, wanted: ExportFilter) -> bool:
    return (wanted.since is None or wanted.since < bound) and (wanted.until is None or bound < wanted.until)


@dataclass(frozen=True, slots=True)
class _Part:
    """Events of a span of time: the condition that picks them, and its arguments."""

    condition: str
    arguments: Sequence[object]

    @classmethod
    def of(cls, wanted: ExportFilter, since: datetime | None, until: datetime | None) -> _Part:
        bounds = {
            "user_id = {}::bigint": wanted.user_id,
            "occurred_at >= {}::timestamptz": since,
            "occurred_at < {}::timestamptz": until,
            "kind = ANY ({}::smallint[])": None if wanted.kinds is None else sorted(map(int, wanted.kinds)),
        }
        given = {test: argument for test, argument in bounds.items() if argument is not None}
        tests = [test.format(f"${number}") for number, test in enumerate(given, start=1)]
        return cls(" AND ".join(tests) or "true", list(given.values()))


async def _estimate(connection: Connection, wanted: ExportFilter) -> int | None:
    """Ask the planner how many events these are: it goes by autovacuum's statistics, which tell nothing of one user."""
    if wanted.user_id is not None:
        return None
    part = _Part.of(wanted, wanted.since, wanted.until)
    explained = await connection.fetchval(
        f"EXPLAIN (FORMAT JSON) SELECT FROM breaker_events WHERE {part.condition}", *part.arguments
    )
    return int(json.loads(explained)[0]["Plan"]["Plan Rows"])


class _Lines:
    """The lines of an export, counted as they are written."""

    def __init__(self, connection: Connection, export_format: ExportFormat, write: Write) -> None:
        self.done = 0
        self._connection = connection
        self._format = export_format
        self._write = write

    def begin(self) -> None:
        if self._format == "csv":
            self._write(f"{','.join(_COLUMNS)}\n".encode())

    async def add(self, part: _Part, on_done: Callable[[int], None]) -> int:
        """Write the events of a part, and tell how many there were."""
        written = 0

        async def take(data: bytes) -> None:
            nonlocal written
            self._write(data)
            # Texts may have line ends of their own, in CSV: the number is put right after each part.
            written += data.count(b"\n")
            on_done(self.done + written)

        status = await self._connection.copy_from_query(
            _STATEMENTS[self._format].format(condition=part.condition),
            *part.arguments,
            output=take,
            **_COPY_OPTIONS[self._format],
        )
        count = int(status.removeprefix("COPY "))
        self.done += count
        return count


async def _tell_times(connection: Connection, part: _Part) -> tuple[datetime, datetime]:
    first, last = await connection.fetchrow(
        f"SELECT min(occurred_at), max(occurred_at) FROM breaker_events WHERE {part.condition}",
        *part.arguments,
    )
    return first, last


def _named(column: str, names: Mapping[int, str]) -> str:
    """Write a number's name in SQL; one that this version doesn't know by its number, as `history` does."""
    cases = " ".join(f"WHEN {number} THEN '{name}'" for number, name in names.items())
    return f"CASE {column} {cases} ELSE '{column}-' || {column} END"


_COLUMNS: Final = {
    "id": "writer_id || '-' || writer_seq",
    "user_id": "user_id",
    "kind": _named("kind", {kind.value: kind.label for kind in STORED_KINDS}),
    "at": """to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
    "generation": "generation",
    "era": "era",
    "version": "version",
    "position": "position",
    "verdict": _named("verdict", {verdict.value: verdict.name.lower() for verdict in Verdict}),
    "duration_us": "duration_us",
    "probe": "probe",
    "count": "count",
    "attempt": "attempt",
    "trace_id": "trace_id",
    "operation": "operation",
    "error_type": "error_type",
    "error_message": "error_message",
    "details": "details",
    "details_version": "details_version",
}

# The inner query has the order: so rows are sorted, and not the longer lines that are made of them one by one.
_SELECT: Final = f"""
SELECT {", ".join(f"{expression} AS {name}" for name, expression in _COLUMNS.items())}
FROM (
    SELECT * FROM breaker_events WHERE {{condition}} ORDER BY occurred_at, writer_id, writer_seq
) AS event
"""

_STATEMENTS: Final = {
    "ndjson": f"SELECT row_to_json(line) FROM ({_SELECT}) AS line",
    "csv": _SELECT,
}

# JSON has no control characters: with two of them for quote and delimiter, COPY's CSV is the JSON as it is.
_COPY_OPTIONS: Final[Mapping[ExportFormat, Mapping[str, str]]] = {
    "ndjson": {"format": "csv", "delimiter": "\x02", "quote": "\x01"},
    "csv": {"format": "csv"},
}
