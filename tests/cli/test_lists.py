"""`list` and `transitions` show all breakers, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Invoke, outcome, write_lines


@pytest.fixture
def night(call: Invoke, tmp_path: Path) -> None:
    """Let 101 trip by hostile words, and 102 never."""
    failures = [outcome(101, n, outcome="failure", error_type="Bad\x1b[2J") for n in range(5)]
    history = write_lines(tmp_path / "night.ndjson", *failures, outcome(102, 9))
    assert call("import", "--format", "ndjson", history).exit_code == 0


def test_breakers_are_listed_in_a_table(call: Invoke, night: None) -> None:
    lines = call("list").stdout.splitlines()
    assert lines[0].split() == [
        "user",
        "state",
        "last",
        "change",
        "trips",
        "tripped",
        "by",
        "may",
        "try",
        "in",
    ]
    assert lines[1].split() == ["101", "open", "2023-11-14", "22:13:24Z", "1", r"Bad\x1b[2J", "0.0", "s"]
    assert lines[2].split() == ["102", "closed", "-", "0", "-", "-"]


def test_breakers_are_listed_as_json(call: Invoke, night: None) -> None:
    (item,) = map(
        json.loads, call("list", "--json", "--state", "open", "--sort", "trips").stdout.splitlines()
    )
    assert (item["user_id"], item["state"], item["trips"]) == (101, "open", 1)


def test_what_is_cut_is_said(call: Invoke, night: None) -> None:
    assert "there are more" in call("list", "--limit", 1).stderr
    assert call("list", "--error", "None").stderr == "no breaker is like that\n"
    assert call("transitions", "--kind", "reset").stderr == "no transition is like that\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--state", "ajar"),
        ("list", "--sort", "beauty"),
        ("list", "--limit", "0"),
        ("list", "--limit", str(2**63 - 1)),
        ("transitions", "--kind", "failure"),
        ("transitions", "--limit", str(2**63 - 1)),
        ("transitions", "--since", "2026-01-02", "--until", "2026-01-01"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(call: Invoke, arguments: tuple[str, ...]) -> None:
    assert call(*arguments).exit_code == 2


def test_transitions_of_everybody_are_lines(call: Invoke, night: None) -> None:
    line = call("transitions", "--kind", "opened").stdout
    assert line.startswith("2023-11-14 22:13:24.000Z  opened        user 101")
    assert "  after 5 failures, the last: Bad" in line
    assert "\x1b[2J" not in line


def test_transitions_of_everybody_are_json(call: Invoke, night: None) -> None:
    (item,) = map(json.loads, call("transitions", "--json", "--error", "Bad\x1b[2J").stdout.splitlines())
    assert (item["user_id"], item["kind"], item["position"]) == (101, "opened", 1)
    assert call("transitions", "--actor", "alice").stdout == ""
