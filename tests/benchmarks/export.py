"""How quickly the log is exported: `python -m tests.benchmarks.export`.

A million events of 30 days, by turns as they are, by a bare COPY, and as NDJSON and CSV, all to nowhere. The COPY is the
floor: it sends the same columns in the order in which they lie, as text that nobody has to make. "In order" is the same
day by day and sorted, as an export has to be. The last two are what an export would be if Python made the lines of the
rows that a cursor brings; of them, a tenth is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import asyncpg

from breaker_store.postgres.connecting import Connection, connect
from breaker_store.postgres.exporting import ExportFilter, ExportFormat, export_events
from breaker_store.postgres.history import kind_label
from tests.benchmarks.databases import add_options, open_server
from tests.benchmarks.filling import add_states, add_successes, days_until, find_or_make, tidy
from tests.benchmarks.measuring import Bar, Rounds, judge, show, take_turns

EVENTS = 1_000_000
USERS = 10_000
ROUNDS = 3
PYTHON_SHARE = 10

FLOOR = "bare COPY"

_DAYS = "SELECT occurred_at::date AS day FROM breaker_events GROUP BY 1 ORDER BY 1"
_IN_ORDER = (
    "SELECT * FROM breaker_events WHERE occurred_at >= $1::date AND occurred_at < $1::date + 1"
    " ORDER BY occurred_at, writer_id, writer_seq"
)

Contestant = Callable[[], Awaitable[float]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    with open_server(parser.parse_args()) as server_url:
        rounds = asyncio.run(measure(server_url))
    show_rounds(rounds)
    return judge(
        [
            Bar.at_least("NDJSON, of Python's", rounds.ratio("NDJSON by Python", "NDJSON"), 2),
            Bar.at_least("CSV, of Python's", rounds.ratio("CSV by Python", "CSV"), 2),
            Bar.at_least("CSV, of the bare COPY", rounds.ratio(FLOOR, "CSV"), 0.25),
            Bar.at_least("NDJSON, of the bare COPY", rounds.ratio(FLOOR, "NDJSON"), 0.1),
        ]
    )


async def measure(server_url: str) -> Rounds:
    database_url = await find_or_make(server_url, f"export_{EVENTS}", fill)
    connection = await connect(database_url, command_timeout_seconds=600)
    try:
        return await take_turns(contestants(database_url, connection), ROUNDS)
    finally:
        await connection.close()


async def fill(_database_url: str, connection: Connection) -> None:
    last = await connection.fetchval("SELECT current_date - 1")
    await add_successes(connection, EVENTS, USERS, days_until(last))
    await add_states(connection, USERS)
    await tidy(connection)


def contestants(database_url: str, connection: Connection) -> dict[str, Contestant]:
    """Name those who take turns; each gives the seconds that a million events take."""
    return {
        FLOOR: partial(copying, connection),
        "COPY in order": partial(copying_in_order, connection),
        "NDJSON": partial(exporting, database_url, "ndjson"),
        "CSV": partial(exporting, database_url, "csv"),
        "NDJSON by Python": partial(writing_in_python, connection, _write_ndjson),
        "CSV by Python": partial(writing_in_python, connection, _write_csv),
    }


async def _take(_data: bytes) -> None:
    pass


async def copying(connection: Connection) -> float:
    start = time.perf_counter()
    await connection.copy_from_query("SELECT * FROM breaker_events", output=_take)
    return time.perf_counter() - start


async def copying_in_order(connection: Connection) -> float:
    days = await connection.fetch(_DAYS)
    start = time.perf_counter()
    for row in days:
        await connection.copy_from_query(_IN_ORDER, row["day"], output=_take)
    return time.perf_counter() - start


async def exporting(database_url: str, export_format: ExportFormat) -> float:
    start = time.perf_counter()
    await export_events(database_url, ExportFilter(), export_format, bytes)
    return time.perf_counter() - start


async def writing_in_python(
    connection: Connection, write: Callable[[Iterable[dict[str, object]]], object]
) -> float:
    days = await connection.fetch(_DAYS)
    start = time.perf_counter()
    async with connection.transaction():
        for row in days[: len(days) // PYTHON_SHARE]:
            cursor = await connection.cursor(_IN_ORDER, row["day"])
            while rows := await cursor.fetch(1_000):
                write(map(_line, rows))
    return (time.perf_counter() - start) * PYTHON_SHARE


def _line(row: asyncpg.Record) -> dict[str, object]:
    line = dict(row)
    line["id"] = f"{line.pop('writer_id')}-{line.pop('writer_seq')}"
    line["kind"] = kind_label(line["kind"])
    line["at"] = line.pop("occurred_at").isoformat(timespec="microseconds")
    return line


def _write_ndjson(lines: Iterable[dict[str, object]]) -> None:
    for line in lines:
        json.dumps(line)


def _write_csv(lines: Iterable[dict[str, object]]) -> None:
    csv.writer(io.StringIO()).writerows(line.values() for line in lines)


def show_rounds(rounds: Rounds) -> None:
    rows = [
        [name, f"{EVENTS / rounds.median(name):,.0f}", f"{rounds.ratio(FLOOR, name):.2f}"]
        for name in rounds.figures
    ]
    show("a million events", ["", "events/s", f"of {FLOOR}"], rows)


if __name__ == "__main__":
    sys.exit(main())
