from __future__ import annotations

import json
from pathlib import Path

from .conftest import Invoke, outcome, write_lines


def test_table(call: Invoke, tmp_path: Path) -> None:
    """`state` shows a breaker as a table."""
    file = write_lines(tmp_path / "lines", *(outcome(-7, second, outcome="failure") for second in range(5)))
    call("import", file, "--format", "ndjson")
    result = call("state", -7)
    assert result.exit_code == 0
    rows = dict(line.split("  ", 1) for line in map(str.strip, result.stdout.splitlines()))
    shown = {name: value.strip() for name, value in rows.items()}
    assert (shown["user"], shown["state"], shown["failures"]) == ("-7", "open", "5 of 5")
    assert shown["refuses for"] == "no longer: the next call may try"
    assert shown["last failure"] == "2023-11-14 22:13:24 UTC"


def test_json(call: Invoke, tmp_path: Path) -> None:
    """`--json` gives the keys of `get_state`, and the user's id."""
    file = write_lines(tmp_path / "lines", outcome(2**63 - 1, 0))
    call("import", file, "--format", "ndjson")
    assert json.loads(call("state", 2**63 - 1, "--json").stdout) == {
        "user_id": 2**63 - 1,
        "at": None,
        "state": "closed",
        "failure_count": 0,
        "success_count": 0,
        "failure_threshold": 5,
        "success_threshold": 2,
        "timeout_seconds": 60.0,
        "timeout_remaining": 0.0,
        "last_failure_time": None,
        "sentence": "User 9223372036854775807's breaker is closed.",
        "version": "0-00000000",
        "forced": False,
        "suspended": False,
    }


def test_at(call: Invoke, tmp_path: Path) -> None:
    """`--at` shows how it stood at a time, and says which."""
    file = write_lines(tmp_path / "lines", *(outcome(7, second, outcome="failure") for second in range(5)))
    call("import", file, "--format", "ndjson")
    before = json.loads(call("state", 7, "--json", "--at", "2023-11-14T23:13:23.5+01:00").stdout)
    assert (before["state"], before["failure_count"]) == ("closed", 4)
    assert before["at"] == "2023-11-14T22:13:23.500000Z"
    result = call("state", 7, "--at", "2023-11-14T22:13:34")
    rows = dict(line.split("  ", 1) for line in map(str.strip, result.stdout.splitlines()))
    shown = {name: value.strip() for name, value in rows.items()}
    assert (shown["at"], shown["state"]) == ("2023-11-14T22:13:34Z", "open")
    assert shown["refuses for"] == "50.0 s"


def test_at_a_time_of_which_nothing_is_known(call: Invoke, tmp_path: Path) -> None:
    """A time before the oldest event, or one to come, is a line on stderr, and exit code 1."""
    call("import", write_lines(tmp_path / "lines", outcome(7, 0)), "--format", "ndjson")
    early, late = call("state", 7, "--at", "2023-11-14"), call("state", 7, "--at", "2999-01-01")
    assert (early.exit_code, early.stdout, late.exit_code, late.stdout) == (1, "", 1, "")
    assert early.stderr == (
        "breaker-store: what held at 2023-11-14T00:00:00Z can't be told: "
        "the log goes back to 2023-11-14T22:13:20Z\n"
    )
    assert late.stderr == "breaker-store: 2999-01-01T00:00:00Z is yet to come: nothing is known of it\n"


def test_at_no_time(call: Invoke) -> None:
    """What is no time is a mistake in the command line."""
    result = call("state", 7, "--at", "yesterday")
    assert result.exit_code == 2
    assert "not a time in ISO 8601" in result.stderr


def test_unknown_user(call: Invoke) -> None:
    """An unknown user is a line on stderr, and exit code 1."""
    result = call("state", 404)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "breaker-store: no circuit breaker is known for user 404: no event of this user is stored\n"
    )


def test_unmigrated_database(invoke: Invoke, empty_database_url: str) -> None:
    """A named database without a schema is an error that says what to do."""
    result = invoke("state", 1, "--database-url", empty_database_url)
    assert result.exit_code == 1
    assert "breaker-store migrate up" in result.stderr


def test_unreachable_database(invoke: Invoke) -> None:
    """A database that can't be reached is a line, not a traceback."""
    result = invoke("state", 1, "--database-url", "postgresql://127.0.0.1:1/nothing")
    assert result.exit_code == 1
    assert "can't be reached" in result.stderr
    assert result.stderr.count("\n") == 1


def test_missing_database(invoke: Invoke, empty_database_url: str) -> None:
    """So is one that does not exist."""
    result = invoke("state", 1, "--database-url", empty_database_url.replace("breaker_store", "no_such"))
    assert result.exit_code == 1
    assert "does not exist" in result.stderr
