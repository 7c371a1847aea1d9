"""What Prometheus reads of the whole fleet."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import ManualClock
from tests.contract.reporting import CALM, TROUBLED
from tests.contract.writing import START


@pytest.fixture
async def log(database_url: str) -> AsyncIterator[PostgresEventLog]:
    log = PostgresEventLog(database_url, ManualClock(START))
    yield log
    await log.close()


async def scrape(client: httpx.AsyncClient, name: str) -> dict[str, float]:
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    return {next(iter(each.labels.values())): each.value for each in families[name].samples}


async def test_breakers_are_counted_by_state(client, succeed, fail):
    await succeed(101, 2)
    await succeed(102, 1)
    await fail(103, 5)
    assert await scrape(client, "breaker_store_fleet_breakers") == {"closed": 2, "open": 1, "half_open": 0}


async def test_recorders_are_added_up_by_what_they_do(
    client: httpx.AsyncClient, log: PostgresEventLog, owner: asyncpg.Connection
):
    for writer_id in (11, 12, 13):
        await log.report(replace(TROUBLED, writer_id=writer_id, ended=False))
    await log.report(replace(CALM, writer_id=14, ended=True))
    await log.report(replace(TROUBLED, writer_id=15, ended=False))
    await owner.execute("UPDATE recorders SET reported_at = now() - interval '1 min' WHERE writer_id = 13")
    await owner.execute("UPDATE recorders SET reported_at = now() - interval '25 h' WHERE writer_id = 15")
    counted = {"recording": 2, "silent": 1, "ended": 1}
    assert await scrape(client, "breaker_store_fleet_recorders") == counted
    spooled = {status: TROUBLED.spooled * number for status, number in (("recording", 2), ("silent", 1))}
    assert await scrape(client, "breaker_store_fleet_spooled_events") == spooled | {"ended": 0}
    waiting = await scrape(client, "breaker_store_fleet_oldest_waiting_seconds")
    assert TROUBLED.oldest_waiting_us is not None
    assert waiting["recording"] == TROUBLED.oldest_waiting_us / 1_000_000


async def test_without_the_extra_there_are_none(serve, database_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    async with serve(database_url) as client:
        assert (await client.get("/metrics")).status_code == 404
        assert "/metrics" not in (await client.get("/openapi.json")).json()["paths"]
