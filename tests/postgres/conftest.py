"""The test's database, as a store has it open, or as a log of any times."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from breaker_store import BreakerStore
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import ManualClock
from tests.postgres.histories import START, Past
from tests.postgres.living import QUICK


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[BreakerStore]:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        yield store


@pytest.fixture
async def past(database_url: str) -> AsyncIterator[Past]:
    log = PostgresEventLog(database_url, ManualClock(START))
    yield Past(log)
    await log.close()
