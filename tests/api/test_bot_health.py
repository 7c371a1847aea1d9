"""How bots are and were, over the real database."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
import pytest

from breaker_store.api.routers.bot_health import PREFIX
from breaker_store.failures import HTTP, BadAnswer
from breaker_store.postgres.fleet_health import UnhealthyCursor
from tests.api.example_requests import SECOND, SLOW, outcomes

HOUR = 3_600 * SECOND
UNTIL = "2026-03-01T02:00:00Z"


# Of each status one, in no order, and two that differ in their errors alone.
NOT_HEALTHY = """
INSERT INTO unhealthy_bots (user_id, since, error_rate, failure_run, status, findings) VALUES
    (1, '2024-03-02T00:00:00Z', null, 0, 3, '{"suspended by an operator"}'),
    (2, '2024-03-02T00:00:00Z', 0.25, 0, 1, '{"25% of its calls failed"}'),
    (3, '2024-03-02T00:00:00Z', 0.2500001, 0, 1, '{"25% of its calls failed"}'),
    (4, '2024-03-02T00:00:00Z', 0.9, 9, 2, '{"90% of its calls failed", "9 failures in a row"}'),
    (5, '2024-03-02T00:00:00Z', 0.3, 0, 1, '{"30% of its calls failed"}'),
    (6, '2024-03-02T00:00:00Z', null, 0, 2, '{"its breaker is open"}')
"""

JUDGED = """
UPDATE fleet_health SET judged_at = '2024-03-02T00:15:00Z', bots = 100, degraded = 6, unhealthy = 4, suspended = 1,
    successes = 75, failures = 25, refusals = 10, duration_us = 4000000, timed_calls = 80
"""


async def get(client: httpx.AsyncClient, path: str, **parameters: object) -> dict:
    answer = await client.get(f"{PREFIX}{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_fleet_that_was_not_judged_yet_has_no_health(client):
    assert (await get(client, "/health"))["health"] is None
    unhealthy = await get(client, "/unhealthy")
    assert (unhealthy["as_of"], unhealthy["bots"]) == (None, [])


async def test_the_fleets_health_is_told_as_it_was_judged(client, owner: asyncpg.Connection):
    await owner.execute(JUDGED)
    assert (await get(client, "/health"))["health"] == {
        "overall": "good", "as_of": "2024-03-02T00:15:00Z", "window_minutes": 15, "bots": 100,
        "healthy": 89, "degraded": 6, "unhealthy": 4, "suspended": 1, "total_requests": 110, "successful_requests": 75,
        "failed_requests": 25, "refused_requests": 10, "error_rate": 0.25, "mean_ms": 50.0,
    }  # fmt: skip


@pytest.mark.parametrize("limit", [1, 2, 4, 50])
async def test_the_worst_bots_come_first_and_suspended_ones_last(client, owner, limit):
    await owner.execute(NOT_HEALTHY)
    found, cursor = [], {}
    while cursor is not None:
        page = await get(client, "/unhealthy", limit=limit, **cursor)
        found += [bot["user_id"] for bot in page["bots"]]
        cursor = page["next_cursor"] and {"cursor": page["next_cursor"]}
    assert found == [4, 6, 5, 2, 3, 1]


async def test_an_unhealthy_bot_is_told_with_what_made_it_so(client, owner):
    await owner.execute(NOT_HEALTHY)
    assert (await get(client, "/unhealthy", limit=1))["bots"] == [
        {
            "user_id": 4, "status": "unhealthy", "findings": ["90% of its calls failed", "9 failures in a row"],
            "since": "2024-03-02T00:00:00Z", "error_rate": 0.9, "average_ms": None, "mean_ms": None,
            "consecutive_failures": 9,
        }
    ]  # fmt: skip


async def test_a_bots_health_is_told_by_its_latest_calls(client, succeed, fail):
    await succeed(101, 6)
    await fail(101, 6)
    health = (await get(client, "/101/health"))["health"]
    assert (health["status"], health["breaker_state"]) == ("unhealthy", "open")
    assert health["findings"] == ["5 failures in a row", "its breaker is open", "45% of its calls failed"]
    counts = ("total_requests", "successful_requests", "failed_requests", "refused_requests")
    assert [health[name] for name in counts] == [12, 6, 5, 1]
    assert health["error_rate"] == pytest.approx(5 / 11)
    assert (health["consecutive_failures"], health["is_rate_limited"]) == (5, False)
    assert health["last_success_at"] < health["last_failure_at"] < health["as_of"]
    assert health["last_error_type"].endswith("ServiceError")
    assert 0 < health["p50_ms"] <= health["p95_ms"] <= health["p99_ms"]


async def test_a_bot_that_has_been_quiet_is_healthy_and_its_last_calls_are_told(client, import_lines):
    await import_lines(outcomes(104, "SSF", SLOW))
    health = (await get(client, "/104/health"))["health"]
    assert (health["status"], health["total_requests"], health["error_rate"]) == ("healthy", 0, None)
    assert (health["last_success_at"], health["last_failure_at"]) == (
        "2026-03-01T02:00:01Z", "2026-03-01T02:00:02Z",
    )  # fmt: skip
    assert health["last_error_type"] == SLOW[0]


@pytest.fixture
def answered(store):
    """Have a bot's calls be answered with these statuses, one after the other, as attempts with these numbers."""

    async def answered(user_id: int, *answers: tuple[int, int | None]) -> None:
        for status, attempt in answers:
            call = store.registry.get_breaker(user_id).begin("sendMessage", attempt=attempt, failures=HTTP)
            await call.end(None if status == 200 else BadAnswer(None, status))
        await store.flush()

    return answered


async def test_a_bot_whose_calls_come_too_fast_is_rate_limited_and_healthy(client, answered):
    await answered(101, (200, None), (429, None))
    health = (await get(client, "/101/health"))["health"]
    assert (health["is_rate_limited"], health["status"]) == (True, "healthy")
    [too_fast, well] = (await client.get("/api/admin/system/circuit-breakers/101/events")).json()["events"]
    assert (too_fast["error_type"], too_fast["verdict"]) == ("http.TooManyRequests", "not_counted")
    assert health["last_success_at"] == well["at"]
    await answered(101, (200, 2))
    assert not (await get(client, "/101/health"))["health"]["is_rate_limited"]


async def test_how_often_a_bots_calls_were_tried_again_is_told(client, answered):
    await answered(101, (503, None), (429, 2), (200, 3), (200, None), (503, None), (404, 2))
    retries = (await get(client, "/101/retries", hours=1))["retries"]
    counts = ("first_attempts", "retries", "retried_calls", "recovered_calls", "rate_limited")
    assert [retries[name] for name in counts] == [3, 3, 2, 1, 1]
    assert [item["attempt"] for item in retries["attempts"]] == [1, 2, 3]
    assert retries["attempts"][1] == {
        "attempt": 2, "calls": 2, "succeeded": 0, "declined": 1, "rate_limited": 1, "failed": 0,
    }  # fmt: skip
    assert retries["errors"] == [
        {"error_type": "http.NotFound", "retries": 1},
        {"error_type": "http.TooManyRequests", "retries": 1},
    ]


async def test_a_week_is_the_longest_time_that_retries_are_told_of(client, answered):
    await answered(101, (200, None))
    assert (await client.get(f"{PREFIX}/101/retries?hours=168&until={UNTIL}")).status_code == 200
    for query in ("hours=169", "hours=0", "days=1"):
        assert (await client.get(f"{PREFIX}/101/retries?{query}")).status_code == 422


@pytest.mark.parametrize("path", ["/404404/health", "/404404/health/history", "/404404/retries"])
async def test_of_an_unknown_user_nothing_is_told(client, path):
    answer = await client.get(f"{PREFIX}{path}")
    assert (answer.status_code, answer.json()["title"]) == (404, "Unknown circuit breaker")


async def test_every_part_of_the_time_is_listed_also_where_nothing_happened(client, import_lines):
    await import_lines(outcomes(101, "SF", SLOW, step=2 * HOUR))
    found = await get(
        client, "/101/health/history", since="2026-03-01T01:30:00Z", until="2026-03-01T05:00:01Z"
    )
    assert [(item["started_at"][11:13], item["total_requests"], item["error_rate"]) for item in found["history"]] == [
        ("01", 0, None), ("02", 1, 0.0), ("03", 0, None), ("04", 1, 1.0), ("05", 0, None),
    ]  # fmt: skip
    assert {item["coverage"] for item in found["history"]} == {"complete"}
    assert found["history"][3]["error_types"] == {SLOW[0]: 1}


@pytest.mark.parametrize(
    ("bucket", "length", "number"),
    [("minute", timedelta(minutes=1), 60), ("hour", timedelta(hours=1), 24), ("day", timedelta(days=1), 30)],
)
async def test_without_a_time_the_latest_is_told_up_to_now(client, succeed, bucket, length, number):
    await succeed(101, 3)
    for path in ("/101/health/history", "/health/history"):
        history = (await get(client, path, bucket=bucket))["history"]
        starts = [datetime.fromisoformat(item["started_at"]) for item in history]
        assert len(starts) == number
        assert {later - earlier for earlier, later in itertools.pairwise(starts)} == {length}
        assert timedelta() < datetime.now(UTC) - starts[-1] < length + timedelta(seconds=2)


async def test_what_is_not_over_says_so_and_has_what_happened_so_far(client, succeed):
    await succeed(101, 3)
    for bucket in ("hour", "day"):
        last = (await get(client, "/101/health/history", bucket=bucket))["history"][-1]
        assert (last["coverage"], last["successful_requests"]) == ("running", 3)


async def test_time_that_is_to_come_is_not_listed(client, succeed):
    await succeed(101, 1)
    assert (await get(client, "/101/health/history", since="2199-01-01T00:00:00Z"))["history"] == []


async def test_a_history_may_end_with_the_first_year(client, succeed):
    await succeed(101, 1)
    for bucket, number in (("minute", 1), ("hour", 1), ("day", 1)):
        answer = await get(client, "/101/health/history", bucket=bucket, until="0001-01-01T00:00:01Z")
        assert len(answer["history"]) == number


async def test_what_nobody_has_counted_yet_says_so_in_the_fleets_history(client, succeed):
    await succeed(101, 1)
    item = (await get(client, "/health/history"))["history"][0]
    assert (item["coverage"], item["total_requests"], item["bots"]) == ("pending", None, None)


async def test_what_is_not_kept_any_more_says_so(client, import_lines, owner):
    await import_lines(outcomes(101, "S", SLOW))
    await owner.execute(
        "INSERT INTO dropped_partitions (outcomes, bytes, day, drops) VALUES (1, 1, '2026-02-28', 1);"
        " INSERT INTO dropped_rollups (kind, first_day, last_day) VALUES ('hours', '2026-02-01', '2026-02-28')"
    )
    since = "2026-02-28T23:00:00Z"
    for path in ("/101/health/history", "/health/history"):
        lost = (await get(client, path, since=since, until="2026-03-01T00:00:00Z"))["history"]
        assert [(item["coverage"], item["total_requests"]) for item in lost] == [("not_kept", None)]
    kept = await get(
        client, "/101/health/history", since="2026-03-01T02:00:00Z", until="2026-03-01T03:00:00Z"
    )
    assert [(item["coverage"], item["total_requests"]) for item in kept["history"]] == [("complete", 1)]


async def test_a_history_that_is_too_long_says_how_long_it_may_be(client, succeed):
    await succeed(101, 1)
    for path in ("/101/health/history", "/health/history"):
        answer = await client.get(
            f"{PREFIX}{path}", params={"since": "2026-01-01T00:00:00Z", "bucket": "minute"}
        )
        assert (answer.status_code, answer.json()["title"]) == (422, "The history is too long for one answer")
        assert "at most 1,500" in answer.json()["detail"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"bucket": "week"},
        {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
        {"from": "2026-01-01T00:00:00Z"},
    ],
)
async def test_a_history_that_makes_no_sense_is_refused(client, parameters):
    for path in ("/101/health/history", "/health/history"):
        assert (await client.get(f"{PREFIX}{path}", params=parameters)).status_code == 422


@pytest.mark.parametrize("cursor", ["page-2", "", str(UnhealthyCursor((0, 0, 0, 0)))[:-1]])
async def test_a_cursor_that_was_not_given_out_is_refused(client, cursor):
    answer = await client.get(f"{PREFIX}/unhealthy", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["title"]) == (400, "Not a cursor")
