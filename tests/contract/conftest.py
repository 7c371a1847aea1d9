"""Every log there is, to be held to the same promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import pytest

from breaker_store.memory import MemoryEventLog
from breaker_store.ports import Gap, GapReason, RecorderReport
from breaker_store.postgres.codec import microseconds
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import ManualClock
from tests.contract.writing import QUICK, START, OpenLog, ReadGaps, ReadReport, Writer


@pytest.fixture(params=["memory", "postgres"])
def log_url(request: pytest.FixtureRequest) -> str | None:
    """Say where the log is; None is memory."""
    url: str | None = None if request.param == "memory" else request.getfixturevalue("database_url")
    return url


@pytest.fixture
def memory_log() -> MemoryEventLog:
    return MemoryEventLog(ManualClock(START))


@pytest.fixture
async def open_log(log_url: str | None, memory_log: MemoryEventLog) -> AsyncIterator[OpenLog]:
    """Open the test's log for a process with this clock, as often as it takes."""
    if log_url is None:

        async def open_memory(clock: ManualClock) -> MemoryEventLog:
            return memory_log

        yield open_memory
        return
    async with AsyncExitStack() as opened:

        async def open_postgres(clock: ManualClock) -> PostgresEventLog:
            log = PostgresEventLog(log_url, clock)
            opened.push_async_callback(log.close)
            await log.open()
            return log

        yield open_postgres


@pytest.fixture
def read_gaps(request: pytest.FixtureRequest, log_url: str | None, memory_log: MemoryEventLog) -> ReadGaps:
    """Give what the log says to be missing of a writer, past the code that wrote it."""

    async def read_memory(writer_id: int) -> list[Gap]:
        return memory_log.gaps[writer_id]

    async def read_postgres(writer_id: int) -> list[Gap]:
        rows = await connection.fetch(
            "SELECT * FROM log_gaps WHERE writer_id = $1 ORDER BY batch_no, gap_no", writer_id
        )
        return [_read_gap(row) for row in rows]

    if log_url is None:
        return read_memory
    connection: asyncpg.Connection = request.getfixturevalue("connection")
    return read_postgres


def _read_gap(row: asyncpg.Record) -> Gap:
    fields = {name: row[name] for name in Gap._fields}
    times = {name: microseconds(row[name]) for name in ("first_at", "last_at")}
    return Gap(**{**fields, **times, "reason": GapReason(row["reason"])})


@pytest.fixture
def read_report(
    request: pytest.FixtureRequest, log_url: str | None, memory_log: MemoryEventLog
) -> ReadReport:
    """Give the report that the log has of a writer, past the code that wrote it."""

    async def read_memory(writer_id: int) -> RecorderReport | None:
        return memory_log.reports.get(writer_id)

    async def read_postgres(writer_id: int) -> RecorderReport | None:
        row = await connection.fetchrow("SELECT * FROM recorders WHERE writer_id = $1", writer_id)
        return None if row is None else _read_report(row)

    if log_url is None:
        return read_memory
    connection: asyncpg.Connection = request.getfixturevalue("connection")
    return read_postgres


def _read_report(row: asyncpg.Record) -> RecorderReport:
    fields = {name: row[name] for name in RecorderReport.__dataclass_fields__}
    return RecorderReport(**{**fields, "started_at": microseconds(row["started_at"])})


@pytest.fixture
def new_writer(open_log: OpenLog) -> Callable[[], Awaitable[Writer]]:
    async def new_writer(policy=QUICK) -> Writer:
        clock = ManualClock(START)
        return Writer(await open_log(clock), clock, policy)

    return new_writer


@pytest.fixture
async def writer(new_writer) -> Writer:
    return await new_writer()


@pytest.fixture
async def other(new_writer) -> Writer:
    """Start another process on the same log."""
    return await new_writer()
