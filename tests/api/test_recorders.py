from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
import pytest

from breaker_store.api.app import create_app
from breaker_store.ports import Gap, GapReason
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import ManualClock
from tests.contract.reporting import CALM, TROUBLED, gaps_alone
from tests.contract.writing import SECOND, START, Writer

PATH = "/api/admin/system/circuit-breakers/recorders"
DAMAGED = Gap(GapReason.DAMAGED, START, START + SECOND, failures=1, unknown=2)


@pytest.fixture
async def log(database_url: str) -> AsyncIterator[PostgresEventLog]:
    log = PostgresEventLog(database_url, ManualClock(START))
    yield log
    await log.close()


async def ask(client: httpx.AsyncClient, **parameters: object) -> dict:
    answer = await client.get(PATH, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_where_no_process_reported_the_list_is_empty(client):
    body = await ask(client)
    assert set(body) == {"status", "timestamp", "recorders", "truncated"}
    assert (body["status"], body["recorders"], body["truncated"]) == ("ok", [], False)


async def test_all_processes_are_shown_with_what_they_said_and_what_is_missing(client, log):
    writer = Writer(log, ManualClock(START))
    await writer.append(gaps_alone(writer, None, DAMAGED))
    before = datetime.now(UTC) - timedelta(minutes=1)
    await log.report(replace(TROUBLED, writer_id=writer.writer_id, ended=False))
    await log.report(CALM)
    newest, other = (await ask(client))["recorders"]
    assert newest["writer_id"] == "1"
    reported_at = other.pop("reported_at")
    assert reported_at.endswith("Z")
    assert before < datetime.fromisoformat(reported_at) < before + timedelta(minutes=5)
    assert other == {
        "writer_id": str(writer.writer_id),
        "host": "bots-1",
        "pid": 2**22,
        "status": "recording",
        "durability": "journaled",
        "started_at": "2023-11-14T22:13:20.000007Z",
        "queued": 1,
        "spooled": 3,
        "flushed": 2**40,
        "set_aside": 4,
        "lost": 5,
        "lost_why": "the queue was full",
        "oldest_waiting_seconds": 2**40 / 1_000_000,
        "last_error": "Postgres can't be reached: no route to host",
        "gaps": [
            {
                "reason": "the spool was damaged",
                "first_at": "2023-11-14T22:13:20Z",
                "last_at": "2023-11-14T22:13:21Z",
                "events": 3,
                "successes": 0,
                "refusals": 0,
                "failures": 1,
                "transitions": 0,
                "unknown": 2,
            }
        ],
    }


async def test_how_far_back_is_asked_for_in_hours(client, log, connection: asyncpg.Connection):
    await log.report(CALM)
    await connection.execute("UPDATE recorders SET reported_at = now() - interval '30 hours'")
    assert (await ask(client))["recorders"] == []
    (recorder,) = (await ask(client, since_hours=31))["recorders"]
    assert recorder["status"] == "silent"


async def test_what_it_answers_is_documented(database_url):
    schemas = create_app(database_url).openapi()["components"]["schemas"]
    assert set(schemas["RecordersAnswer"]["properties"]) == {"status", "timestamp", "recorders", "truncated"}
    assert schemas["RecorderItem"]["properties"]["status"]["enum"] == ["recording", "silent", "ended"]
