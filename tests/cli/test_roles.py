from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from breaker_store.embedded import EmbeddedPostgres
from breaker_store.postgres import migrating
from breaker_store.postgres.privileges import DEFAULT_APPLICATION

from .conftest import Invoke, outcome, write_lines


def test_sql_is_what_apply_runs(invoke: Invoke, owner_url: str) -> None:
    """`roles sql` prints a script that a person can run by other means, twice, and needs no database."""
    script = invoke("roles", "sql").stdout
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute(f"REVOKE ALL ON breaker_events FROM {DEFAULT_APPLICATION}")
        for _ in range(2):
            owner.execute(script)
        [may] = owner.execute(
            "SELECT has_table_privilege(%s, 'breaker_events', 'INSERT')", [DEFAULT_APPLICATION]
        ).fetchone()
    assert may


def test_apply(invoke: Invoke, owner_url: str) -> None:
    """`roles apply` says who may do what from now on."""
    result = invoke("roles", "apply", "--database-url", owner_url)
    assert result.exit_code == 0
    assert result.stdout == (
        "breaker_store_application may append to the log and read it; breaker_store_maintenance may read it\n"
    )


@pytest.mark.parametrize("name", ["two words", "", "pg_bots"])
def test_a_name_that_no_role_can_have(invoke: Invoke, name: str) -> None:
    """A mistake is a line, not a traceback, and nothing is printed that somebody might run."""
    result = invoke("roles", "sql", "--application", name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "can't be the name of a role" in result.stderr


def test_who_is_not_the_owner(call: Invoke) -> None:
    """The application can't give itself anything, and is told who can."""
    result = call("roles", "apply")
    assert result.exit_code == 1
    assert "connect as the owner" in result.stderr


def test_an_older_data_dir_gets_its_roles(invoke: Invoke, data_dir: Path, tmp_path: Path) -> None:
    """A folder of before there were roles is brought up to them by the first command, which uses the application's."""
    with EmbeddedPostgres(data_dir, settings={"fsync": "off"}) as server:
        asyncio.run(migrating.upgrade(server.url))
        with psycopg.connect(server.url) as owner:
            assert owner.execute("SELECT to_regrole(%s)", [DEFAULT_APPLICATION]).fetchone() == (None,)
    file = write_lines(tmp_path / "lines", outcome(1, 0))
    assert invoke("import", file, "--format", "ndjson", "--data-dir", data_dir).exit_code == 0
    with (
        EmbeddedPostgres(data_dir, settings={"fsync": "off"}) as server,
        psycopg.connect(server.url_as(DEFAULT_APPLICATION)) as application,
    ):
        assert application.execute("SELECT count(*) FROM breaker_events").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            application.execute("DELETE FROM breaker_events")
