from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Invoke, outcome, write_lines


@pytest.fixture
def tripped(call: Invoke, tmp_path: Path) -> int:
    """Have user -7 fail five times, be called in vain, and be let through after the wait."""
    failures = [
        outcome(
            -7, second, outcome="failure", error_type="E", error_message="[red]no\x1b[2J", operation="send"
        )
        for second in range(5)
    ]
    lines = (*failures, outcome(-7, 10), outcome(-7, 100, duration_ms=12.5))
    file = write_lines(tmp_path / "lines", *lines)
    assert call("import", file, "--format", "ndjson").exit_code == 0
    return -7


def read_json(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_newest_first(call: Invoke, tripped: int) -> None:
    """`history` shows a line for each event, newest first, with what is known of it."""
    result = call("history", tripped)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert [line.split()[2] for line in lines] == (
        ["success", "half_opened", "success", "opened", *["failure"] * 5]
    )
    assert lines[0].startswith("2023-11-14 22:15:00.000Z  success       12.5 ms  ")
    assert "open -> half_open  the wait of 60 s is over" in lines[1]
    assert "(would be refused)" in lines[2]


def test_data_do_not_steer_the_terminal(call: Invoke, tripped: int) -> None:
    """What stands in a text of the log is neither markup nor a control sequence."""
    last = call("history", tripped).stdout.splitlines()[-1]
    assert "send  E: [red]no\\x1b[2J" in last


def test_json(call: Invoke, tripped: int) -> None:
    """`--json` gives a line for each event, with times in UTC and ids as text."""
    newest, *_, oldest = read_json(call("history", tripped, "--json").stdout)
    assert (newest["kind"], newest["at"], newest["duration_ms"]) == ("success", "2023-11-14T22:15:00Z", 12.5)
    assert oldest["id"].partition("-")[2] == "1"
    assert oldest["error_message"] == "[red]no\x1b[2J"


def test_transitions(call: Invoke, tripped: int) -> None:
    """`--transitions` gives transitions alone, with their causes."""
    items = read_json(call("history", tripped, "--transitions", "--json").stdout)
    assert [item["kind"] for item in items] == ["half_opened", "opened"]
    assert len(items[1]["causes"]) == 5
    assert "after 5 failures, the last: E: " in call("history", tripped, "--transitions").stdout


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (["--limit", "2"], ["success", "half_opened"]),
        (["--kind", "opened", "--kind", "half_opened"], ["half_opened", "opened"]),
        (["--since", "2023-11-14T22:15:00+00:00"], ["success", "half_opened"]),
        (["--since", "2023-11-14T23:15:00+01:00"], ["success", "half_opened"]),
        (["--until", "2023-11-14T22:13:21"], ["failure"]),
        (["--kind", "closed"], []),
    ],
)
def test_filters(call: Invoke, tripped: int, options: list[str], kinds: list[str]) -> None:
    """Kinds, times (UTC unless they say) and a number bound what is shown."""
    result = call("history", tripped, "--json", *options)
    assert result.exit_code == 0
    assert [item["kind"] for item in read_json(result.stdout)] == kinds


def test_more_than_a_page(call: Invoke, tmp_path: Path) -> None:
    """A limit above the size of a page is met by several pages, each event once."""
    file = write_lines(tmp_path / "lines", *(outcome(1, second) for second in range(450)))
    call("import", file, "--format", "ndjson")
    ids = [item["id"] for item in read_json(call("history", 1, "--json", "--limit", 440).stdout)]
    assert len(set(ids)) == len(ids) == 440


@pytest.mark.parametrize(
    "arguments",
    [
        ["1", "--kind", "unrecognized"],
        ["1", "--since", "yesterday"],
        ["1", "--since", "0001-01-01T00:00:00+14:00"],
        ["1", "--since", "2026-01-02", "--until", "2026-01-01"],
        ["1", "--limit", "0"],
        ["one"],
        [str(2**63)],
    ],
)
def test_mistakes(call: Invoke, arguments: list[str]) -> None:
    """A mistake in the arguments is said, with exit code 2."""
    result = call("history", *arguments)
    assert result.exit_code == 2
    assert "Invalid value" in result.stderr


def test_unknown_user(call: Invoke) -> None:
    """An unknown user is an error."""
    result = call("history", 404)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no circuit breaker is known for user 404" in result.stderr
