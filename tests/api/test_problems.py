from __future__ import annotations

import base64
import socket

import asyncpg
import httpx
import pytest

from breaker_store.control import ATTEMPTS

PREFIX = "/api/admin/system/circuit-breakers"
BOTS = "/api/admin/system/bots"
VERSIONS = "breaker_store_alembic_version"


def check_problem(answer: httpx.Response, status: int, *words: str, name: str | None = None) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "instance"}
    assert problem["status"] == status
    assert problem["instance"] == answer.request.url.path
    assert problem["type"] == (f"urn:problem-type:breaker-store:{name}" if name else "about:blank")
    for word in words:
        assert word in problem["detail"]
    return problem


@pytest.fixture
async def away_url() -> str:
    """Address a port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"postgresql://somebody:hunter2@127.0.0.1:{free.getsockname()[1]}/breakers"


@pytest.mark.parametrize("path", ["/404404", "/404404/transitions", "/404404/events"])
async def test_an_unknown_user_is_not_found(client, path):
    answer = await client.get(PREFIX + path)
    check_problem(answer, 404, "404404", "no event", name="unknown-breaker")


async def test_an_unknown_user_can_not_be_reset(client):
    answer = await client.post(f"{PREFIX}/404404/reset")
    check_problem(answer, 404, "404404", name="unknown-breaker")


@pytest.mark.parametrize(
    "user_id",
    [
        "abc",
        "1.0",
        "1_0",
        "0x1",
        "01",
        "-0",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "9223372036854775808",
        "-9223372036854775809",
        "9" * 5_000,
    ],
)
@pytest.mark.parametrize("rest", ["", "/events", "/transitions"])
async def test_what_is_no_user_id_is_refused(client, user_id, rest):
    answer = await client.get(f"{PREFIX}/{user_id}{rest}")
    check_problem(answer, 422, "user_id", "64 bits", name="invalid-request")


@pytest.mark.parametrize("limit", ["0", "-1", "201", "many"])
async def test_a_limit_out_of_bounds_is_refused(client, succeed, limit):
    await succeed(1, 1)
    check_problem(await client.get(f"{PREFIX}/1/events?limit={limit}"), 422, "limit", name="invalid-request")


def encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "%00",
        "none",
        "é",
        encode("1"),
        encode("1.2.3"),
        encode("2.1700000000000000.5.6"),
        encode("1.1700000000000000.5.6.7"),
        encode("1.1700000000000000.5.9223372036854775808"),
        encode("1.99999999999999999999999.5.6"),
        encode("1. 1700000000000000.5.6"),
        encode("1.1700000000000000.5.6") + "=",
    ],
)
async def test_what_is_no_cursor_is_a_bad_request(client, succeed, cursor):
    await succeed(1, 1)
    for history in ("events", "transitions"):
        answer = await client.get(f"{PREFIX}/1/{history}?cursor={cursor}")
        check_problem(answer, 400, "cursor", name="bad-cursor")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"since": "2026-01-31T12:00:00"}, ["since", "offset"]),
        ({"until": "2026-01-31"}, ["until", "offset"]),
        ({"since": "1700000000"}, ["since", "2026-01-31T12:00:00Z"]),
        ({"since": "0001-01-01T00:00:00+14:00"}, ["since", "9999"]),
        ({"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, ["since is after until"]),
        ({"kind": "sucess"}, ["kind", "success", "half_opened"]),
        ({"kind": "unrecognized"}, ["kind"]),
        ({"kinds": "success"}, ["kinds"]),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_with_the_reason(client, succeed, query, words):
    await succeed(1, 1)
    answer = await client.get(f"{PREFIX}/1/events", params=query)
    check_problem(answer, 422, *words, name="invalid-request")


async def test_transitions_are_not_asked_for_by_a_kind_of_outcome(client, succeed):
    await succeed(1, 1)
    answer = await client.get(f"{PREFIX}/1/transitions?kind=success")
    problem = check_problem(answer, 422, "kind", "opened", name="invalid-request")
    assert "rejected" not in problem["detail"]


@pytest.mark.parametrize("query", ["since_hours=0", "since_hours=8761", "since_hours=soon", "hours=5"])
async def test_recorders_are_asked_for_by_a_sensible_number_of_hours(client, query):
    answer = await client.get(f"{PREFIX}/recorders?{query}")
    check_problem(answer, 422, query.partition("=")[0], name="invalid-request")


async def test_a_reset_that_others_forestall_each_time_is_given_up(client, succeed, contended):
    await succeed(1, 1)
    answer = await client.post(f"{PREFIX}/1/reset")
    check_problem(answer, 409, "user 1", "try again", name="contended-breaker")
    tried = (await client.get(f"{PREFIX}/1/transitions")).json()["transitions"]
    assert [transition["superseded"] for transition in tried] == [True] * ATTEMPTS


@pytest.mark.parametrize(
    ("content", "kind", "word"),
    [
        (b"{", "application/json", "body"),
        (b"[]", "application/json", "body"),
        (b'{"reson": "a typing error"}', "application/json", "reson"),
        (b'{"reason": 5}', "application/json", "reason"),
        (b'{"reason": "\\ud800"}', "application/json", "reason"),
        (b'{"reason": "' + b"x" * 2_001 + b'"}', "application/json", "reason"),
        (b'{"reason": "as a form would send it"}', "text/plain", "body"),
    ],
)
async def test_a_reset_with_a_body_that_makes_no_sense_resets_nothing(client, succeed, content, kind, word):
    await succeed(1, 1)
    answer = await client.post(f"{PREFIX}/1/reset", content=content, headers={"content-type": kind})
    check_problem(answer, 422, word, name="invalid-request")
    assert (await client.get(f"{PREFIX}/1/transitions")).json()["transitions"] == []


@pytest.mark.parametrize("path", ["/nothing", "/api/admin/system", f"{PREFIX}/1/nothing"])
async def test_an_unknown_path_is_not_found(client, path):
    check_problem(await client.get(path), 404)


async def test_a_method_that_a_path_has_not_is_refused(client):
    answer = await client.delete(f"{PREFIX}/1")
    check_problem(answer, 405)
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize(
    "path", ["/readyz", f"{PREFIX}/summary", f"{PREFIX}/recorders", f"{PREFIX}/1", f"{PREFIX}/1/events"]
)
async def test_a_database_that_is_away_is_said_without_its_address(serve, away_url, path):
    async with serve(away_url) as client:
        answer = await client.get(path)
    check_problem(answer, 503, "database", name="database-unavailable")
    assert int(answer.headers["retry-after"]) > 0
    for secret in ("hunter2", "somebody", "127.0.0.1", "Error"):
        assert secret not in answer.text


async def test_a_reset_while_the_database_is_away_says_so(serve, away_url):
    async with serve(away_url) as client:
        answer = await client.post(f"{PREFIX}/1/reset")
    check_problem(answer, 503, name="database-unavailable")


@pytest.mark.parametrize("revision", ["0001", "9999"])
@pytest.mark.parametrize("path", ["/readyz", f"{PREFIX}/recorders", f"{PREFIX}/1/transitions"])
async def test_another_schema_is_said_and_the_log_has_which(
    client, owner: asyncpg.Connection, caplog, revision, path
):
    await owner.execute(f"UPDATE {VERSIONS} SET version_num = $1", revision)
    answer = await client.get(path)
    check_problem(answer, 503, "the server's log", name="schema-mismatch")
    assert revision not in answer.text
    assert revision in caplog.text


async def test_a_database_that_was_never_migrated_is_said(serve, empty_database_url):
    async with serve(empty_database_url) as client:
        answer = await client.post(f"{PREFIX}/1/reset")
    check_problem(answer, 503, name="schema-mismatch")


@pytest.mark.parametrize("path", ["summary", "1", "1/events", "1/transitions/latest/explanation"])
async def test_what_nobody_expected_is_answered_without_its_text(
    serve, succeed, database_url, owner: asyncpg.Connection, path
):
    await succeed(1, 1)
    await owner.execute("ALTER TABLE breaker_states RENAME COLUMN state TO its_secret_state")
    await owner.execute("ALTER TABLE breaker_events RENAME COLUMN attempt TO its_secret_attempt")
    async with serve(database_url, raise_app_exceptions=False) as client:
        answer = await client.get(f"{PREFIX}/{path}")
    check_problem(answer, 500, "log")
    assert "secret" not in answer.text
    assert "retry-after" not in answer.headers


async def test_every_route_documents_its_errors(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    errors = {
        path: {status for method in methods.values() for status in method["responses"]}
        - {"200", "201", "401", "403", "500"}
        for path, methods in paths.items()
    }
    assert errors == {
        "/healthz": set(),
        "/readyz": {"503"},
        "/metrics": {"503"},
        PREFIX: {"400", "422", "503"},
        f"{PREFIX}/transitions": {"400", "422", "503"},
        f"{PREFIX}/summary": {"410", "422", "503"},
        f"{PREFIX}/recorders": {"422", "503"},
        f"{PREFIX}/transitions/stream": {"400", "422", "503"},
        f"{PREFIX}/{{user_id}}": {"404", "410", "422", "503"},
        f"{PREFIX}/{{user_id}}/reset": {"400", "404", "409", "412", "422", "503"},
        f"{PREFIX}/{{user_id}}/force-open": {"400", "404", "409", "412", "422", "503"},
        f"{PREFIX}/{{user_id}}/release": {"400", "404", "409", "412", "422", "503"},
        f"{PREFIX}/{{user_id}}/policy": {"400", "404", "409", "412", "422", "503"},
        "/api/admin/system/bots/{user_id}/suspend": {"400", "404", "409", "412", "422", "503"},
        "/api/admin/system/bots/{user_id}/resume": {"400", "404", "409", "412", "422", "503"},
        f"{PREFIX}/staged-resets": {"400", "409", "422", "503"},
        f"{PREFIX}/staged-resets/matches": {"422", "503"},
        f"{BOTS}/health": {"503"},
        f"{BOTS}/unhealthy": {"400", "422", "503"},
        f"{BOTS}/health/history": {"422", "503"},
        f"{BOTS}/{{user_id}}/health": {"404", "422", "503"},
        f"{BOTS}/{{user_id}}/health/history": {"404", "422", "503"},
        f"{BOTS}/{{user_id}}/retries": {"404", "422", "503"},
        f"{PREFIX}/staged-resets/{{staged_reset_id}}": {"404", "422", "503"},
        f"{PREFIX}/staged-resets/{{staged_reset_id}}/stop": {"404", "422", "503"},
        f"{PREFIX}/{{user_id}}/transitions": {"400", "404", "422", "503"},
        f"{PREFIX}/{{user_id}}/transitions/{{transition_id}}/explanation": {"404", "422", "503"},
        f"{PREFIX}/{{user_id}}/events": {"400", "404", "422", "503"},
    }
    for path, methods in paths.items():
        behind_the_door = path not in {"/healthz", "/readyz"}
        for method in methods.values():
            assert method["responses"].keys() & {"401", "403"} == (
                {"401", "403"} if behind_the_door else set()
            )
            assert ("security" in method) == behind_the_door
        other = {f"{PREFIX}/transitions/stream": "text/event-stream", "/metrics": "text/plain"}
        answered = other.get(path, "application/json")
        for method in methods.values():
            for status, response in method["responses"].items():
                expected = answered if status in {"200", "201"} else "application/problem+json"
                assert list(response["content"]) == [expected]
