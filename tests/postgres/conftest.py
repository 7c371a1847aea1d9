"""A store on the test's database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from breaker_store import BreakerStore
from tests.postgres.living import QUICK


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[BreakerStore]:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        yield store
