from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from breaker_store import BreakerStore

from .conftest import Invoke


async def answer() -> None:
    pass


@pytest.fixture
def used_url(database_url: str) -> str:
    """Have something be stored today."""

    async def use() -> None:
        async with BreakerStore.open(database_url=database_url) as store:
            for user_id in range(20):
                await store.registry.get_breaker(user_id).call(answer)

    asyncio.run(use())
    return database_url


def test_what_is_stored_and_when_the_disk_is_full(call: Invoke, used_url: str) -> None:
    """`stats` measures today where there is no other day, and does not guess the disk of somebody else's server."""
    shown = call("stats").stdout
    assert "about 20 outcomes; 20 events today, and no whole day yet to measure growth by" in shown
    assert "say how large it is, as in --capacity 500GB" in shown
    assert "are free: at this rate full in" in call("stats", "--capacity", "100MB").stdout
    document = json.loads(call("stats", "--json", "--capacity", "100MB").stdout)
    assert document["events_a_day"] == 20
    assert document["bytes"] == sum(part["bytes"] for part in document["parts"])
    assert 0 < document["free_bytes"] < 100_000_000
    assert document["table_bytes"] > 0


def test_nothing_stored(call: Invoke) -> None:
    """`stats` of an empty database has nothing to divide by."""
    result = call("stats", "--capacity", "1TB")
    assert result.exit_code == 0
    assert "no event was stored lately" in result.stdout


@pytest.mark.parametrize("size", ["500", "0GB", "1e3GB", "GB", "-1GB"])
def test_a_size_that_is_none(call: Invoke, size: str) -> None:
    """A mistake is a line."""
    assert call("stats", f"--capacity={size}").exit_code == 2


def test_the_disk_of_an_embedded_one(invoke: Invoke, data_dir: Path) -> None:
    """`stats` looks at the disk on which an embedded Postgres keeps its data."""
    assert json.loads(invoke("stats", "--json", "--data-dir", data_dir).stdout)["free_bytes"] > 0
