"""Every log there is, to be held to the same promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from breaker_store.memory import MemoryEventLog
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import ManualClock
from tests.contract.writing import QUICK, START, OpenLog, Writer


@pytest.fixture(params=["memory", "postgres"])
def log_url(request: pytest.FixtureRequest) -> str | None:
    """Say where the log is; None is memory."""
    url: str | None = None if request.param == "memory" else request.getfixturevalue("database_url")
    return url


@pytest.fixture
async def open_log(log_url: str | None) -> AsyncIterator[OpenLog]:
    """Open the test's log for a process with this clock, as often as it takes."""
    if log_url is None:
        log = MemoryEventLog(ManualClock(START))

        async def open_memory(clock: ManualClock) -> MemoryEventLog:
            return log

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
