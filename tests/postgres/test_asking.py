from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from breaker_store.errors import LogUnavailableError, NotMigratedError, SchemaTooNewError
from breaker_store.postgres.asking import ask, ask_at_one_moment
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.reading import create_engine

OTHERS = """
SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url)
    yield engine
    await engine.dispose()


async def ask_for_process(connection: Connection) -> int:
    return await connection.fetchval("SELECT pg_backend_pid()")


async def test_questions_share_connections(engine):
    assert await ask(engine, ask_for_process) == await ask(engine, ask_for_process)


async def test_a_connection_that_is_lost_between_questions_is_replaced(engine, connection):
    before = await ask(engine, ask_for_process)
    assert await connection.fetchval(OTHERS) == 1
    assert await ask(engine, ask_for_process) != before


async def test_a_question_is_put_again_if_the_connection_is_lost_meanwhile(
    engine, connection: asyncpg.Connection
):
    asked = []

    async def question(lent: Connection) -> int:
        asked.append(lent)
        if len(asked) == 1:
            await connection.fetchval(OTHERS)
        return await ask_for_process(lent)

    await ask(engine, question)
    assert len(set(asked)) == 2


async def test_all_statements_of_a_question_see_the_same_moment(engine, connection: asyncpg.Connection):
    async def question(lent: Connection) -> list[int]:
        seen = []
        for user_id in (1, 2):
            seen.append(await lent.fetchval("SELECT count(*) FROM breaker_states"))
            await connection.execute("INSERT INTO breaker_states (user_id) VALUES ($1)", user_id)
        return seen

    assert await ask_at_one_moment(engine, question) == [0, 0]
    assert await ask(engine, lambda lent: lent.fetchval("SELECT count(*) FROM breaker_states")) == 2


async def test_a_question_that_is_given_up_leaves_nobody_its_moment(engine, connection: asyncpg.Connection):
    begun = asyncio.Event()

    async def question(lent: Connection) -> None:
        begun.set()
        await lent.fetchval("SELECT pg_sleep(60)")

    task = asyncio.create_task(ask_at_one_moment(engine, question))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await connection.execute("INSERT INTO breaker_states (user_id) VALUES (1)")

    async def count(lent: Connection) -> int:
        return await lent.fetchval("SELECT count(*) FROM breaker_states")

    assert await ask_at_one_moment(engine, count) == 1


async def test_a_question_is_put_twice_at_most(engine, connection: asyncpg.Connection):
    asked = []

    async def question(lent: Connection) -> int:
        asked.append(lent)
        await connection.fetchval(OTHERS)
        return await ask_for_process(lent)

    with pytest.raises(LogUnavailableError):
        await ask(engine, question)
    assert len(asked) == 2


async def test_a_question_is_put_again_on_another_connection_if_the_server_has_said_goodbye(engine):
    asked = []

    async def question(lent: Connection) -> int:
        asked.append(lent)
        if len(asked) == 1:
            raise asyncpg.InternalClientError(
                "cannot switch to state 11; another operation (2) is in progress"
            )
        return await ask_for_process(lent)

    await ask(engine, question)
    assert len(set(asked)) == 2


async def test_what_is_wrong_with_a_question_is_not_asked_again(engine):
    asked = []

    async def question(lent: Connection) -> int:
        asked.append(lent)
        raise KeyError

    with pytest.raises(KeyError):
        await ask(engine, question)
    assert len(asked) == 1


async def test_a_question_writes_nothing(engine, connection):
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await ask(engine, lambda lent: lent.execute("INSERT INTO breaker_states (user_id) VALUES (1)"))
    assert await connection.fetchval("SELECT count(*) FROM breaker_states") == 0


async def test_a_question_that_takes_too_long_is_told_as_the_database_being_away(engine):
    async def question(lent: Connection) -> None:
        await lent.execute("SET statement_timeout = '20ms'")
        await lent.execute("SELECT pg_sleep(30)")

    with pytest.raises(LogUnavailableError):
        await ask(engine, question)


async def test_a_database_that_is_away_is_told_as_such():
    engine = create_engine("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(LogUnavailableError):
        await ask(engine, ask_for_process)


async def test_a_database_without_our_tables_is_told_as_such(empty_database_url):
    engine = create_engine(empty_database_url)
    with pytest.raises(NotMigratedError):
        await ask(engine, ask_for_process)
    await engine.dispose()


async def test_another_schema_is_noticed_within_seconds(engine, owner):
    await ask(engine, ask_for_process)
    await owner.execute("UPDATE breaker_store_alembic_version SET version_num = '9999'")
    async with asyncio.timeout(5):
        with pytest.raises(SchemaTooNewError):
            while True:
                await ask(engine, ask_for_process)
