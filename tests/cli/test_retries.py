"""`retries` shows how often a bot's calls were tried again, for people and for programs."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from breaker_store.core.events import EventId, Kind, Outcome, Permit, Verdict
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import Clock
from tests.postgres.histories import START, Past

from .conftest import Invoke

UNTIL = "2024-03-02T01:00:00Z"


def attempt(number: int, attempt: int | None, kind: Kind = Kind.SUCCESS, error: str | None = None) -> Outcome:
    too_fast = kind is Kind.SUCCESS and error is not None
    return Outcome(
        kind, EventId(7, number), START + number, Permit(0, 0),  # type: ignore[arg-type]
        verdict=Verdict.NOT_COUNTED if too_fast else Verdict.COUNTED,
        operation="sendMessage", error_type=error, attempt=attempt, duration_us=12_500,
    )  # fmt: skip


@pytest.fixture
def retried(database_url: str) -> None:
    """Have one of user -7's calls succeed at the third attempt, and another at the first."""
    outcomes = [
        attempt(1, None, Kind.FAILURE, "[red]Bad\x1b[2J"),
        attempt(2, 2, error="http.TooManyRequests"),
        attempt(3, 3),
        attempt(4, None),
    ]

    async def store() -> None:
        log = PostgresEventLog(database_url, Clock())
        await Past(log).store(-7, outcomes)
        await log.close()

    asyncio.run(store())


def test_a_sentence_with_its_attempts_and_errors(call: Invoke, retried: None) -> None:
    lines = call("retries", -7, "--until", UNTIL).stdout.splitlines()
    assert lines[0] == (
        "User -7's bot made 2 first attempts and 2 retries from 2024-03-01 01:00:00Z to 2024-03-02 01:00:00Z: "
        "of 1 retried call 1 succeeded in the end."
    )
    assert [line.split() for line in lines[2:6]] == [
        ["attempt", "calls", "succeeded", "declined", "rate", "limited", "failed"],
        ["1", "2", "1", "0", "0", "1"],
        ["2", "1", "0", "0", "1", "0"],
        ["3", "1", "1", "0", "0", "0"],
    ]
    assert [line.split() for line in lines[7:]] == [
        ["retries", "ended", "with"],
        ["1", "http.TooManyRequests"],
    ]
    assert max(map(len, lines[1:])) <= 80


def test_where_nothing_was_tried_again_it_says_so(call: Invoke, retried: None) -> None:
    lines = call("retries", -7).stdout.splitlines()
    assert lines[0].startswith("User -7's bot tried no call again from ")
    assert lines[0].endswith(": 0 first attempts.")
    assert len(lines) == 1


def test_json(call: Invoke, retried: None) -> None:
    found = json.loads(call("retries", -7, "--until", UNTIL, "--hours", 2, "--json").stdout)
    assert (found["since"], found["until"]) == ("2024-03-01T23:00:00Z", "2024-03-02T01:00:00Z")
    assert (found["retried_calls"], found["recovered_calls"], found["rate_limited"]) == (1, 1, 1)
    assert found["errors"] == [{"error_type": "http.TooManyRequests", "retries": 1}]


def test_an_unknown_user(call: Invoke) -> None:
    result = call("retries", 404)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no circuit breaker is known for user 404" in result.stderr


@pytest.mark.parametrize("option", [["--hours", 0], ["--hours", 169], ["--until", "today"]])
def test_mistakes(call: Invoke, option: list[object]) -> None:
    assert call("retries", 1, *option).exit_code == 2


def test_the_history_shows_which_attempt_a_call_was(call: Invoke, retried: None) -> None:
    lines = call("history", -7).stdout.splitlines()
    assert "sendMessage  12.5 ms" in lines[0]
    assert "sendMessage  attempt 3  12.5 ms" in lines[1]
    assert "(not counted)  sendMessage  attempt 2  12.5 ms  http.TooManyRequests" in lines[2]


def test_health_says_that_a_bot_is_rate_limited(call: Invoke, database_url: str) -> None:
    async def hurry() -> None:
        log = PostgresEventLog(database_url, Clock())
        at = Clock().now_us()
        too_fast = attempt(1, None, error="http.TooManyRequests")
        await Past(log).store(-7, [replace(too_fast, at=at)])
        await log.close()

    asyncio.run(hurry())
    lines = call("health", -7).stdout.splitlines()
    assert lines[0] == "User -7's bot is healthy."
    figures = {line[:18].strip(): line[19:].strip() for line in lines[2:11]}
    assert figures["rate limited"] == "yes, as the last call was answered"
    assert figures["last success"] == "-"
