from __future__ import annotations

import pytest

from breaker_store.core.access import (
    AccessToken,
    Principal,
    Role,
    find_token,
    hash_secret,
    is_token_name,
    read_public_id,
    write_token,
)

ID, OTHER_ID, SECRET, OTHER_SECRET = "0123456789ab", "ba9876543210", "s" * 43, "o" * 43
ALICE = AccessToken(ID, hash_secret(SECRET), Principal("alice", Role.OPERATOR), None)
TOKENS = {ID: ALICE}


def test_a_token_is_found_by_what_was_given_out() -> None:
    assert find_token(TOKENS, write_token(ID, SECRET)) is ALICE
    assert read_public_id(write_token(ID, SECRET)) == ID


@pytest.mark.parametrize(
    "text",
    [
        write_token(ID, OTHER_SECRET),
        write_token(OTHER_ID, SECRET),
        write_token(ID, SECRET) + "\n",
        write_token(ID, SECRET) + "s",
        write_token(ID, SECRET).upper(),
        write_token(ID, ALICE.secret_hash.hex()[:43]),
        write_token("", ""),
        "",
        "bs_",
        SECRET,
        "é" * 60,
        "\x00" * 1_000_000,
    ],
)
def test_nothing_else_is_a_token(text: str) -> None:
    assert find_token(TOKENS, text) is None


def test_what_no_token_is_compared_with_lets_nobody_in() -> None:
    assert find_token({}, "") is None
    assert find_token({}, write_token(ID, SECRET)) is None


@pytest.mark.parametrize("name", ["a", "alice@example.com", "ci+deploy", "Grafana_2", "a" * 64])
def test_a_name_has_what_can_be_told_apart(name: str) -> None:
    assert is_token_name(name)


@pytest.mark.parametrize(
    "name", ["", "a" * 65, ".a", "-a", "a b", "a\n", "a\x00", "ä", "a,b", "<b>", "admin API"]
)
def test_a_name_has_nothing_else(name: str) -> None:
    assert not is_token_name(name)
