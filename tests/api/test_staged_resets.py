"""Staged resets over HTTP: asked for, watched, stopped."""

from __future__ import annotations

import pytest

from .example_requests import PREFIX, seed
from .test_circuit_breakers import get

PATH = f"{PREFIX}/staged-resets"


@pytest.fixture(autouse=True)
async def night(database_url: str) -> None:
    await seed(database_url)


async def test_one_is_staged_watched_and_stopped(client):
    wanted = {"error": "Unauthorized", "per_second": 0.1, "reason": "tokens are renewed"}
    created = await client.post(PATH, json=wanted)
    assert created.status_code == 201
    item = created.json()["staged_reset"]
    assert (item["state"], item["total"], item["waiting"], item["remaining_seconds"]) == (
        "running", 1, 1, 10,
    )  # fmt: skip
    assert created.headers["location"] == f"{PATH}/{item['id']}"
    shown = (await client.get(created.headers["location"])).json()
    assert (shown["staged_reset"], shown["first_failures"]) == (item, [])
    stopped = (await client.post(f"{PATH}/{item['id']}/stop")).json()["staged_reset"]
    assert (stopped["state"], stopped["reset"], stopped["waiting"]) == ("stopped", 0, 1)
    assert (await get(client, "/staged-resets"))["staged_resets"] == [stopped]


async def test_matches_are_counted_and_nothing_is_staged(client):
    answer = await client.get(f"{PATH}/matches", params={"since": "2026-03-01T00:00:00Z"})
    assert answer.json()["matched"] == 2
    assert (await get(client, "/staged-resets"))["staged_resets"] == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"per_second": 5}, 422),
        ({"error": "Unauthorized"}, 422),
        ({"error": "Unauthorized", "per_second": 101}, 422),
        ({"error": "Unauthorized", "per_second": 0}, 422),
        ({"error": "Unauthorized", "per_second": 1, "state": ["closed"]}, 422),
        ({"error": "a\0b", "per_second": 1}, 422),
        ({"error": "x", "per_second": 1, "users": [1]}, 422),
        ({"error": "' OR true --", "per_second": 1}, 409),
        ({"since": "2199-01-01T00:00:00Z", "per_second": 1}, 409),
        ({"since": "0001-01-01T00:00:00Z", "per_second": 1}, 201),
    ],
)
async def test_a_hostile_or_empty_filter_stages_nothing(client, body, status):
    answer = await client.post(PATH, json=body)
    assert answer.status_code == status, answer.text
    staged = (await get(client, "/staged-resets"))["staged_resets"]
    assert len(staged) == (1 if status == 201 else 0)


@pytest.mark.parametrize(("number", "status"), [(404404, 404), ("me", 422), (2**63, 422)])
async def test_one_that_there_is_not_is_said(client, number, status):
    assert (await client.get(f"{PATH}/{number}")).status_code == status
    assert (await client.post(f"{PATH}/{number}/stop")).status_code == status
