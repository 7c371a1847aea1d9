"""A bot is suspended and resumed over HTTP."""

from __future__ import annotations

import pytest

from breaker_store import BotSuspendedError, Kind
from tests.postgres.living import Ear

BREAKERS = "/api/admin/system/circuit-breakers"
BOTS = "/api/admin/system/bots"


async def act(client, action: str, body: object = None, **options):
    return await client.post(f"{BOTS}/1/{action}", json=body, **options)


async def test_a_suspended_bots_calls_are_refused_with_the_reason_until_it_is_resumed(client, store, succeed):
    await succeed(1, 1)
    ear = Ear(store.registry)
    answer = await act(client, "suspend", {"reason": "unpaid bill"})
    assert answer.status_code == 200
    suspension = answer.json()["suspension"]
    assert (suspension["actor"], suspension["reason"]) == ("admin API, from 127.0.0.1", "unpaid bill")
    await ear.wait_for_kind(Kind.SUSPENDED, 1)
    with pytest.raises(BotSuspendedError, match="unpaid bill"):
        await succeed(1, 1)
    resumed = await act(client, "resume", {"reason": "paid"})
    assert (resumed.status_code, resumed.json()["suspension"]) == (200, None)
    await ear.wait_for_kind(Kind.RESUMED, 1)
    await succeed(1, 1)


async def test_nothing_but_a_resumption_ends_a_suspension(client, succeed):
    await succeed(1, 1)
    await act(client, "suspend")
    for action in ("reset", "force-open", "release"):
        answer = await client.post(f"{BREAKERS}/1/{action}")
        assert (answer.status_code, answer.json()["type"]) == (
            409,
            "urn:problem-type:breaker-store:suspended",
        )
        assert answer.json()["detail"] == "user 1's bot is suspended: resume it first"
    [listed] = (await client.get(BREAKERS)).json()["breakers"]
    assert (listed["state"], listed["suspended"]) == ("open", True)
    kinds = [each["kind"] for each in (await client.get(f"{BREAKERS}/1/transitions")).json()["transitions"]]
    assert kinds == ["suspended"]


async def test_what_is_not_suspended_can_t_be_resumed(client, succeed):
    await succeed(1, 1)
    answer = await act(client, "resume")
    assert (answer.status_code, answer.json()["type"]) == (
        409,
        "urn:problem-type:breaker-store:not-suspended",
    )


@pytest.mark.parametrize("action", ["suspend", "resume"])
async def test_an_action_on_a_version_that_has_passed_does_nothing(client, succeed, action):
    await succeed(1, 1)
    await act(client, "suspend")
    seen = (await client.get(f"{BREAKERS}/1")).headers["etag"]
    tag = (await act(client, "suspend", {"reason": "another"})).headers["etag"]
    assert tag != seen
    assert (await act(client, action, headers={"if-match": seen})).status_code == 412
    assert (await act(client, action, headers={"if-match": tag})).status_code == 200
