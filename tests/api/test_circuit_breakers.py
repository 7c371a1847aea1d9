from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
import pytest

from breaker_store import BreakerStore, CircuitBreakerRegistry, Kind, Policy, Transition
from breaker_store.api.schemas.breakers import EventsAnswer, TransitionsAnswer

PREFIX = "/api/admin/system/circuit-breakers"
UNKNOWN = 404_404


async def get(client: httpx.AsyncClient, path: str, **parameters: object) -> dict:
    answer = await client.get(f"{PREFIX}{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def walk(client: httpx.AsyncClient, path: str, between=None, **parameters: object) -> list[dict]:
    """Read a history to its end, page by page."""
    name = path.rpartition("/")[2]
    page = await get(client, path, **parameters)
    items = page[name]
    while page["next_cursor"] is not None:
        if between is not None:
            await between()
        page = await get(client, path, **parameters, cursor=page["next_cursor"])
        items += page[name]
    return items


async def test_an_empty_database_has_an_empty_summary(client):
    body = await get(client, "/summary")
    assert body["status"] == "ok"
    assert body["summary"] == {
        "total_breakers": 0,
        "closed": 0,
        "open": 0,
        "half_open": 0,
        "open_user_ids": [],
        "half_open_user_ids": [],
        "ids_truncated": False,
    }


async def test_the_summary_counts_by_state_and_names_those_that_are_not_closed(client, fail, succeed):
    await succeed(1, 1)
    await fail(3, 5)
    await fail(2, 5)
    body = await get(client, "/summary")
    assert body["summary"] | {} == {
        "total_breakers": 3,
        "closed": 1,
        "open": 2,
        "half_open": 0,
        "open_user_ids": [2, 3],
        "half_open_user_ids": [],
        "ids_truncated": False,
    }


async def test_times_are_iso_8601_in_utc(client, fail):
    await fail(1, 5)
    before = datetime.now(UTC) - timedelta(minutes=1)
    times = [
        (await get(client, "/summary"))["timestamp"],
        (await get(client, "/1/events"))["events"][0]["at"],
        (await get(client, "/1/transitions"))["transitions"][0]["retry_at"],
    ]
    for time in times:
        assert time.endswith("Z")
        assert before < datetime.fromisoformat(time) < before + timedelta(minutes=5)


async def test_a_breaker_is_shown_with_the_keys_of_get_state(client, store, fail):
    await fail(101, 3)
    body = await get(client, "/101")
    assert (body["status"], body["user_id"]) == ("ok", 101)
    live = store.registry.get_breaker(101).get_state()
    shown = body["circuit_breaker"]
    assert shown.pop("last_failure_time") == pytest.approx(live.pop("last_failure_time"), abs=0.5)
    assert shown == live


async def test_an_open_breaker_is_shown_with_its_remaining_wait(client, fail):
    await fail(101, 5)
    shown = (await get(client, "/101"))["circuit_breaker"]
    assert shown["state"] == "open"
    assert shown["failure_count"] == 5
    assert 50 < shown["timeout_remaining"] <= 60


async def test_an_open_breaker_past_its_wait_stays_open(client, store, fail):
    store.registry.set_policy(101, Policy(timeout_seconds=0))
    await fail(101, 5)
    shown = (await get(client, "/101"))["circuit_breaker"]
    assert (shown["state"], shown["timeout_remaining"]) == ("open", 0.0)


async def test_the_policy_shown_is_the_one_in_force_where_the_bots_run(client, database_url):
    registry = CircuitBreakerRegistry(failure_threshold=7, timeout_seconds=9.5, success_threshold=3)
    async with BreakerStore.open(database_url=database_url, registry=registry) as store:
        await registry.get_breaker(5).call(asyncio.sleep, 0)
        await store.flush()
    shown = (await get(client, "/5"))["circuit_breaker"]
    assert (shown["failure_threshold"], shown["timeout_seconds"], shown["success_threshold"]) == (7, 9.5, 3)


async def test_a_reset_keeps_the_policy_in_force(client, database_url):
    registry = CircuitBreakerRegistry(failure_threshold=7)
    async with BreakerStore.open(database_url=database_url, registry=registry) as store:
        await registry.get_breaker(5).call(asyncio.sleep, 0)
        await store.flush()
    await client.post(f"{PREFIX}/5/reset")
    assert (await get(client, "/5"))["circuit_breaker"]["failure_threshold"] == 7
    transitions = (await get(client, "/5/transitions"))["transitions"]
    assert transitions[0]["policy"]["failure_threshold"] == 7


@pytest.mark.parametrize("user_id", [-(2**63), -1, 0, 2**63 - 1])
async def test_every_signed_64_bit_number_is_a_user(client, succeed, user_id):
    await succeed(user_id, 1)
    assert (await get(client, f"/{user_id}"))["user_id"] == user_id
    assert len((await get(client, f"/{user_id}/events"))["events"]) == 1


async def test_a_reset_closes_the_breaker_and_says_so(client, fail):
    await fail(101, 5)
    answer = await client.post(f"{PREFIX}/101/reset")
    assert answer.status_code == 200
    body = answer.json()
    assert body["message"] == "Circuit breaker reset for user 101"
    assert body["sentence"] == "User 101's breaker is closed."
    assert body["circuit_breaker"]["state"] == "closed"
    assert body["circuit_breaker"] == (await get(client, "/101"))["circuit_breaker"]


async def test_a_reset_is_taken_on_by_the_running_bots_within_a_second(client, store, fail):
    await fail(101, 5)
    heard = asyncio.Event()

    def listen(user_id: int, transition: Transition) -> None:
        if (user_id, transition.kind) == (101, Kind.RESET):
            heard.set()

    store.registry.subscribe(listen)
    await client.post(f"{PREFIX}/101/reset")
    async with asyncio.timeout(1):
        await heard.wait()
    assert store.registry.get_breaker(101).get_state()["state"] == "closed"


async def test_a_reset_is_kept_with_its_reason_and_what_it_wiped_out(client, fail):
    await fail(101, 5)
    await client.post(f"{PREFIX}/101/reset", json={"reason": "the service is back; token=hunter2"})
    reset = (await get(client, "/101/transitions"))["transitions"][0]
    assert reset["kind"] == "reset"
    assert (reset["from_state"], reset["to_state"]) == ("open", "closed")
    assert reset["reason"] == "the service is back; token=[hidden]"
    assert reset["actor"].startswith("admin API")
    assert reset["causes"][0]["error_message"] == "out of order"


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b'{"reason": null}'])
async def test_a_reset_needs_no_reason(client, succeed, body):
    await succeed(101, 1)
    headers = {"content-type": "application/json"} if body else {}
    answer = await client.post(f"{PREFIX}/101/reset", content=body, headers=headers)
    assert answer.status_code == 200
    assert (await get(client, "/101/transitions"))["transitions"][0]["reason"] is None


async def test_a_reset_of_an_unknown_user_creates_nothing(client, connection: asyncpg.Connection):
    answer = await client.post(f"{PREFIX}/{UNKNOWN}/reset")
    assert answer.status_code == 404
    assert (await get(client, "/summary"))["summary"]["total_breakers"] == 0
    assert await connection.fetchval("SELECT count(*) FROM breaker_events") == 0
    assert await connection.fetchval("SELECT count(*) FROM writer_batches") == 0


async def test_a_transition_tells_what_led_to_it(client, fail):
    await fail(101, 5)
    body = await get(client, "/101/transitions")
    (opened,) = body["transitions"]
    assert body["next_cursor"] is None
    assert (opened["kind"], opened["from_state"], opened["to_state"]) == ("opened", "closed", "open")
    assert (opened["generation"], opened["version"], opened["position"]) == (1, 1, 1)
    assert (opened["superseded"], opened["failure_count"], opened["actor"]) == (False, 5, None)
    assert opened["opened_by"] == opened["id"]
    failures = [event["id"] for event in (await get(client, "/101/events", kind="failure"))["events"]]
    assert [cause["id"] for cause in opened["causes"]] == failures[::-1]


async def test_a_history_is_told_newest_first(client, succeed, fail):
    await succeed(101, 1)
    await fail(101, 6)
    events = (await get(client, "/101/events"))["events"]
    assert [event["kind"] for event in events] == ["rejected", "opened", *["failure"] * 5, "success"]
    assert events[0]["count"] == 1
    assert (events[1]["from_state"], events[1]["to_state"]) == ("closed", "open")
    assert events[2]["error_message"] == "out of order"
    assert events[2]["duration_ms"] >= 0
    assert {event["verdict"] for event in events} == {"counted", None}


async def test_one_user_sees_nothing_of_another(client, succeed, fail):
    await succeed(1, 1)
    await fail(2, 5)
    assert [event["kind"] for event in (await get(client, "/1/events"))["events"]] == ["success"]
    assert (await get(client, "/1/transitions"))["transitions"] == []


@pytest.mark.parametrize("limit", [1, 2, 7, 12, 13, 200])
async def test_pages_hold_every_event_once(client, succeed, fail, limit):
    await succeed(101, 6)
    await fail(101, 6)
    whole = (await get(client, "/101/events"))["events"]
    assert len(whole) == 13
    assert await walk(client, "/101/events", limit=limit) == whole


async def test_pages_hold_every_event_once_while_new_ones_arrive(client, succeed):
    await succeed(101, 10)
    before = (await get(client, "/101/events"))["events"]
    walked = await walk(client, "/101/events", between=lambda: succeed(101, 3), limit=4)
    assert walked == before
    assert len((await get(client, "/101/events"))["events"]) > len(before)


async def test_pages_of_transitions_hold_every_one_once(client, store):
    breaker = store.registry.get_breaker(101)
    for _ in range(7):
        breaker.reset()
    await store.flush()
    walked = await walk(client, "/101/transitions", limit=3)
    assert [transition["version"] for transition in walked] == [7, 6, 5, 4, 3, 2, 1]


async def test_a_history_can_be_asked_for_by_kinds(client, succeed, fail):
    await succeed(101, 2)
    await fail(101, 5)
    for kinds, count in [(["success"], 2), (["success", "opened"], 3), (["opened"], 1), (["closed"], 0)]:
        assert len((await get(client, "/101/events", kind=kinds))["events"]) == count
    assert len((await get(client, "/101/transitions", kind=["opened", "reset"]))["transitions"]) == 1
    assert (await get(client, "/101/transitions", kind="reset"))["transitions"] == []


async def test_since_is_part_of_the_time_and_until_is_not(client, succeed):
    await succeed(101, 5)
    events = (await get(client, "/101/events"))["events"]
    at = events[2]["at"]
    later = (await get(client, "/101/events", since=at))["events"]
    earlier = (await get(client, "/101/events", until=at))["events"]
    assert later + earlier == events
    assert events[2] in later
    shifted = datetime.fromisoformat(at).astimezone(tz=None).isoformat()
    assert (await get(client, "/101/events", since=shifted))["events"] == later
    assert (await get(client, "/101/events", since=at, until=at))["events"] == []


@pytest.mark.parametrize(("name", "answer"), [("events", EventsAnswer), ("transitions", TransitionsAnswer)])
async def test_a_history_is_sent_as_it_is_documented(client, succeed, fail, name, answer):
    await succeed(101, 1)
    await fail(101, 6)
    await client.post(f"{PREFIX}/101/reset")
    sent = (await client.get(f"{PREFIX}/101/{name}")).content
    assert answer.model_validate_json(sent).model_dump_json().encode() == sent
    documented = (await client.get("/openapi.json")).json()["paths"][f"{PREFIX}/{{user_id}}/{name}"]["get"]
    schema = documented["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema["$ref"].endswith(f"/{answer.__name__}")
