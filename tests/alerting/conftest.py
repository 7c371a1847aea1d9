from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from .receiver import Receiver, receiving


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver
