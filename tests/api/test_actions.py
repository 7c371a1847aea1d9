"""What an operator does to a breaker over HTTP: as wanted, or refused without having done anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from breaker_store import Kind
from tests.postgres.living import Ear

PREFIX = "/api/admin/system/circuit-breakers"


async def state_of(client, user_id: int = 1) -> dict:
    return (await client.get(f"{PREFIX}/{user_id}")).json()


async def act(client, action: str, body: object = None, **options):
    method = options.pop("method", "POST")
    return await client.request(method, f"{PREFIX}/1/{action}", json=body, **options)


async def test_a_breaker_is_forced_open_until_it_is_released(client, store, succeed):
    await succeed(1, 1)
    ear = Ear(store.registry)
    answer = await act(client, "force-open", {"reason": "maintenance"})
    assert answer.status_code == 200
    assert answer.json()["sentence"].startswith(
        "User 1's breaker is forced open by admin API, from 127.0.0.1 until"
    )
    forced = await ear.wait_for_kind(Kind.FORCED_OPEN, 1)
    assert (forced.reason, forced.retry_at) == ("maintenance", None)
    assert store.registry.get_breaker(1).state.forced
    released = await act(client, "release", {"reason": "done"})
    assert (released.status_code, released.json()["circuit_breaker"]["state"]) == (200, "closed")
    await ear.wait_for_kind(Kind.RELEASED, 1)
    await succeed(1, 1)


async def test_an_expiry_is_kept_and_told(client, succeed):
    await succeed(1, 1)
    await act(client, "force-open", {"expires_in_seconds": 7_200})
    body = await state_of(client)
    assert body["circuit_breaker"]["timeout_remaining"] == pytest.approx(7_200, abs=60)
    later = datetime.now(UTC) + timedelta(days=3)
    await act(client, "force-open", {"expires_at": later.isoformat()})
    body = await state_of(client)
    assert body["circuit_breaker"]["timeout_remaining"] == pytest.approx(3 * 86_400, abs=60)
    assert f"{later:%Y-%m-%d}" in body["sentence"]


async def test_what_is_not_forced_open_can_t_be_released(client, fail):
    await fail(1, 5)
    answer = await act(client, "release")
    assert (answer.status_code, answer.json()["type"]) == (
        409,
        "urn:problem-type:breaker-store:not-forced-open",
    )
    assert (await state_of(client))["circuit_breaker"]["state"] == "open"


async def test_a_policy_holds_from_then_on_and_the_default_again_after_it(client, store, succeed):
    await succeed(1, 1)
    ear = Ear(store.registry)
    body = {"failure_threshold": 2, "ignored_errors": ["asyncio.TimeoutError"], "reason": "flaky"}
    assert (await act(client, "policy", body, method="PUT")).status_code == 200
    changed = await ear.wait_for_kind(Kind.POLICY_CHANGED, 1)
    assert (changed.policy.failure_threshold, changed.policy.success_threshold) == (2, 2)
    assert store.registry.get_breaker(1).state.policy == changed.policy
    assert (await act(client, "policy", method="DELETE")).status_code == 200
    await ear.wait_for(lambda _, transition: not transition.policy_is_own)
    assert store.registry.get_breaker(1).state.policy == store.registry.policy


@pytest.mark.parametrize(
    ("action", "method", "body"),
    [
        ("reset", "POST", None),
        ("force-open", "POST", None),
        ("release", "POST", None),
        ("policy", "PUT", {"failure_threshold": 2}),
        ("policy", "DELETE", None),
    ],
)
async def test_an_action_on_a_version_that_has_passed_does_nothing(client, succeed, action, method, body):
    await succeed(1, 1)
    for step, changes in (("force-open", None), ("policy", {"success_threshold": 3})):
        await act(client, step, changes, method="PUT" if changes else "POST")
    before = await client.get(f"{PREFIX}/1")
    seen = before.headers["etag"]
    await act(client, "force-open")
    answer = await act(client, action, body, method=method, headers={"if-match": seen})
    assert (answer.status_code, answer.json()["type"]) == (
        412,
        "urn:problem-type:breaker-store:changed-breaker",
    )
    now = await client.get(f"{PREFIX}/1")
    assert now.headers["etag"] != seen
    done = await act(client, action, body, method=method, headers={"if-match": now.headers["etag"]})
    assert done.status_code == 200
    assert done.headers["etag"] == (await client.get(f"{PREFIX}/1")).headers["etag"]


@pytest.mark.parametrize(
    "tag",
    ["", "1-00000000", '"', "W/1", '"0-00000000", "2-00000000"', '"0-00000000", *', "x" * 9_000, "\x7f"],
)
async def test_what_is_no_tag_is_refused(client, succeed, tag):
    await succeed(1, 1)
    answer = await act(client, "reset", headers={"if-match": tag})
    assert answer.status_code == 422
    assert "ETag" in answer.json()["detail"]


@pytest.mark.parametrize(
    "tag", ['"1"', 'W/"{0}"', '"-1-00000000"', '""', '"\xe9"', 'W/"{0}", "x"', '"9999999999-{0}"']
)
async def test_a_tag_that_is_weak_or_none_of_ours_fits_no_version(client, succeed, tag):
    await succeed(1, 1)
    seen = (await client.get(f"{PREFIX}/1")).headers["etag"]
    answer = await act(client, "reset", headers={"if-match": tag.format(seen.strip('"')).encode("latin-1")})
    assert answer.status_code == 412
    assert (await client.get(f"{PREFIX}/1")).headers["etag"] == seen


@pytest.mark.parametrize("tag", ["*", "{0}", 'W/"1", {0}', '{0} ,"x"', "{0}, {0}"])
async def test_a_tag_that_fits_lets_the_action_be_done(client, succeed, tag):
    await succeed(1, 1)
    seen = (await client.get(f"{PREFIX}/1")).headers["etag"]
    assert (await act(client, "reset", headers={"if-match": tag.format(seen)})).status_code == 200


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("force-open", {"expires_in_seconds": 0}),
        ("force-open", {"expires_in_seconds": 1e300}),
        ("force-open", {"expires_in_seconds": 1, "expires_at": "2030-01-01T00:00:00Z"}),
        ("force-open", {"expires_at": "2001-01-01T00:00:00Z"}),
        ("force-open", {"expires_at": "9999-12-31T23:59:59Z"}),
        ("force-open", {"reason": "x" * 1_000_001}),
        ("release", {"reason": 7}),
        ("policy", {"failure_threshold": 0}),
        ("policy", {"failure_threshold": True}),
        ("policy", {"timeout_seconds": -1}),
        ("policy", {"counted_errors": ["no name \x00"]}),
        ("policy", {"counted_errors": ["x"] * 1_000}),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(client, succeed, action, body):
    await succeed(1, 1)
    answer = await act(client, action, body, method="PUT" if action == "policy" else "POST")
    assert answer.status_code == 422
    history = (await client.get(f"{PREFIX}/1/transitions")).json()["transitions"]
    assert history == []


async def test_hostile_texts_are_kept_as_texts(client, succeed):
    await succeed(1, 1)
    reason = "<script>alert(1)</script>'; DROP TABLE breaker_events; -- \x1b[2J\x00 bot123456789:AAF-abcdefghijklmnopqrstuvwxyz0123456"
    answer = await act(client, "reset", {"reason": reason})
    assert answer.status_code == 200
    [reset] = (await client.get(f"{PREFIX}/1/transitions")).json()["transitions"]
    assert reset["reason"].startswith("<script>alert(1)</script>'; DROP TABLE breaker_events; -- ")
    assert "\x00" not in reset["reason"]
    assert "AAF-abc" not in reset["reason"]


async def test_what_came_of_an_action_is_told_with_it(client, store, fail):
    await fail(1, 5)
    ear = Ear(store.registry)
    await act(client, "reset", {"reason": "looks well"})
    await ear.wait_for_kind(Kind.RESET, 1)
    await fail(1, 12)
    tripped, reset, _ = (await client.get(f"{PREFIX}/1/transitions")).json()["transitions"]
    assert (tripped["kind"], reset["kind"]) == ("opened", "reset")
    assert "after the reset by admin API" in tripped["remark"]
    assert "tripped again" in reset["remark"]
