from __future__ import annotations

import json

import pytest

from breaker_store.cli.acting import login_name

from .conftest import Invoke

REASON = "the provider is being moved"


@pytest.fixture
def user_id(call: Invoke, tmp_path) -> int:
    """Make a user who tripped."""
    file = tmp_path / "history"
    file.write_text(
        "\n".join(
            json.dumps(
                {
                    "user_id": 7,
                    "at": f"2026-03-01T03:00:0{number}Z",
                    "outcome": "failure",
                    "error_type": "NoAnswer",
                }
            )
            for number in range(5)
        )
    )
    assert call("import", file, "--format", "ndjson").exit_code == 0
    return 7


def test_what_is_done_is_told_in_a_sentence_and_kept_with_who_and_why(call: Invoke, user_id: int) -> None:
    """`force-open`, `release`, `reset` say how the breaker then stands; the history says who did it, and what came of it."""
    forced = call("force-open", user_id, "--for", "2h", "--reason", REASON, "--actor", "alice")
    assert forced.stdout.startswith("User 7's breaker is forced open by alice (command line) until ")
    assert REASON in forced.stdout
    assert call("release", user_id, "--actor", "bob").stdout == "User 7's breaker is closed.\n"
    assert call("reset", user_id, "--actor", "bob").exit_code == 0
    history = call("history", user_id, "--kind", "forced_open", "--kind", "released").stdout
    assert "released" in history
    assert "by alice (command line)" in history
    assert call("transitions", "--actor", "alice (command line)", "--kind", "forced_open").stdout
    # So it is not what whoever has a token of this name did.
    assert call("transitions", "--actor", "alice").stdout == ""


def test_who_acts_unless_it_is_said(call: Invoke, user_id: int) -> None:
    """Without `--actor` it is who runs the command; what steers a terminal is shown and not obeyed."""
    forced = call("force-open", user_id, "--reason", "\x1b[2J").stdout
    assert f"by {login_name()} (command line) until" in forced
    assert "\x1b" not in forced
    assert "x1b[2J" in forced


def test_a_suspended_bot(call: Invoke, user_id: int) -> None:
    """`suspend` and `resume` say how the bot then stands; `state`, `list`, `why` and `history` show it."""
    suspended = call("suspend", user_id, "--reason", "unpaid bill", "--actor", "alice")
    assert suspended.stdout.startswith("User 7's bot is suspended by alice (command line) since ")
    assert "unpaid bill" in " ".join(call("state", user_id).stdout.split())
    assert json.loads(call("state", user_id, "--json").stdout)["suspended"]
    assert "until resumed" in call("list").stdout
    assert "was suspended by alice" in call("why", user_id).stdout
    assert call("reset", user_id).stderr.endswith("user 7's bot is suspended: resume it first\n")
    assert call("resume", user_id, "--actor", "bob").stdout == "User 7's breaker is closed.\n"
    history = call("history", user_id).stdout
    assert "unpaid bill  by alice (command line)  (resumed " in history
    assert "resumed" in history


def test_a_version_that_has_passed(call: Invoke, user_id: int) -> None:
    """With `--if-version` nothing is done to a breaker that has moved on."""
    seen = json.loads(call("state", user_id, "--json").stdout)["version"]
    assert call("reset", user_id, "--if-version", seen).exit_code == 0
    result = call("reset", user_id, "--if-version", seen)
    assert (result.exit_code, "has moved on" in result.stderr) == (1, True)


def test_policy(call: Invoke, user_id: int) -> None:
    """`policy` shows, sets and takes back a user's rules."""
    assert call("policy", user_id).stdout.startswith("User 7 has the default policy:")
    own = call("policy", user_id, "--failure-threshold", 3, "--ignores", "asyncio.TimeoutError")
    assert "a policy of their own: their breaker opens after 3 failures" in own.stdout
    assert "asyncio.TimeoutError does not count" in own.stdout
    assert call("policy", user_id, "--default").stdout.startswith("User 7 has the default policy:")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["release", 7], 1, "is not forced open"),
        (["resume", 7], 1, "is not suspended"),
        (["reset", 8], 1, "no circuit breaker is known for user 8"),
        (["force-open", 7, "--for", "soon"], 2, "not a length of time"),
        (["force-open", 7, "--for", "0s"], 1, "more than 0"),
        (["force-open", 7, "--for", "2h", "--until", "2099-01-01T00:00:00Z"], 2, "exclude"),
        (["force-open", 7, "--until", "2001-01-01T00:00:00Z"], 1, "passed"),
        (["reset", 7, "--if-version", "latest"], 2, ""),
        (["policy", 7, "--failure-threshold", 0], 2, ""),
        (["policy", 7, "--failure-threshold", 3, "--default"], 2, ""),
        (["policy", 7, "--reason", "none"], 2, "none is given"),
        (["policy", 7, "--if-version", "0-00000000"], 2, "none is given"),
        (["reset", 7, "--actor", ""], 2, "printable"),
        (["reset", 7, "--actor", "  "], 2, "printable"),
        (["reset", 7, "--actor", "alice\nreset by bob"], 2, "printable"),
        (["reset", 7, "--actor", "\x1b[2J"], 2, "printable"),
        (["reset", 7, "--actor", "x" * 65], 2, "1 to 64"),
    ],
)
def test_mistakes(call: Invoke, user_id: int, arguments: list, exit_code: int, words: str) -> None:
    """What makes no sense is said on stderr and does nothing."""
    before = call("state", user_id, "--json").stdout
    result = call(*arguments)
    assert (result.exit_code, words in result.stderr) == (exit_code, True), result.stderr
    assert json.loads(call("state", user_id, "--json").stdout)["version"] == json.loads(before)["version"]
