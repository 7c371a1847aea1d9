from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.postgres import faults
from tests.postgres.faults import USER

from .test_circuit_breakers import PREFIX, get
from .test_problems import check_problem

SENTENCE = (
    "User 101's breaker opened at 2025-11-26 03:00:12 UTC after 5 failures in a row within 3.2 s, all Unauthorized "
    '(the last: "401: the token was revoked"); it had been well for 6 days, since its first kept event; it lets the '
    "next call try, since its wait is over; none of the other 49 breakers opened within 5 minutes of it, so it looks "
    "like this bot, not the provider: check this bot's token and settings."
)


async def explain(client, user_id=USER, name="latest"):
    return (await get(client, f"/{user_id}/transitions/{name}/explanation"))["explanation"]


async def test_the_latest_trip_is_explained_word_for_word(client, database_url):
    await faults.revoke_token(database_url)
    found = await explain(client)
    assert found["sentence"] == SENTENCE
    assert (found["verdict"], found["state"]) == ("this_bot", "open")
    assert found["event"]["at"] == "2025-11-26T03:00:12.200000Z"
    assert [each["error_type"] for each in found["event"]["failures"]] == ["Unauthorized"] * 5
    assert found["around"]["breakers"] == 50
    assert "this_bot: " in found["rule"]


async def test_a_transition_is_explained_by_its_id(client, database_url):
    await faults.revoke_token(database_url)
    [transition] = (await get(client, f"/{USER}/transitions"))["transitions"]
    found = await explain(client, name=transition["id"])
    assert found["sentence"] == SENTENCE
    assert found["event"]["id"] == transition["id"]
    assert found["event"]["failures"] == transition["causes"]


async def test_a_trip_of_just_now_says_when_it_may_try_again(client, fail, succeed):
    await succeed(2, 1)
    await fail(1, 7)
    found = await explain(client, 1)
    assert 50 < found["since"]["remaining_seconds"] <= 60
    assert datetime.fromisoformat(found["since"]["may_try_at"]) > datetime.now(UTC)
    assert found["since"]["refused_calls"] == 2
    assert "; it refuses calls for another " in found["sentence"]
    assert "; so far the only other breaker did not open within 5 minutes of it" in found["sentence"]


async def test_a_user_who_never_tripped_gets_a_sentence_and_no_event(client, succeed):
    await succeed(-1, 1)
    found = await explain(client, -1)
    assert found["sentence"] == "User -1's breaker is closed, and has never been open."
    assert found["event"] is found["verdict"] is found["around"] is None


async def test_an_unknown_user_has_no_explanation(client):
    answer = await client.get(f"{PREFIX}/404404/transitions/latest/explanation")
    check_problem(answer, 404, "404404", name="unknown-breaker")


async def test_an_unknown_transition_has_a_problem_of_its_own(client, succeed):
    await succeed(1, 1)
    answer = await client.get(f"{PREFIX}/1/transitions/12-34/explanation")
    check_problem(answer, 404, "no transition of user 1 has the id 12-34", name="unknown-transition")


@pytest.mark.parametrize(
    "name",
    ["newest", "1", "1-", "-1-2", "01-2", "1-2-3", "1-9223372036854775808", "1- 2", "\u0661-1"],
)
async def test_what_is_no_events_id_is_refused(client, name):
    answer = await client.get(f"{PREFIX}/1/transitions/{name}/explanation")
    check_problem(answer, 422, "transition_id", "writer-seq", name="invalid-request")


async def test_every_answer_is_documented(client):
    document = (await client.get("/openapi.json")).json()
    responses = document["paths"][f"{PREFIX}/{{user_id}}/transitions/{{transition_id}}/explanation"]["get"][
        "responses"
    ]
    assert set(responses) == {"200", "401", "403", "404", "422", "500", "503"}
    assert responses["404"]["description"] == "Unknown circuit breaker; Unknown transition"
    assert document["components"]["schemas"]["FleetVerdict"]["enum"] == [
        "this_bot",
        "everybody",
        "several_troubles",
        "unclear",
    ]
