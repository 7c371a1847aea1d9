"""The test's database, as a store has it open, two processes, or a log of any times."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from breaker_store import BreakerStore
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import ManualClock
from tests.postgres.histories import START, Past
from tests.postgres.living import QUICK
from tests.postgres.processes import Process


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[BreakerStore]:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        yield store


@pytest.fixture
async def processes(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[list[Process]]:
    """Make two processes, on clocks that stand still until a step says so."""
    async with AsyncExitStack() as opened:
        made = []
        for _ in range(2):
            clock = ManualClock(time.time_ns() // 1_000)
            log = PostgresEventLog(database_url, clock)
            opened.push_async_callback(log.close)
            await log.open()
            made.append(Process(log, clock, connection))
        yield made


@pytest.fixture
async def past(database_url: str) -> AsyncIterator[Past]:
    log = PostgresEventLog(database_url, ManualClock(START))
    yield Past(log)
    await log.close()
