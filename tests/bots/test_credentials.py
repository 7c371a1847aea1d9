"""A bot's credentials are right from birth, and its token is never printed."""

from __future__ import annotations

import copy
import pickle
from dataclasses import asdict, replace
from typing import Any

import pytest

from breaker_store.bots import Secret, UserBotCredentials
from tests.bots.world import TOKEN

CREDENTIALS = UserBotCredentials(101, TOKEN)


@pytest.mark.parametrize(
    "text",
    [
        repr(CREDENTIALS),
        str(CREDENTIALS),
        f"{CREDENTIALS}",
        f"{CREDENTIALS.token}",
        "%s %r" % (CREDENTIALS.token, CREDENTIALS.token),  # noqa: UP031 - as logging formats
        str(asdict(CREDENTIALS)),
        repr(vars(Secret).get("_value")),
    ],
)
def test_a_token_is_not_printed(text: str) -> None:
    assert TOKEN not in text
    assert TOKEN.partition(":")[2] not in text


def test_a_token_is_given_to_whoever_asks_for_it() -> None:
    assert CREDENTIALS.reveal_token() == TOKEN


def test_a_token_is_copied_and_not_pickled() -> None:
    assert copy.deepcopy(CREDENTIALS) == CREDENTIALS
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(CREDENTIALS)


def test_credentials_are_equal_if_everything_is() -> None:
    assert UserBotCredentials(101, Secret(TOKEN)) == CREDENTIALS
    assert replace(CREDENTIALS, token="another") != CREDENTIALS
    assert hash(CREDENTIALS) == hash(UserBotCredentials(101, TOKEN))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"user_id": "101"}, "a user id is an int"),
        ({"user_id": True}, "a user id is an int"),
        ({"user_id": 2**63}, "64 bits"),
        ({"token": ""}, "not empty"),
        ({"token": None}, "a token is a text"),
        ({"token": Secret(None)}, "a token is a text"),  # type: ignore[arg-type]
        ({"requests_per_second": 0}, "over 0"),
        ({"requests_per_second": -1}, "over 0"),
        ({"requests_per_second": float("nan")}, "over 0"),
        ({"requests_per_second": float("inf")}, "over 0"),
        ({"concurrency": 0}, "from 1"),
        ({"concurrency": 1.5}, "from 1"),
    ],
)
def test_credentials_that_make_no_sense_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises((TypeError, ValueError), match=complaint):
        UserBotCredentials(**{"user_id": 101, "token": TOKEN, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"token": [TOKEN]},
        {"user_id": TOKEN, "token": 101},
        {"requests_per_second": TOKEN},
        {"concurrency": TOKEN},
    ],
)
def test_a_token_in_the_wrong_place_is_not_printed_by_the_error(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError) as told:
        UserBotCredentials(**{"user_id": 101, "token": TOKEN, **settings})
    assert TOKEN not in str(told.value)
