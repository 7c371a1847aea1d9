from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
import json
import random
import tracemalloc
from collections.abc import Callable
from typing import Any
from uuid import UUID

import asyncpg
import psycopg
import pytest
from psycopg.errors import LockNotAvailable

from breaker_store import BreakerStore
from breaker_store.core.events import Kind
from breaker_store.errors import LogUnavailableError, UnknownBreakerError
from breaker_store.postgres.exporting import ExportFilter, ExportFormat, ExportReport, export_events
from breaker_store.postgres.history import kind_label
from tests.postgres.living import USER, trip

FIRST_DAY = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
DAYS = 3
COLUMNS = (
    "occurred_at", "user_id", "writer_id", "writer_seq", "duration_us", "position", "generation", "era", "version",
    "probe", "count", "kind", "verdict", "attempt", "trace_id", "operation", "error_type", "error_message", "details",
    "details_version",
)  # fmt: skip
HOSTILE = (
    "", " ", '"', "''", "\\", "\\.", "\\N", "null", ",", "a\nb", "\r\n", "\t=1+1", "=HYPERLINK(1)", "-1", "@x", "\x01\x02",
    "\x1b[2J", "\x7f\x9b", "\u2028\ufeff", "\U0001f4a5\u0301", "ß" * 2_000, '{"a": "\\"b"}', "<script>", "\ue000\uffff",
)  # fmt: skip
ALL = ExportFilter()

_SUCCESSES = """
INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind, verdict, operation)
SELECT $1::timestamptz + number * interval '1 microsecond', number % 1000, 9, number, 0, 0, 1, 0, 'sendMessage'
FROM generate_series(1, $2::bigint) AS number
"""


async def make_days(connection: asyncpg.Connection, days: int = DAYS) -> None:
    last = FIRST_DAY + (days - 1) * DAY
    await connection.execute("SELECT ensure_outcome_partitions($1, $2)", FIRST_DAY.date(), last.date())


async def insert(connection: asyncpg.Connection, rows: list[tuple[Any, ...]]) -> None:
    await connection.copy_records_to_table("breaker_events", records=rows, columns=COLUMNS)


def draw_row(dice: random.Random, number: int) -> tuple[Any, ...]:
    """Make a row that holds anything which its columns can hold."""

    def maybe(value: Any) -> Any:
        return dice.choice((None, value))

    kind = dice.choice((1, 1, 2, 3, 7, 10, 11, 42))
    details = {text: [1, None, {"é": text}] for text in dice.sample(HOSTILE, 2)}
    return (
        # Many of the same time, and many at the edge of a day.
        FIRST_DAY + dice.randrange(DAYS) * DAY + dice.randrange(3) * dt.timedelta(microseconds=1),
        dice.choice((-(2**63), -1, 0, USER, 2**63 - 1)),
        dice.choice((1, 2**62)),
        number,
        maybe(2**62),
        None if kind < 10 else maybe(number),
        2**31 - 1,
        dice.randrange(2**31),
        None if kind < 10 else number,
        maybe(3),
        maybe(7),
        kind,
        dice.choice((None, 0, 1, 2, 9)),
        maybe(2),
        maybe(UUID(int=dice.getrandbits(128))),
        maybe(dice.choice(HOSTILE)),
        maybe(dice.choice(HOSTILE)),
        maybe(dice.choice(HOSTILE)),
        maybe(json.dumps(details)) if kind >= 10 else None,
        maybe(1),
    )


@pytest.fixture
async def anything(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    """Store 500 events of any content; give them in the order of an export."""
    dice = random.Random(4)
    await make_days(connection)
    await insert(connection, [draw_row(dice, number) for number in range(1, 501)])
    return await connection.fetch("SELECT * FROM breaker_events ORDER BY occurred_at, writer_id, writer_seq")


async def export(
    database_url: str, wanted: ExportFilter = ALL, export_format: ExportFormat = "ndjson"
) -> tuple[bytes, ExportReport]:
    output = io.BytesIO()
    report = await export_events(database_url, wanted, export_format, output.write)
    return output.getvalue(), report


async def export_lines(database_url: str, wanted: ExportFilter = ALL) -> list[dict[str, Any]]:
    data, report = await export(database_url, wanted)
    lines = data.decode().split("\n")
    assert (lines.pop(), report.events) == ("", len(lines))
    return [json.loads(line) for line in lines]


def line_of(row: asyncpg.Record) -> dict[str, Any]:
    """Say what the line of a stored row should be, key by key."""
    verdicts = {None: None, 0: "counted", 1: "not_counted", 2: "would_be_refused"}
    kept = ("user_id", "generation", "era", "version", "position", "duration_us", "probe", "count", "attempt")
    texts = ("operation", "error_type", "error_message", "details_version")
    return {
        "id": f"{row['writer_id']}-{row['writer_seq']}",
        "kind": kind_label(row["kind"]),
        "at": row["occurred_at"].isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "verdict": verdicts.get(row["verdict"], f"verdict-{row['verdict']}"),
        "trace_id": None if row["trace_id"] is None else str(row["trace_id"]),
        "details": None if row["details"] is None else json.loads(row["details"]),
    } | {key: row[key] for key in (*kept, *texts)}


async def test_ndjson_holds_every_field_of_every_event(
    database_url: str, anything: list[asyncpg.Record]
) -> None:
    assert await export_lines(database_url) == [line_of(row) for row in anything]


async def test_every_column_is_exported(connection: asyncpg.Connection) -> None:
    """A new column of the log is not forgotten here."""
    found = await connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'breaker_events'::regclass AND attnum > 0"
    )
    of_the_proof = {"chain", "salt", "private_digest"}
    assert {row["attname"] for row in found} == set(COLUMNS) | of_the_proof


async def test_csv_holds_the_same_cell_by_cell(database_url: str, anything: list[asyncpg.Record]) -> None:
    data, _ = await export(database_url, export_format="csv")
    header, *rows = csv.reader(io.StringIO(data.decode(), newline=""))
    read = [dict(zip(header, row, strict=True)) for row in rows]
    for row in read:
        row["details"] = row["details"] and json.loads(row["details"])
    expected = [line_of(row) for row in anything]
    texts = [
        {
            key: "" if value is None else value if isinstance(value, dict) else str(value)
            for key, value in line.items()
        }
        for line in expected
    ]
    assert read == texts


async def test_csv_tells_an_empty_text_from_none(
    connection: asyncpg.Connection, database_url: str, anything: list[asyncpg.Record]
) -> None:
    data, _ = await export(database_url, export_format="csv")
    header = data.decode().partition("\n")[0].split(",")
    await connection.execute(f"CREATE TEMPORARY TABLE cells ({', '.join(f'{name} text' for name in header)})")
    await connection.copy_to_table("cells", source=io.BytesIO(data), format="csv", header=True)
    cells = await connection.fetch("SELECT id, operation, error_type, error_message FROM cells")
    found = {row["id"]: (row["operation"], row["error_type"], row["error_message"]) for row in cells}
    assert found == {
        line["id"]: (line["operation"], line["error_type"], line["error_message"])
        for line in map(line_of, anything)
    }


async def test_a_users_events_are_those_of_the_user_in_order(
    database_url: str, anything: list[asyncpg.Record]
) -> None:
    for user_id in (-(2**63), -1, USER, 2**63 - 1):
        lines = await export_lines(database_url, ExportFilter(user_id))
        assert lines == [line_of(row) for row in anything if row["user_id"] == user_id]


@pytest.mark.parametrize("user_id", [None, USER])
@pytest.mark.parametrize("kinds", [None, {Kind.SUCCESS}, {Kind.OPENED}, {Kind.FAILURE, Kind.HALF_OPENED}])
@pytest.mark.parametrize(
    ("since", "until"),
    [
        (None, FIRST_DAY + DAY),
        (FIRST_DAY + DAY + dt.timedelta(microseconds=1), None),
        (FIRST_DAY + DAY, FIRST_DAY + 2 * DAY + dt.timedelta(microseconds=1)),
        (FIRST_DAY + DAY, FIRST_DAY),
    ],
)
async def test_times_and_kinds_bound_what_is_exported(
    database_url: str,
    anything: list[asyncpg.Record],
    user_id: int | None,
    kinds: set[Kind] | None,
    since: dt.datetime | None,
    until: dt.datetime | None,
) -> None:
    wanted = ExportFilter(user_id, since, until, None if kinds is None else frozenset(kinds))
    rows = [
        row
        for row in anything
        if (user_id is None or row["user_id"] == user_id)
        and (kinds is None or row["kind"] in kinds)
        and (since is None or row["occurred_at"] >= since)
        and (until is None or row["occurred_at"] < until)
    ]
    assert await export_lines(database_url, wanted) == [line_of(row) for row in rows]


async def test_transitions_of_days_without_outcomes_are_there(
    connection: asyncpg.Connection, database_url: str
) -> None:
    """Retention may have dropped outcomes before, between and after the days that are left."""
    dice = random.Random(1)
    rows = [list(draw_row(dice, number)) for number in range(1, 6)]
    for row, days in zip(rows, (-400, 0, 30, 31, 90), strict=True):
        row[COLUMNS.index("occurred_at")] = FIRST_DAY + days * DAY
        row[COLUMNS.index("kind")] = 10
    for days in (0, 31):
        day = (FIRST_DAY + days * DAY).date()
        await connection.execute("SELECT ensure_outcome_partitions($1, $1)", day)
    await insert(connection, [tuple(row) for row in rows])
    lines = await export_lines(database_url)
    assert [line["id"].partition("-")[2] for line in lines] == ["1", "2", "3", "4", "5"]


async def test_the_report_says_how_many_events_of_which_time(
    database_url: str, anything: list[asyncpg.Record]
) -> None:
    times = [row["occurred_at"] for row in anything]
    for export_format in ("ndjson", "csv"):
        _, report = await export(database_url, export_format=export_format)
        assert report == ExportReport(500, times[0], times[-1])
    _, report = await export(database_url, ExportFilter(USER, until=FIRST_DAY))
    assert report == ExportReport(0, None, None)


async def test_an_unknown_user_is_an_error_before_anything_is_written(database_url: str) -> None:
    written: list[bytes] = []
    with pytest.raises(UnknownBreakerError):
        await export_events(database_url, ExportFilter(404), "csv", written.append)
    assert not written


async def test_a_log_without_events_is_a_header_alone(database_url: str) -> None:
    data, report = await export(database_url, export_format="csv")
    assert (data.count(b"\n"), report) == (1, ExportReport(0, None, None))
    assert await export_lines(database_url) == []


async def test_progress_counts_what_is_written_against_an_estimate(
    owner: asyncpg.Connection, database_url: str, anything: list[asyncpg.Record]
) -> None:
    await owner.execute("ANALYZE breaker_events")
    heard: list[tuple[int, int | None]] = []
    await export_events(database_url, ALL, "ndjson", bytes, lambda *what: heard.append(what))
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1][0] == 500
    assert {total for _, total in heard} == {500}
    await export_events(database_url, ExportFilter(USER), "csv", bytes, lambda *what: heard.append(what))
    assert heard[-1][1] is None


def once(action: Callable[[], object]) -> Callable[[bytes], None]:
    """Make a writer that does something else the first time."""
    todo = [action]

    def write(data: bytes) -> None:
        while todo:
            todo.pop()()

    return write


async def fill(connection: asyncpg.Connection, events: int) -> None:
    """Store so many successes, more than fit between the server and us, on the second day."""
    await make_days(connection)
    await connection.execute(_SUCCESSES, FIRST_DAY + DAY, events)


async def test_all_is_of_one_moment_while_bots_go_on(
    connection: asyncpg.Connection, database_url: str
) -> None:
    """Neither an append nor a new day waits for an export, and none of it shows in what is still to come."""
    await fill(connection, 20_000)
    output = io.BytesIO()
    appended: list[int] = []

    def append() -> None:
        with psycopg.connect(database_url) as other:
            later = (FIRST_DAY + 3 * DAY).date()
            other.execute("SET lock_timeout = '1s'")
            other.execute("SELECT ensure_outcome_partitions(%s, %s)", (later, later))
            for days in (1, 2, 3):
                other.execute(
                    "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind)"
                    " VALUES (%s, 1, 10, %s, 0, 0, 1)",
                    (FIRST_DAY + days * DAY + dt.timedelta(hours=1), days),
                )
                appended.append(days)

    write = once(append)
    report = await export_events(database_url, ALL, "ndjson", lambda data: (write(data), output.write(data)))
    assert (appended, report.events) == ([1, 2, 3], 20_000)
    assert output.getvalue().count(b'"id":"9-') == 20_000
    assert len(await export_lines(database_url)) == 20_003


async def test_a_day_is_not_dropped_before_its_turn(
    owner: asyncpg.Connection, owner_url: str, database_url: str
) -> None:
    await fill(owner, 20_000)
    refused: list[Exception] = []

    def drop() -> None:
        with psycopg.connect(owner_url) as other:
            other.execute("SET lock_timeout = '10ms'")
            try:
                other.execute("DROP TABLE breaker_outcomes_20260303")
            except LockNotAvailable as error:
                refused.append(error)

    await export_events(database_url, ALL, "ndjson", once(drop))
    assert len(refused) == 1


async def test_no_time_limit_of_the_database_ends_an_export(
    owner: asyncpg.Connection, database_url: str
) -> None:
    """Who reads the output may take hours over it."""
    await fill(owner, 20_000)
    name = await owner.fetchval("SELECT current_database()")
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
        await owner.execute(f"ALTER DATABASE {name} SET {setting} = '1ms'")
    _, report = await export(database_url)
    assert report.events == 20_000


async def test_a_connection_that_breaks_is_said(connection: asyncpg.Connection, database_url: str) -> None:
    await fill(connection, 20_000)

    def break_off() -> None:
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE query LIKE 'COPY%' AND datname = current_database()"
            )

    with pytest.raises(LogUnavailableError, match="the export broke off"):
        await export_events(database_url, ALL, "ndjson", once(break_off))


async def test_an_export_that_is_cancelled_leaves_no_query_behind(
    connection: asyncpg.Connection, database_url: str
) -> None:
    await fill(connection, 50_000)
    written: list[bytes] = []

    def cancel(data: bytes) -> None:
        written.append(data)
        exporting.cancel()

    exporting = asyncio.ensure_future(export_events(database_url, ALL, "ndjson", cancel))
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await exporting
        while await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ):
            pass
    assert len(b"".join(written).splitlines()) < 50_000


async def test_memory_does_not_grow_with_the_log(connection: asyncpg.Connection, database_url: str) -> None:
    """300,000 events are 100 MB of lines; what is held of them at a time is less than two."""
    await fill(connection, 300_000)
    sizes: list[int] = []
    tracemalloc.start()
    try:
        report = await export_events(database_url, ALL, "ndjson", lambda data: sizes.append(len(data)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (report.events, sum(sizes) > 80_000_000) == (300_000, True)
    assert peak < 2_000_000


async def test_what_a_breaker_did_is_exported_with_its_causes(store: BreakerStore, database_url: str) -> None:
    await trip(store.registry.get_breaker(USER))
    await store.flush()
    *_, opened = await export_lines(database_url, ExportFilter(USER))
    assert (opened["kind"], opened["user_id"], opened["position"]) == ("opened", USER, 1)
    assert opened["details"]["causes"][-1]["error_message"] == "no answer"
    assert opened["details"]["policy"]["failure_threshold"] == 2
