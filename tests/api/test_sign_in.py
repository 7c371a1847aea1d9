from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import HTTPException

from breaker_store.api.app import create_app
from breaker_store.api.authentication import CHALLENGE, Principal, Role
from breaker_store.api.failed_attempts import FREE_FAILURES, FailedAttempts
from breaker_store.api.sign_in import LOOK_AGAIN_SECONDS, OPEN_PATHS, RequireSignIn
from breaker_store.core.access import write_token
from breaker_store.errors import LogUnavailableError
from breaker_store.postgres.access_tokens import create_token, revoke_token
from tests.addresses import as_maintenance
from tests.api.conftest import FromAnywhere
from tests.api.example_requests import NOBODY_LISTENS, PREFIX
from tests.api.streaming import Connection, Served, commit

READING = {"GET", "HEAD", "OPTIONS"}
PARTS = {"{user_id}": "101", "{transition_id}": "latest"}


def list_endpoints(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Name all that the application answers, by method and path, also what no documentation names."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from list_endpoints(inner.routes)
            continue
        path = route.path
        for part, value in PARTS.items():
            path = path.replace(part, value)
        for method in getattr(route, "methods", None) or {"GET"}:
            yield method, path


ENDPOINTS = sorted(set(list_endpoints(create_app(NOBODY_LISTENS).routes)))
BEHIND_THE_DOOR = [(method, path) for method, path in ENDPOINTS if path not in OPEN_PATHS] + [
    ("GET", "/nowhere"),
    ("POST", "/nowhere"),
    ("GET", "/healthz/"),
    ("GET", "//healthz"),
    ("GET", "/healthz/../docs"),
    ("GET", f"{PREFIX}/101/"),
    ("DELETE", f"{PREFIX}/101"),
    ("TRACE", "/docs"),
    ("OPTIONS", "/docs"),
    ("BREW", "/"),
]


async def make_token(
    database_url: str, role: Role, name: str = "", expires_in: timedelta | None = None
) -> str:
    created = await create_token(as_maintenance(database_url), name or role, role, expires_in)
    assert created is not None
    return created.token


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
async def operator(database_url: str) -> str:
    return await make_token(database_url, Role.OPERATOR)


@pytest.fixture
async def viewer(database_url: str) -> str:
    return await make_token(database_url, Role.VIEWER)


@pytest.fixture
async def guarded(serve, database_url: str, operator: str, viewer: str) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a database with tokens; streams end where they would wait."""
    async with serve(database_url, transport=FromAnywhere) as client:
        client._transport.app.state.feed.ending.set()
        yield client


def test_there_is_something_behind_the_door():
    assert ("POST", f"{PREFIX}/101/reset") in BEHIND_THE_DOOR
    assert {path for _, path in ENDPOINTS} >= {
        "/",
        "/docs",
        "/redoc",
        "/openapi.json",
        f"{PREFIX}/transitions/stream",
    }


async def test_nobody_enters_without_a_token(guarded):
    for method, path in BEHIND_THE_DOOR:
        answer = await guarded.request(method, path)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == CHALLENGE
        assert answer.headers["content-type"] == "application/problem+json"
        assert "location" not in answer.headers
        if method != "HEAD":
            assert answer.json()["detail"] == "sign in with a valid bearer token"


async def test_the_health_of_the_service_is_told_to_everybody(guarded):
    for path in OPEN_PATHS:
        answer = await guarded.get(path, headers={"host": "admin.example"})
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_a_viewer_reads_and_does_not_act(guarded, viewer, succeed):
    await succeed(101, 1)
    for method, path in BEHIND_THE_DOOR:
        answer = await guarded.request(method, path, headers=bearing(viewer))
        if method in READING:
            assert answer.status_code not in {401, 403}, (method, path)
        else:
            assert answer.status_code == 403, (method, path)
            assert answer.json()["detail"] == "a viewer may read, and not act"
    assert (await guarded.get(f"{PREFIX}/101/transitions", headers=bearing(viewer))).json()[
        "transitions"
    ] == []


async def test_an_operator_acts_and_the_log_says_who(guarded, operator, succeed):
    await succeed(101, 1)
    for method, path in BEHIND_THE_DOOR:
        answer = await guarded.request(method, path, headers=bearing(operator))
        assert answer.status_code not in {401, 403}, (method, path)
    history = await guarded.get(f"{PREFIX}/101/transitions", headers=bearing(operator))
    assert history.json()["transitions"][0]["actor"] == "operator"


async def test_a_browser_sends_the_token_as_a_password_to_whatever_user_name(guarded, viewer, operator):
    for name in ("", "Ada L\xf6velace"):
        assert (await guarded.get("/docs", auth=(name, viewer))).status_code == 200
        assert (await guarded.post(f"{PREFIX}/101/reset", auth=(name, viewer))).status_code == 403
        assert (await guarded.post(f"{PREFIX}/999/reset", auth=(name, operator))).status_code == 404
        assert (await guarded.get("/docs", auth=(viewer, name))).status_code == 401


async def test_a_name_that_is_none_of_this_machines_is_taken_from_who_has_a_token(guarded, viewer):
    answer = await guarded.get(f"{PREFIX}/summary", headers=bearing(viewer) | {"host": "admin.example"})
    assert answer.status_code == 200


async def test_a_foreign_page_changes_nothing_though_it_has_a_token(guarded, operator):
    headers = bearing(operator) | {"sec-fetch-site": "cross-site"}
    assert (await guarded.post(f"{PREFIX}/101/reset", headers=headers)).status_code == 403


async def test_whatever_is_wrong_with_a_token_is_answered_alike(
    guarded, operator, database_url, owner: asyncpg.Connection
):
    public_id = operator.split("_")[1]
    expired = await make_token(database_url, Role.OPERATOR, "expired", timedelta(days=1))
    await owner.execute("UPDATE access_tokens SET expires_at = clock_timestamp() WHERE name = 'expired'")
    revoked = await make_token(database_url, Role.OPERATOR, "revoked")
    assert await revoke_token(as_maintenance(database_url), "revoked")
    wrong = [
        [],
        [expired],
        [revoked],
        [write_token(public_id, "s" * 43)],
        [write_token("0" * 12, operator.split("_", 2)[2])],
        ["x" * 50_000],
        ["' OR true; --"],
        ["<script>alert(1)</script>"],
        ["\xff\xfe"],
        [operator, operator],
    ]
    answers = [
        await guarded.get(
            f"{PREFIX}/101",
            headers=[("authorization", f"Bearer {token}".encode("latin-1")) for token in tokens],
        )
        for tokens in wrong
    ]
    others = [
        f"Basic {operator}",
        "Basic",
        "Basic /////w==",
        "Basic !",
        f"Basic {b64encode(operator.encode()).decode()}",
        operator,
        "Bearer",
        f"Bearer,{operator}",
        f"Bearer {operator}, Bearer {operator}",
    ]
    answers += [await guarded.get(f"{PREFIX}/101", headers={"authorization": each}) for each in others]
    answers += [
        await guarded.get(f"{PREFIX}/101", params={"token": operator, "access_token": operator}),
        await guarded.get(f"{PREFIX}/101", headers={"cookie": f"token={operator}"}),
        await guarded.get(f"{PREFIX}/101", headers={"x-forwarded-for": "127.0.0.1"}),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({(answer.text, str(answer.headers)) for answer in answers}) == 1


async def test_a_token_that_is_valid_does_not_wait_for_the_failures_of_others(serve, database_url, viewer):
    async with serve(database_url) as client:
        for _ in range(FREE_FAILURES + 2):
            await client.get("/docs")
        failing = asyncio.create_task(client.get("/docs"))
        await asyncio.sleep(0)
        assert (await client.get("/docs", headers=bearing(viewer))).status_code == 200
        assert not failing.done()
        assert (await failing).status_code == 401


async def test_the_last_use_of_a_token_is_told(serve, database_url, viewer, operator, connection):
    async with serve(database_url) as client:
        await client.get("/docs", headers=bearing(viewer))
    rows = await connection.fetch("SELECT name, last_used_at > created_at AS used FROM access_tokens")
    assert {row["name"]: row["used"] for row in rows} == {"viewer": True, "operator": None}


async def test_everything_but_healthz_is_unavailable_while_nobody_can_be_known(serve):
    async with serve(NOBODY_LISTENS) as client:
        assert (await client.get("/healthz")).status_code == 200
        for path in ("/", "/docs", "/nowhere", f"{PREFIX}/101", f"{PREFIX}/transitions/stream"):
            answer = await client.get(path, headers=bearing("x"))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), path


async def test_a_stream_ends_when_its_token_is_revoked(database_url, store, viewer):
    async with Served(database_url) as served:
        async with Connection.to(served.url) as refused:
            assert refused.status == 401
        async with Connection.to(served.url, headers=bearing(viewer)) as stream:
            await stream.next_event()
            await revoke_token(as_maintenance(database_url), "viewer")
            await read_to_its_end(stream, store)
        assert served.app.state.feed._readers == 0


async def read_to_its_end(stream: Connection, store) -> None:
    """Have transitions committed, and read them, until the stream ends though there are more."""
    async with asyncio.timeout(2 * LOOK_AGAIN_SECONDS + 2):
        block = "something"
        while block:
            await commit(store, 1)
            block = await stream.next_block()


async def test_a_stream_that_needed_no_token_ends_when_the_first_one_is_made(database_url, store):
    async with Served(database_url) as served, Connection.to(served.url) as stream:
        await stream.next_event()
        await make_token(database_url, Role.VIEWER)
        await read_to_its_end(stream, store)


async def test_what_another_way_to_sign_in_says_is_the_answer(serve, database_url):
    async def refuse(_request) -> None:
        raise HTTPException(403, "not in this group", {"x-ask": "the help desk"})

    async with serve(database_url, authenticate=refuse) as client:
        answer = await client.get("/docs")
    assert (answer.status_code, answer.json()["detail"]) == (403, "not in this group")
    assert answer.headers["x-ask"] == "the help desk"


async def test_a_defect_in_another_way_to_sign_in_lets_nobody_in_and_tells_nothing(serve, database_url):
    async def break_down(_request) -> None:
        raise RuntimeError("its secret")

    async with serve(database_url, raise_app_exceptions=False, authenticate=break_down) as client:
        answer = await client.get("/docs")
    assert answer.status_code == 500
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("path", "root_path", "status"),
    [
        ("/healthz", "", 200),
        ("/admin/healthz", "/admin", 200),
        ("/admin/docs", "/admin", 401),
        ("/admin/healthz", "", 401),
        ("/healthz/", "", 401),
        ("/readyz/healthz", "/readyz/", 401),
        ("", "", 401),
    ],
)
async def test_the_open_paths_are_open_under_the_applications_own_root_alone(path, root_path, status):
    statuses = []

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def know_nobody(_request) -> None:
        return None

    async def note(message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "root_path": root_path,
        "headers": [],
        "client": None,
    }
    scope |= {"server": ("127.0.0.1", 80), "query_string": b"", "scheme": "http"}
    await RequireSignIn(app, know_nobody, FailedAttempts())(scope, None, note)
    assert statuses == [status]


async def test_no_websocket_passes_the_door():
    sent = []

    async def app(_scope, _receive, _send) -> None:
        pytest.fail("it passed")

    async def know_everybody(_request) -> Principal:
        return Principal("alice", Role.OPERATOR)

    async def note(message) -> None:
        sent.append(message["type"])

    scope = {"type": "websocket", "path": "/healthz", "headers": [], "client": None}
    await RequireSignIn(app, know_everybody, FailedAttempts())(scope, None, note)
    assert sent == ["websocket.close"]


class Streaming:
    """An answer of several parts, the clock that stands still between them, and who is known."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0
        self.sent: list[bytes] = []
        self.answer: Callable[[], Principal | None] = lambda: Principal("alice", Role.VIEWER)

    async def authenticate(self, _request) -> Principal | None:
        self.looks += 1
        return self.answer()

    async def run(self, *parts: tuple[float, bytes]) -> list[bytes]:
        """Send each part so many seconds after the one before."""

        async def app(scope, receive, send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for seconds, body in parts:
                self.now += seconds
                await send({"type": "http.response.body", "body": body, "more_body": True})

        async def note(message) -> None:
            if message["type"] == "http.response.body":
                self.sent.append(message["body"] if message["more_body"] else b"end")

        door = RequireSignIn(app, self.authenticate, FailedAttempts(), monotonic=lambda: self.now)
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": None}
        await door(scope, None, note)
        return self.sent


@pytest.fixture
def streaming() -> Streaming:
    return Streaming()


async def test_an_answer_that_goes_on_is_looked_at_every_two_seconds(streaming):
    assert await streaming.run((1.9, b"a"), (0.1, b"b"), (1.9, b"c"), (0.1, b"d")) == [b"a", b"b", b"c", b"d"]
    assert streaming.looks == 3


@pytest.mark.parametrize("after", [None, Principal("alice", Role.OPERATOR), Principal("bob", Role.VIEWER)])
async def test_it_ends_before_what_comes_next_when_its_reader_is_another_or_nobody(streaming, after):
    answers = iter([streaming.answer(), streaming.answer(), after])
    streaming.answer = lambda: next(answers)
    assert await streaming.run((2, b"a"), (2, b"b"), (2, b"c")) == [b"a", b"end"]


async def test_it_goes_on_while_the_database_is_away(streaming):
    answers = iter([streaming.answer()])

    def answer() -> Principal | None:
        try:
            return next(answers)
        except StopIteration:
            raise LogUnavailableError("away") from None

    streaming.answer = answer
    assert await streaming.run((2, b"a"), (2, b"b")) == [b"a", b"b"]
