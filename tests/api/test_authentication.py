from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import pytest
from fastapi import HTTPException, Request

from breaker_store.api.authentication import (
    CACHE_SECONDS,
    CLOSING_SECONDS,
    NOTE_AGAIN_SECONDS,
    USE_NOTED_SECONDS,
    TokenSignIn,
    read_bearer,
)
from breaker_store.core.access import AccessToken, Principal, Role, hash_secret, write_token
from breaker_store.errors import LogUnavailableError
from breaker_store.postgres.access_tokens import TokensInForce

ID, SECRET = "0123456789ab", "s" * 43
ALICE = Principal("alice", Role.OPERATOR)
LOOPBACK, OUTSIDE = ("127.0.0.1", 8000), ("192.0.2.1", 8000)


class Tokens:
    """Tokens in a database that can be away, and a clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stored = TokensInForce({}, any_made=False)
        self.is_away = False
        self.read_times = 0
        self.uses: list[set[str]] = []

    def make(self, seconds_left: float | None = None) -> str:
        token = AccessToken(ID, hash_secret(SECRET), ALICE, seconds_left)
        self.stored = TokensInForce({ID: token}, any_made=True)
        return write_token(ID, SECRET)

    def revoke(self) -> None:
        self.stored = TokensInForce({}, any_made=True)

    async def read(self) -> TokensInForce:
        self.read_times += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise LogUnavailableError("away")
        return self.stored

    async def note_use(self, public_ids: Collection[str]) -> None:
        if self.is_away:
            raise LogUnavailableError("away")
        self.uses.append(set(public_ids))


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def ask(tokens: Tokens) -> Callable:
    sign_in = TokenSignIn(tokens.read, tokens.note_use, lambda: tokens.now)

    async def ask(
        token: str | None = None, server: tuple[str, int] = OUTSIDE, **headers: str
    ) -> Principal | None:
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        who = await sign_in.authenticate(make_request(list(headers.items()), server))
        await sign_in.close()
        return who

    return ask


def make_request(headers: list[tuple[str, str]], server: tuple[str, int] = OUTSIDE) -> Request:
    encoded = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": encoded}
    return Request(scope | {"server": server, "client": ("127.0.0.1", 1)})


async def test_a_token_tells_who_asks(tokens, ask):
    assert await ask(tokens.make()) == ALICE
    assert await ask(write_token(ID, "o" * 43)) is None
    assert await ask() is None


async def test_the_tokens_are_read_once_for_all_who_come_within_two_seconds(tokens, ask):
    token = tokens.make()
    assert await asyncio.gather(*(ask(token) for _ in range(20))) == [ALICE] * 20
    tokens.now += CACHE_SECONDS - 0.1
    await ask(token)
    assert tokens.read_times == 1
    tokens.now += 0.1
    await ask(token)
    assert tokens.read_times == 2


async def test_a_token_that_was_revoked_is_taken_for_two_seconds_at_most(tokens, ask):
    token = tokens.make()
    await ask(token)
    tokens.revoke()
    tokens.now += CACHE_SECONDS
    assert await ask(token) is None


async def test_a_token_expires_at_its_time_also_between_two_readings(tokens, ask):
    token = tokens.make(seconds_left=1.5)
    tokens.now += 1.4
    assert await ask(token) == ALICE
    tokens.now += 1.4
    assert await ask(token) == ALICE
    tokens.now += 0.1
    assert await ask(token) is None
    assert tokens.read_times == 1


async def test_nobody_is_known_while_the_database_is_away(tokens, ask):
    token = tokens.make()
    await ask(token)
    tokens.is_away = True
    tokens.now += CACHE_SECONDS
    for server in (LOOPBACK, OUTSIDE):
        with pytest.raises(LogUnavailableError):
            await ask(token, server)
    tokens.is_away = False
    assert await ask(token) == ALICE


async def test_it_is_said_once_that_the_tokens_can_not_be_read(tokens, ask, caplog):
    for _ in range(2):
        tokens.is_away = True
        for _ in range(10):
            with pytest.raises(LogUnavailableError):
                await ask()
        tokens.is_away = False
        await ask()
        tokens.now += CACHE_SECONDS
    assert caplog.messages == ["the access tokens can't be read, so nobody is let in: away"] * 2


async def test_before_the_first_token_whoever_is_on_the_machine_is_an_operator(tokens, ask):
    assert await ask(server=LOOPBACK) == Principal("admin API, from 127.0.0.1", Role.OPERATOR)
    assert await ask(server=("::1", 8000), host="localhost:8000")
    assert await ask(server=OUTSIDE) is None
    assert await ask(server=("/run/admin.sock", None)) is None


@pytest.mark.parametrize("name", ["forwarded", "x_forwarded_for", "x_forwarded_host", "x_real_ip", "via"])
async def test_who_comes_through_a_proxy_is_not_on_the_machine(ask, name):
    assert await ask(server=LOOPBACK, **{name: "127.0.0.1"}) is None


async def test_a_page_that_was_led_to_the_machine_by_another_name_is_refused(ask):
    with pytest.raises(HTTPException) as refusal:
        await ask(server=LOOPBACK, host="rebound.example")
    assert refusal.value.status_code == 403


async def test_the_first_token_holds_within_two_seconds_and_for_ever(tokens, ask):
    assert await ask(server=LOOPBACK)
    token = tokens.make()
    tokens.now += CACHE_SECONDS
    assert await ask(server=LOOPBACK) is None
    assert await ask(token, LOOPBACK, host="admin.example") == ALICE
    tokens.revoke()
    tokens.now += CACHE_SECONDS
    assert await ask(server=LOOPBACK) is None


async def test_the_use_of_a_token_is_noted_once_a_minute(tokens, ask):
    token = tokens.make()
    for _ in range(3):
        await ask(token)
    assert tokens.uses == [{ID}]
    tokens.now += USE_NOTED_SECONDS
    await ask(token)
    assert tokens.uses == [{ID}, {ID}]


async def test_an_attempt_that_fails_is_no_use(tokens, ask):
    tokens.make()
    await ask(write_token(ID, "o" * 43))
    assert tokens.uses == []


async def test_a_use_that_can_not_be_noted_keeps_nobody_out(tokens, ask, caplog):
    token = tokens.make()
    sign_in = TokenSignIn(tokens.read, fail_to_note, lambda: tokens.now)
    assert await sign_in.authenticate(make_request([("authorization", f"Bearer {token}")])) == ALICE
    await sign_in.close()
    assert caplog.messages == ["the last use of access tokens can't be noted: permission denied"]


async def test_a_use_that_could_not_be_noted_is_noted_with_one_some_seconds_later(tokens):
    token = tokens.make()
    request = make_request([("authorization", f"Bearer {token}")])
    noted = []

    async def note_use(public_ids: Collection[str]) -> None:
        noted.append(set(public_ids))
        if len(noted) == 1:
            raise OSError("no room")

    sign_in = TokenSignIn(tokens.read, note_use, lambda: tokens.now)
    for seconds in (0, NOTE_AGAIN_SECONDS - 0.1, 0.1, NOTE_AGAIN_SECONDS):
        tokens.now += seconds
        await sign_in.authenticate(request)
        await sign_in.close()
    assert noted == [{ID}, {ID}]


async def test_a_database_that_hangs_does_not_keep_the_server_from_ending(tokens):
    token = tokens.make()
    for_ever = asyncio.Event()
    sign_in = TokenSignIn(tokens.read, lambda _public_ids: for_ever.wait(), lambda: tokens.now)
    await sign_in.authenticate(make_request([("authorization", f"Bearer {token}")]))
    async with asyncio.timeout(CLOSING_SECONDS + 1):
        await sign_in.close()


async def fail_to_note(_public_ids: Collection[str]) -> None:
    raise OSError("permission denied\nand details")


@pytest.mark.parametrize(
    ("values", "token"),
    [
        (["Bearer x"], "x"),
        (["bearer   x "], "x"),
        (["Bearer"], ""),
        (["Bearerx"], None),
        (["Basic x"], None),
        ([""], None),
        ([], None),
        (["Bearer x", "Bearer x"], None),
        (["Bearer \xe9\xff"], "\xe9\xff"),
    ],
)
def test_a_token_stands_in_the_one_authorization_header(values, token):
    headers = make_request([("authorization", value) for value in values]).headers
    assert read_bearer(headers) == token
