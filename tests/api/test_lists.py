"""All breakers and all transitions in pages, over the real database."""

from __future__ import annotations

import asyncpg
import httpx
import pytest

from breaker_store import BreakerStore, control
from tests.api.example_requests import REVOKED, SLOW, outcomes

PREFIX = "/api/admin/system/circuit-breakers"


async def get(client: httpx.AsyncClient, path: str = "", **parameters: object) -> dict:
    answer = await client.get(f"{PREFIX}{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def walk(client: httpx.AsyncClient, path: str, name: str, **parameters: object) -> list[dict]:
    """Read a list to its end, page by page."""
    items, cursor = [], {}
    while True:
        page = await get(client, path, **parameters, **cursor)
        items += page[name]
        if page["next_cursor"] is None:
            return items
        cursor = {"cursor": page["next_cursor"]}


async def users(client: httpx.AsyncClient, **parameters: object) -> list[int]:
    return [item["user_id"] for item in await walk(client, "", "breakers", **parameters)]


@pytest.fixture
async def night(import_lines) -> None:
    """Let 101 trip twice by a revoked token; 102 once, slow, and recover; 103 once, slow; 104 never."""
    await import_lines(
        outcomes(101, "FFFFF" + "S" * 70 + "FFFFF", REVOKED),
        outcomes(102, "SSFFFFF" + "S" * 70, SLOW),
        outcomes(103, "SSSFFFFF", SLOW),
        outcomes(104, "SSS", SLOW),
    )


async def test_an_empty_log_lists_nothing(client):
    assert (await get(client))["breakers"] == []
    assert (await get(client, "/transitions")) | {"timestamp": 0} == {
        "status": "ok", "timestamp": 0, "transitions": [], "next_cursor": None,
    }  # fmt: skip


async def test_the_list_has_the_same_address_with_a_slash(client):
    assert (await client.get(f"{PREFIX}/")).status_code == 200


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_what_changed_last_comes_first_and_what_never_did_last(client, night, limit):
    assert await users(client, limit=limit) == [101, 102, 103, 104]


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_what_tripped_most_comes_first_on_demand(client, night, limit):
    assert await users(client, limit=limit, sort="trips") == [101, 103, 102, 104]


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_each_comes_once_by_user(client, night, limit):
    assert await users(client, limit=limit, sort="user_id") == [104, 103, 102, 101]
    assert await users(client, limit=limit, sort="user_id", state="open") == [103, 101]


async def test_a_breaker_that_changes_meanwhile_is_in_the_list_by_user(client, night, database_url: str):
    first = await get(client, sort="user_id", limit=2)
    await control.reset(database_url, 101)
    rest = await get(client, sort="user_id", limit=2, cursor=first["next_cursor"])
    assert [item["user_id"] for item in rest["breakers"]] == [102, 101]


async def test_breakers_are_listed_by_state_and_by_the_error_that_tripped_them(client, night):
    assert await users(client, state="open") == [101, 103]
    assert await users(client, state=["closed", "half_open"]) == [102, 104]
    assert await users(client, error=SLOW[0]) == [102, 103]
    assert await users(client, error=SLOW[0], state="open", sort="trips") == [103]
    assert await users(client, error="Nothing") == []


async def test_a_listed_breaker_tells_how_it_stands(client, night):
    item = (await get(client, error=REVOKED[0]))["breakers"][0]
    assert (item["state"], item["trips"], item["trip_error"]) == ("open", 2, REVOKED[0])
    assert item["last_failure"]["error_message"] == REVOKED[1]
    assert item["since"] == item["opened_at"] < item["retry_at"]
    assert item["timeout_remaining"] == 0


async def test_the_remaining_wait_is_counted_by_the_databases_clock(client, fail):
    await fail(7, 5)
    item = (await get(client))["breakers"][0]
    assert 50 < item["timeout_remaining"] <= 60


async def test_a_cursor_of_another_order_is_refused(client, night):
    cursor = (await get(client, limit=1))["next_cursor"]
    answer = await client.get(PREFIX, params={"cursor": cursor, "sort": "trips"})
    assert (answer.status_code, answer.json()["title"]) == (400, "Not a cursor")


@pytest.mark.parametrize("path", ["", "/transitions"])
@pytest.mark.parametrize("parameters", [{"error": "a\0b"}, {"error": ""}, {"eror": "x"}, {"limit": 0}])
async def test_a_filter_that_makes_no_sense_is_refused(client, path, parameters):
    assert (await client.get(f"{PREFIX}{path}", params=parameters)).status_code == 422


@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_the_feed_holds_each_transition_of_everybody_once_newest_first(client, night, limit):
    items = await walk(client, "/transitions", "transitions", limit=limit)
    assert len(items) == 8
    assert {item["position"] for item in items} == set(range(1, 9))
    assert [item["at"] for item in items] == sorted((item["at"] for item in items), reverse=True)


async def test_the_feed_is_narrowed_by_kind_error_actor_and_time(client, night):
    await client.post(f"{PREFIX}/103/reset", json={"reason": "mended"})
    actor = (await get(client, "/103/transitions"))["transitions"][0]["actor"]

    async def found(**parameters: object) -> list[tuple[int, str]]:
        items = (await get(client, "/transitions", **parameters))["transitions"]
        return [(item["user_id"], item["kind"]) for item in items]

    assert await found(actor=actor) == [(103, "reset")]
    assert await found(kind="closed") == [(102, "closed"), (101, "closed")]
    assert await found(error=SLOW[0], kind=["opened", "reset"]) == [
        (103, "reset"), (103, "opened"), (102, "opened"),
    ]  # fmt: skip
    first = (await walk(client, "/transitions", "transitions"))[-1]
    assert await found(until=first["at"]) == []
    assert (await found(since=first["at"]))[-1] == (first["user_id"], first["kind"])


async def test_what_is_superseded_is_not_in_the_feed(client, night, connection: asyncpg.Connection):
    await connection.execute("""
        INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, version, kind, details)
        VALUES (now(), 103, 1, 1, 1, 1, 1, 10, '{"from": "closed", "to": "open"}')
    """)
    assert len(await walk(client, "/transitions", "transitions")) == 8


async def test_a_store_on_the_side_is_listed_as_it_goes(client, store: BreakerStore, succeed):
    await succeed(5, 1)
    assert [(item["user_id"], item["since"]) for item in (await get(client))["breakers"]] == [(5, None)]


async def test_an_actor_may_have_the_longest_of_names(client, night, database_url: str):
    # Not repetitive, or else it could be compressed until it fits anywhere.
    actor = "".join(chr(0x4E00 + number * 7 % 20_000) for number in range(2_000))
    await control.reset(database_url, 103, actor=actor)
    found = (await get(client, "/transitions", actor=actor))["transitions"]
    assert [item["user_id"] for item in found] == [103]
    assert (await get(client, "/transitions", actor=actor[:-1]))["transitions"] == []
