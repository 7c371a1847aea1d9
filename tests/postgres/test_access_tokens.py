from __future__ import annotations

from datetime import timedelta

import asyncpg
import pytest

from breaker_store.core.access import Principal, Role, find_token
from breaker_store.postgres.access_tokens import (
    any_token_made,
    create_token,
    note_use,
    read_tokens,
    revoke_token,
)


@pytest.fixture
def database_url(maintenance_url: str) -> str:
    """Ask as maintenance: making tokens is not the application's."""
    return maintenance_url


async def test_a_token_is_in_force_from_when_it_is_made(database_url: str, connection: asyncpg.Connection):
    assert not (await read_tokens(connection)).any_made
    assert not await any_token_made(database_url)
    made = await create_token(database_url, "alice", Role.OPERATOR, timedelta(days=1))
    known = await read_tokens(connection)
    token = find_token(known.by_id, made.token)
    assert token.principal == Principal("alice", Role.OPERATOR)
    assert 86_000 < token.seconds_left <= 86_400
    assert known.any_made


async def test_two_tokens_have_nothing_in_common(database_url: str):
    first, second = [await create_token(database_url, name, Role.VIEWER) for name in ("alice", "bob")]
    assert not set(first.token.split("_", 2)[1:]) & set(second.token.split("_", 2)[1:])


async def test_what_is_revoked_or_expired_is_not_in_force_though_it_was_made(
    database_url: str, connection: asyncpg.Connection
):
    for name in ("revoked", "expired"):
        await create_token(database_url, name, Role.OPERATOR, timedelta(days=1))
    await revoke_token(database_url, "revoked")
    await connection.execute("UPDATE access_tokens SET expires_at = clock_timestamp() WHERE name = 'expired'")
    known = await read_tokens(connection)
    assert (known.by_id, known.any_made) == ({}, True)
    assert await any_token_made(database_url)


async def test_a_name_is_given_once_and_its_token_stays_what_it_was(
    database_url: str, connection: asyncpg.Connection
):
    made = await create_token(database_url, "alice", Role.VIEWER)
    for name in ("alice", "Alice", "ALICE"):
        assert await create_token(database_url, name, Role.OPERATOR) is None
    assert find_token((await read_tokens(connection)).by_id, made.token).principal.role is Role.VIEWER


async def test_a_token_is_revoked_once(database_url: str, connection: asyncpg.Connection):
    await create_token(database_url, "alice", Role.VIEWER)
    assert not await revoke_token(database_url, "bob")
    assert await revoke_token(database_url, "alice")
    revoked_at = await connection.fetchval("SELECT revoked_at FROM access_tokens")
    assert await revoke_token(database_url, "alice")
    assert await connection.fetchval("SELECT revoked_at FROM access_tokens") == revoked_at


async def test_a_use_is_noted_of_those_that_were_used(database_url: str, connection: asyncpg.Connection):
    used = await create_token(database_url, "used", Role.VIEWER)
    await create_token(database_url, "unused", Role.VIEWER)
    await note_use(database_url, {used.token.split("_")[1]})
    rows = await connection.fetch("SELECT name FROM access_tokens WHERE last_used_at IS NOT NULL")
    assert [row["name"] for row in rows] == ["used"]
