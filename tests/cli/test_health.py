"""`health` shows how bots are and were, for people and for programs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psycopg
import pytest

from .conftest import Invoke, outcome, write_lines

COLUMNS = 80

JUDGE = """
UPDATE fleet_health SET judged_at = '2026-03-01T02:00:00Z', bots = 200, degraded = 20, unhealthy = 1, suspended = 0,
    successes = 900, failures = 100, refusals = 5, duration_us = 200000000, timed_calls = 1000;
INSERT INTO unhealthy_bots (user_id, since, failure_run, status, findings)
VALUES (102, '2026-03-01T01:00:00Z', 5, 2, '{"5 failures in a row", "its breaker is open"}');
"""


@pytest.fixture
def just_now(call: Invoke, tmp_path: Path) -> None:
    """Let 101 have six calls just now, of which two failed with hostile words, and 102 one long ago."""
    letters = enumerate("SFSSSF")
    lines = [
        {"user_id": 101, "at": time.time() - 9 + number, "outcome": "success", "duration_ms": 100}
        | ({"outcome": "failure", "error_type": "Bad\x1b[2J"} if letter == "F" else {})
        for number, letter in letters
    ]
    history = write_lines(tmp_path / "now.ndjson", outcome(102, 0), *lines)
    assert call("import", "--format", "ndjson", history).exit_code == 0


@pytest.fixture
def judged(owner_url: str) -> None:
    """Have the fleet judged, as the roll-ups do."""
    with psycopg.connect(owner_url) as connection:
        connection.execute(JUDGE)


def test_a_bots_health_is_a_sentence_with_its_figures(call: Invoke, just_now: None) -> None:
    lines = call("health", 101).stdout.splitlines()
    assert lines[0] == "User 101's bot is degraded: 33% of its calls failed."
    figures = {line[:18].strip(): line[19:].strip() for line in lines[2:11]}
    assert figures["requests"] == "6: 4 succeeded, 2 failed, 0 refused"
    assert figures["failures in a row"] == "1"
    assert figures["last failure"].endswith(r", Bad\x1b[2J")


def chart(output: str) -> list[list[str]]:
    """Give the words of each line of the chart, from its head on."""
    lines = [line.split() for line in output.splitlines()]
    return lines[next(number for number, words in enumerate(lines) if words[:1] == ["UTC,"]) :]


def test_the_chart_has_a_line_for_each_hour_or_minute(call: Invoke, just_now: None) -> None:
    day, hour = (chart(call("health", 101, *option).stdout) for option in ((), ("--by-minute",)))
    assert [head[2] for head in (day[0], hour[0])] == ["hour", "minute"]
    assert [len(lines) - 1 for lines in (day, hour)] == [24, 60]
    assert sum(int(words[2]) for words in hour[1:]) == 6
    assert [words for words in hour[1:] if "██████████" in words]


def test_it_fits_into_a_terminal_and_has_no_escapes_in_a_pipe(
    call: Invoke, just_now: None, judged: None
) -> None:
    for arguments in ((101,), ()):
        output = call("health", *arguments, "--by-minute").stdout
        assert "\x1b" not in output
        assert max(map(len, output.splitlines()[1:])) <= COLUMNS


def test_health_and_history_are_one_line_of_json(call: Invoke, just_now: None) -> None:
    document = json.loads(call("health", 101, "--json").stdout)
    assert (document["health"]["status"], document["health"]["failed_requests"]) == ("degraded", 2)
    assert len(document["history"]) == 24
    assert sum(item["total_requests"] for item in document["history"]) == 6


def test_a_fleet_that_was_not_judged_yet_says_so(call: Invoke) -> None:
    assert call("health").stdout.startswith("The bots have not been judged yet")
    assert json.loads(call("health", "--json").stdout)["health"] is None


def test_the_fleets_health_comes_with_the_bots_that_are_not_healthy(call: Invoke, judged: None) -> None:
    lines = call("health").stdout.splitlines()
    assert lines[0] == (
        "The fleet is good: of 200 bots 179 healthy, 20 degraded, 1 unhealthy and 0 suspended."
    )
    assert "error rate     10.0%" in [line.rstrip() for line in lines]
    [bot] = [line for line in lines if line.strip().startswith("102")]
    assert bot.rstrip().endswith("5 failures in a row; its breaker is open")
    assert json.loads(call("health", "--json").stdout)["unhealthy"][0]["user_id"] == 102


def test_a_bot_of_which_nothing_is_stored_is_an_error(call: Invoke) -> None:
    result = call("health", 404404)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "404404" in result.stderr
