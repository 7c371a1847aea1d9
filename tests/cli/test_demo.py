from __future__ import annotations

from .conftest import Invoke, Start


def test_short_demo(start: Start, database_url: str) -> None:
    """`demo` runs for as long as it is told, and ends well."""
    process = start("demo", "--seconds", 0, "--bots", 1, "--port", 0, "--database-url", database_url)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert output


def test_too_many_bots(call: Invoke) -> None:
    """What the demo refuses is a line and exit code 1."""
    result = call("demo", "--bots", 10**6)
    assert result.exit_code == 1
    assert result.stderr.startswith("breaker-store: bots are between 1 and ")
