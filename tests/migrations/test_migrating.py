"""Migrating from code and from the command line, and telling what schema is there."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from breaker_store import errors
from breaker_store.errors import ConfigurationError
from breaker_store.postgres import migrating

Connect = Callable[..., Awaitable[asyncpg.Connection]]

REPOSITORY = Path(__file__).parents[2]
MIGRATION_LOCK = "1651665779, 1"

RECORD_SESSION = """
CREATE TABLE seen AS SELECT '' AS lock_timeout, '' AS statement_timeout, false AS locked LIMIT 0;
CREATE FUNCTION record_session() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen SELECT current_setting('lock_timeout'), current_setting('statement_timeout'), EXISTS (
        SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND (classid, objid) = (%s)
    );
END
$$;
CREATE EVENT TRIGGER record_session ON ddl_command_end EXECUTE FUNCTION record_session();
""".replace("%s", MIGRATION_LOCK)


async def run_alembic(*arguments: str, database_url: str | None) -> tuple[int | None, str]:
    """Run Alembic's own command from the repository's top; give back its exit code and what it wrote."""
    environment = {name: value for name, value in os.environ.items() if name != "BREAKER_STORE_DATABASE_URL"}
    if database_url is not None:
        environment["BREAKER_STORE_DATABASE_URL"] = database_url
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "alembic", *arguments),
        cwd=REPOSITORY,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def pretend_revision(connection: asyncpg.Connection, revision: str) -> None:
    await connection.execute(f"UPDATE {migrating.VERSION_TABLE} SET version_num = $1", revision)


async def test_upgrading_brings_an_empty_database_to_the_needed_revision(empty_database_url: str) -> None:
    assert await migrating.current(empty_database_url) is None
    await migrating.upgrade(empty_database_url)
    assert await migrating.current(empty_database_url) == migrating.needed_revision()
    await migrating.upgrade(empty_database_url)
    await migrating.check_schema(migrating.open_engine(empty_database_url))


async def test_a_library_call_neither_prints_nor_sets_up_logging(
    empty_database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = list(logging.root.handlers), logging.root.level, logging.getLogger("alembic").level

    await migrating.upgrade(empty_database_url)
    await migrating.downgrade(empty_database_url, "base")

    assert capfd.readouterr() == ("", "")
    assert before == (list(logging.root.handlers), logging.root.level, logging.getLogger("alembic").level)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
async def test_every_spelling_of_the_address_is_understood(empty_database_url: str, scheme: str) -> None:
    assert await migrating.current(empty_database_url.replace("postgresql", scheme, 1)) is None


async def test_another_kind_of_address_is_refused_without_showing_its_password() -> None:
    with pytest.raises(ConfigurationError, match="postgresql://") as caught:
        await migrating.upgrade("mysql://me:secret@host/name")
    assert "secret" not in str(caught.value)


async def test_alembic_itself_migrates_the_database_of_the_environment(empty_database_url: str) -> None:
    code, output = await run_alembic("upgrade", "head", database_url=empty_database_url)
    assert code == 0, output
    assert await migrating.current(empty_database_url) == migrating.needed_revision()


async def test_alembic_without_a_database_says_which_variable_is_missing() -> None:
    code, output = await run_alembic("upgrade", "head", database_url=None)
    assert code != 0
    assert "BREAKER_STORE_DATABASE_URL is not set" in output
    assert "Traceback" not in output


async def test_alembic_writes_the_statements_without_a_database() -> None:
    code, output = await run_alembic("upgrade", "head", "--sql", database_url=None)
    assert code == 0, output
    assert "CREATE TABLE breaker_events" in output
    assert migrating.VERSION_TABLE in output


async def test_two_processes_migrating_at_once_both_succeed(empty_database_url: str) -> None:
    answers = await asyncio.gather(
        *(run_alembic("upgrade", "head", database_url=empty_database_url) for _ in range(2))
    )
    assert [code for code, _ in answers] == [0, 0], answers
    assert sum(output.count("Running upgrade") for _, output in answers) == len(migrating.known_revisions())


async def test_two_tasks_migrating_at_once_both_succeed(empty_database_url: str, database_url: str) -> None:
    """Alembic's globals are not mixed up, be it one database or two."""
    await migrating.downgrade(database_url, "base")
    await asyncio.gather(*(migrating.upgrade(url) for url in [empty_database_url, database_url] * 2))
    assert await migrating.current(empty_database_url) == migrating.needed_revision()
    assert await migrating.current(database_url) == migrating.needed_revision()


async def test_waiting_for_another_migration_has_an_end(connect: Connect, empty_database_url: str) -> None:
    other = await connect(empty_database_url)
    await other.execute(f"SELECT pg_advisory_lock({MIGRATION_LOCK})")

    with pytest.raises(errors.MigrationBusyError) as caught:
        await migrating.upgrade(empty_database_url, lock_wait_seconds=0.0)

    assert caught.value.waited_seconds == 0.0
    assert await migrating.current(empty_database_url) is None


async def test_a_waiting_migration_goes_on_when_the_other_is_done(
    connect: Connect, empty_database_url: str
) -> None:
    other = await connect(empty_database_url)
    await other.execute(f"SELECT pg_advisory_lock({MIGRATION_LOCK})")
    waiting = asyncio.create_task(migrating.upgrade(empty_database_url))
    while not await other.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(0.1)'"):
        assert not waiting.done()

    await other.execute(f"SELECT pg_advisory_unlock({MIGRATION_LOCK})")
    await waiting

    assert await migrating.current(empty_database_url) == migrating.needed_revision()


async def test_every_statement_runs_under_time_limits_and_the_lock(
    connect: Connect, empty_database_url: str
) -> None:
    database = await connect(empty_database_url)
    try:
        await database.execute(RECORD_SESSION)
    except asyncpg.InsufficientPrivilegeError:
        pytest.skip("only a superuser may watch statements by an event trigger")

    await migrating.upgrade(empty_database_url)

    assert [tuple(row) for row in await database.fetch("SELECT DISTINCT * FROM seen")] == [
        ("5s", "5min", True)
    ]


@pytest.mark.parametrize("goes_well", [True, False])
async def test_a_connection_that_was_handed_over_comes_back_as_it_was(
    empty_database_url: str, goes_well: bool
) -> None:
    """Its time limits are its own again, the lock is free, and no transaction is open."""
    async with migrating.open_engine(empty_database_url).connect() as connection:
        await connection.exec_driver_sql("SET lock_timeout = '7s'")
        if not goes_well:
            await connection.exec_driver_sql("CREATE TABLE log_position ()")
        await connection.commit()
        with nullcontext() if goes_well else pytest.raises(DBAPIError, match="already exists"):
            await connection.run_sync(lambda sync: command.upgrade(migrating.make_config(sync), "head"))
        assert not connection.in_transaction()
        assert await connection.scalar(text("SHOW lock_timeout")) == "7s"
        assert await connection.scalar(text("SHOW statement_timeout")) == "0"
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        assert await connection.scalar(text(locks)) == 0


async def test_a_connection_within_a_transaction_is_refused(empty_database_url: str) -> None:
    async with migrating.open_engine(empty_database_url).begin() as connection:
        with pytest.raises(RuntimeError, match="outside a transaction"):
            await connection.run_sync(lambda sync: command.upgrade(migrating.make_config(sync), "head"))


async def test_the_migrations_of_a_host_application_are_left_alone(
    connect: Connect, empty_database_url: str
) -> None:
    """An application that shares the database may have Alembic's own table of versions."""
    database = await connect(empty_database_url)
    await database.execute("CREATE TABLE alembic_version AS SELECT 'theirs' AS version_num")

    await migrating.upgrade(empty_database_url)
    await migrating.downgrade(empty_database_url, "base")

    assert await database.fetchval("SELECT version_num FROM alembic_version") == "theirs"


async def test_a_database_without_our_tables_is_told_apart(empty_database_url: str) -> None:
    with pytest.raises(errors.NotMigratedError, match="breaker-store migrate up") as caught:
        await migrating.check_schema(migrating.open_engine(empty_database_url))
    assert (caught.value.found, caught.value.needed) == (None, migrating.needed_revision())


async def test_a_newer_schema_than_the_codes_is_told_apart(
    connection: asyncpg.Connection, database_url: str
) -> None:
    await pretend_revision(connection, "9999")

    with pytest.raises(errors.SchemaTooNewError, match="newer schema") as caught:
        await migrating.check_schema(migrating.open_engine(database_url))
    assert (caught.value.found, caught.value.needed) == ("9999", migrating.needed_revision())
    for change in (migrating.upgrade(database_url), migrating.downgrade(database_url, "base")):
        with pytest.raises(errors.SchemaTooNewError):
            await change
    assert await migrating.current(database_url) == "9999"


async def test_an_older_schema_than_the_codes_is_told_apart() -> None:
    for revision in migrating.known_revisions()[:-1]:
        with pytest.raises(errors.SchemaBehindError, match="breaker-store migrate up") as caught:
            migrating.judge_revision(revision)
        assert (caught.value.found, caught.value.needed) == (revision, migrating.needed_revision())


async def test_asking_for_the_schema_does_not_spoil_a_transaction(empty_database_url: str) -> None:
    async with migrating.open_engine(empty_database_url).begin() as connection:
        with pytest.raises(errors.NotMigratedError):
            await migrating.check_schema(connection)
        assert await connection.scalar(text("SELECT 1")) == 1
