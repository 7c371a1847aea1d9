from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy import exc

from breaker_store.errors import LogUnavailableError
from breaker_store.postgres.reading import create_engine, driver_connection_of, reading


async def test_a_connection_for_questions_writes_nothing(database_url):
    engine = create_engine(database_url)
    with pytest.raises(Exception, match="read-only"):
        async with reading(engine) as connection:
            await connection.exec_driver_sql("INSERT INTO breaker_states (user_id) VALUES (1)")
    await engine.dispose()


async def test_a_database_that_is_away_is_told_as_such():
    engine = create_engine("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(LogUnavailableError):
        async with reading(engine) as connection:
            await connection.exec_driver_sql("SELECT 1")
    await engine.dispose()


async def test_a_statement_that_takes_too_long_is_told_as_the_database_being_away(database_url):
    engine = create_engine(database_url)
    with pytest.raises(LogUnavailableError):
        async with reading(engine) as connection:
            await connection.exec_driver_sql("SET LOCAL statement_timeout = '20ms'")
            await connection.exec_driver_sql("SELECT pg_sleep(30)")
    await engine.dispose()


async def test_a_wrong_question_is_no_outage_of_the_database(database_url):
    engine = create_engine(database_url)
    with pytest.raises(exc.ProgrammingError):
        async with reading(engine) as connection:
            await connection.exec_driver_sql("SELECT nothing")
    with pytest.raises(asyncpg.UndefinedColumnError):
        async with reading(engine) as connection:
            await (await driver_connection_of(connection)).fetchval("SELECT nothing")
    await engine.dispose()


async def test_what_a_migration_has_just_made_stale_is_told_as_passing_trouble(database_url, owner):
    engine = create_engine(database_url)

    async def ask() -> None:
        async with reading(engine) as lent:
            await lent.exec_driver_sql(
                "SELECT 1"
            )  # begins a transaction, in which the driver can't prepare anew
            await (await driver_connection_of(lent)).fetch("SELECT * FROM log_position")

    await ask()
    await owner.execute("ALTER TABLE log_position ADD COLUMN later integer")
    with pytest.raises(LogUnavailableError):
        await ask()
    await ask()
    await engine.dispose()
