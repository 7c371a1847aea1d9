"""A service that misbehaves as it is told, and a record of what a breaker made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integrations.http_service import Service, run_service
from tests.runtime.driving import Recording


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with run_service() as service:
        yield service


@pytest.fixture
def recording() -> Recording:
    return Recording()
