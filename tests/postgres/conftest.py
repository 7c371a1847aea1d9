"""A store on the test's database, and two processes on clocks of their own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from breaker_store import BreakerStore
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import ManualClock
from tests.postgres.histories import Process
from tests.postgres.living import QUICK


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
