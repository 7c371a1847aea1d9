from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from breaker_store.cli.token import COLUMNS
from breaker_store.core.access import hash_secret

from .conftest import Invoke


@pytest.fixture
def database_url(maintenance_url: str) -> str:
    """Ask as maintenance: making tokens is not the application's."""
    return maintenance_url


def read_rows(database_url: str) -> list[asyncpg.Record]:
    async def read() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(database_url)
        rows = await connection.fetch("SELECT * FROM access_tokens ORDER BY name")
        await connection.close()
        return rows

    return asyncio.run(read())


def test_create(call: Invoke, database_url: str) -> None:
    """`token create` gives the token alone on stdout, for a script, and keeps nothing that could be used."""
    result = call("token", "create", "alice@example.com", "--role", "operator")
    assert re.fullmatch(r"bs_[0-9a-f]{12}_[\w-]{43}\n", result.stdout)
    assert result.stderr == (
        "made the operator token alice@example.com, which never expires; it is not shown again\n"
    )
    [row] = read_rows(database_url)
    _, public_id, secret = result.stdout.strip().split("_", 2)
    assert (row["name"], row["role"], row["public_id"]) == ("alice@example.com", "operator", public_id)
    assert (row["secret_hash"], row["expires_at"]) == (hash_secret(secret), None)
    assert secret not in str(dict(row))


def test_create_for_a_time(call: Invoke) -> None:
    """`--expires-in` says for how long; `--json` gives the token with what is known of it."""
    result = call("token", "create", "ci", "--role", "viewer", "--expires-in", "90d", "--json")
    made = json.loads(result.stdout)
    assert (made["name"], made["role"], made["token"][:3]) == ("ci", "viewer", "bs_")
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89) < left <= timedelta(days=90, minutes=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "", "--role", "viewer"], "1 to 64 letters"),
        (["create", "a" * 65, "--role", "viewer"], "1 to 64 letters"),
        (["create", "al ice", "--role", "viewer"], "1 to 64 letters"),
        (["create", "alice\n", "--role", "viewer"], "1 to 64 letters"),
        (["create", "\x1b[2J", "--role", "viewer"], "1 to 64 letters"),
        (["create", "аlice", "--role", "viewer"], "1 to 64 letters"),  # noqa: RUF001 - looks like another's
        (["create", "x'; DROP TABLE access_tokens", "--role", "viewer"], "1 to 64 letters"),
        (["create", "alice", "--role", "admin"], "viewer"),
        (["create", "alice"], "--role"),
        (["create", "alice", "--role", "viewer", "--expires-in", "0d"], "90d"),
        (["create", "alice", "--role", "viewer", "--expires-in", "9999999d"], "3650d"),
        (["create", "alice", "--role", "viewer", "--expires-in", "soon"], "90d"),
        (["revoke", "nobody"], "no token of this name"),
    ],
)
def test_mistakes(call: Invoke, database_url: str, arguments: list[str], words: str) -> None:
    """A mistake is said, with exit code 2, without what would steer a terminal, and makes nothing."""
    result = call("token", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "\x1b" not in result.stderr
    assert read_rows(database_url) == []


def test_a_name_is_used_once(call: Invoke) -> None:
    """A name that is taken is refused, also when its token was revoked: the log says by it who did what."""
    call("token", "create", "alice", "--role", "viewer")
    again = call("token", "create", "alice", "--role", "operator")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "there is or was a token alice, or one that differs by upper and lower case alone" in again.stderr
    assert call("token", "revoke", "alice").stdout == "the token alice is revoked\n"
    assert call("token", "create", "alice", "--role", "viewer").exit_code == 2


def test_list(call: Invoke) -> None:
    """`token list` shows all tokens and never a secret; those that are revoked keep the time of it."""
    assert call("token", "list").stderr == (
        "no token was ever made: the admin API is open, on the loopback address alone\n"
    )
    secret = call("token", "create", "bob", "--role", "operator").stdout.strip().split("_", 2)[2]
    call("token", "create", "alice", "--role", "viewer", "--expires-in", "12h")
    call("token", "revoke", "bob")
    first = call("token", "list")
    call("token", "revoke", "bob")
    assert call("token", "list", "--json").exit_code == 0
    assert call("token", "list").stdout == first.stdout
    header, alice, bob = first.stdout.splitlines()
    assert re.split(r" {2,}", header.strip()) == list(COLUMNS)
    time = r"\d{4}-\d\d-\d\d \d\d:\d\dZ"
    assert re.fullmatch(rf"alice +viewer +{time} +- +{time} +- *", alice)
    assert re.fullmatch(rf"bob +operator +{time} +- +- +{time} *", bob)
    lines = [json.loads(line) for line in call("token", "list", "--json").stdout.splitlines()]
    assert [(line["name"], line["role"], line["last_used_at"]) for line in lines] == [
        ("alice", "viewer", None),
        ("bob", "operator", None),
    ]
    assert secret not in first.stdout + call("token", "list", "--json").stdout
