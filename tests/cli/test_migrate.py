from __future__ import annotations

import json

from breaker_store.postgres.migrating import known_revisions, needed_revision

from .conftest import Invoke


def test_up_and_down(invoke: Invoke, empty_database_url: str) -> None:
    """`migrate` brings a named database's schema up and down, and tells where it is."""

    def migrate(*arguments: str) -> str:
        result = invoke("migrate", *arguments, "--database-url", empty_database_url)
        assert result.exit_code == 0
        return result.stdout

    head, first = needed_revision(), known_revisions()[0]
    assert migrate("current") == f"none (needed: {head})\n"
    assert migrate("up", first) == f"the schema is at {first}, up from nothing\n"
    assert migrate("up") == f"the schema is at {head}, up from {first}\n"
    assert migrate("up") == f"the schema is at {head} already\n"
    assert migrate("current") == f"{head} (up to date)\n"
    assert migrate("down", first, "--yes") == f"the schema is at {first}\n"
    assert migrate("down", "base", "--yes") == "the schema is gone\n"


def test_current_as_json(invoke: Invoke, empty_database_url: str) -> None:
    """`current --json` names both revisions; there may be none yet."""

    def current() -> object:
        return json.loads(invoke("migrate", "current", "--json", "--database-url", empty_database_url).stdout)

    head = needed_revision()
    assert current() == {"current": None, "needed": head}
    invoke("migrate", "up", "--database-url", empty_database_url)
    assert current() == {"current": head, "needed": head}


def test_down_asks(invoke: Invoke, owner_url: str) -> None:
    """`down` deletes nothing unless it is told twice."""
    for answer in ("n\n", ""):
        result = invoke("migrate", "down", "base", "--database-url", owner_url, input=answer)
        assert result.exit_code == 1
        assert "the whole log of events" in result.stderr
    assert "up to date" in invoke("migrate", "current", "--database-url", owner_url).stdout
    assert invoke("migrate", "down", "base", "--database-url", owner_url, input="y\n").exit_code == 0
    assert "none" in invoke("migrate", "current", "--database-url", owner_url).stdout


def test_unknown_revision(call: Invoke) -> None:
    """A revision that does not exist is a line, not a traceback."""
    result = call("migrate", "up", "nowhere")
    assert result.exit_code == 1
    assert "nowhere" in result.stderr
