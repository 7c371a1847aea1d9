"""What held at an instant, over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

PREFIX = "/api/admin/system/circuit-breakers"
PROBLEMS = "urn:problem-type:breaker-store"


async def event_times(client, user_id: int) -> list[str]:
    """Give the times of a user's events, oldest first."""
    answer = await client.get(f"{PREFIX}/{user_id}/events")
    return [event["at"] for event in answer.json()["events"]][::-1]


async def test_a_breaker_is_shown_as_it_stood(client, fail):
    await fail(101, 6)
    times = await event_times(client, 101)
    shown = []
    for at in (times[0], times[4], times[5]):
        answer = await client.get(f"{PREFIX}/101", params={"at": at})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["status"], body["user_id"], body["at"]) == ("ok", 101, at)
        shown.append((body["circuit_breaker"]["state"], body["circuit_breaker"]["failure_count"]))
    # The fifth failure and the opening that it led to are of one instant.
    assert shown == [("closed", 1), ("open", 5), ("open", 5)]
    assert 0 < body["circuit_breaker"]["timeout_remaining"] <= 60


async def test_the_summary_is_shown_as_it_was(client, fail, succeed):
    await succeed(1, 1)
    await fail(2, 5)
    await fail(3, 1)
    opened = (await event_times(client, 2))[-1]
    answer = await client.get(f"{PREFIX}/summary", params={"at": opened})
    body = answer.json()
    assert body["at"] == opened
    assert body["summary"] == {
        "total_breakers": 2,
        "closed": 1,
        "open": 1,
        "half_open": 0,
        "open_user_ids": [2],
        "half_open_user_ids": [],
        "ids_truncated": False,
    }


@pytest.mark.parametrize("path", ["/summary", "/101"])
async def test_without_an_instant_it_is_told_of_now(client, succeed, path):
    await succeed(101, 1)
    assert (await client.get(PREFIX + path)).json()["at"] is None


@pytest.mark.parametrize("path", ["/summary", "/101"])
async def test_before_the_oldest_event_all_is_gone_and_the_horizon_is_told(client, succeed, path):
    await succeed(101, 1)
    (oldest,) = await event_times(client, 101)
    answer = await client.get(PREFIX + path, params={"at": "2001-01-01T00:00:00Z"})
    assert answer.status_code == 410
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": f"{PROBLEMS}:before-horizon",
        "title": "The log does not go back so far",
        "status": 410,
        "detail": f"what held at 2001-01-01T00:00:00Z can't be told: the log goes back to {oldest}",
        "instance": PREFIX + path,
        "horizon": oldest,
    }


@pytest.mark.parametrize("path", ["/summary", "/101"])
async def test_an_empty_log_has_no_horizon(client, path):
    answer = await client.get(PREFIX + path, params={"at": "2001-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()["horizon"]) == (410, None)


@pytest.mark.parametrize("path", ["/summary", "/101"])
async def test_what_is_yet_to_come_is_refused(client, succeed, path):
    await succeed(101, 1)
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    answer = await client.get(PREFIX + path, params={"at": at})
    assert (answer.status_code, answer.json()["type"]) == (422, f"{PROBLEMS}:future")
    assert "is yet to come" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/summary", "/101"])
@pytest.mark.parametrize(
    ("query", "word"), [("at=yesterday", "at"), ("at=2026-01-01T00:00:00", "offset"), ("when=now", "when")]
)
async def test_an_instant_that_makes_no_sense_is_refused(client, succeed, path, query, word):
    await succeed(101, 1)
    answer = await client.get(f"{PREFIX}{path}?{query}")
    assert (answer.status_code, answer.json()["type"]) == (422, f"{PROBLEMS}:invalid-request")
    assert word in answer.json()["detail"]


async def test_a_user_without_an_event_up_to_then_is_not_found(client, succeed):
    await succeed(1, 1)
    await succeed(2, 1)
    (at,) = await event_times(client, 1)
    answer = await client.get(f"{PREFIX}/2", params={"at": at})
    assert (answer.status_code, answer.json()["type"]) == (404, f"{PROBLEMS}:unknown-breaker")
    assert f"at {at}" in answer.json()["detail"]


async def test_the_horizon_is_documented(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path in ("/summary", "/{user_id}"):
        gone = paths[PREFIX + path]["get"]["responses"]["410"]
        assert "horizon" in gone["content"]["application/problem+json"]["schema"]["properties"]
