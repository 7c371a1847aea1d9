"""Every revision goes up, down and up again, and the last one is what the models say."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.script import ScriptDirectory

from breaker_store.postgres import (
    migrating,
    rollup_tables,  # noqa: F401 - it adds its tables to the metadata
)
from breaker_store.postgres.tables import metadata
from breaker_store.postgres.verification import verify

Connect = Callable[..., Awaitable[asyncpg.Connection]]

# All that a migration can leave behind, as text, without the daily partitions.
SCHEMA = """
WITH relation AS (
    SELECT oid, relname, relkind, reloptions, relnamespace FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relname !~ '^breaker_outcomes_\\d{8}|^breaker_store_alembic'
)
SELECT format('relation %s %s %s %s', relname, relkind, reloptions, pg_get_partkeydef(oid)) FROM relation
UNION ALL SELECT format(
    'column %s.%s %s %s %s %s', relname, attname, format_type(atttypid, atttypmod), attnotnull,
    pg_get_expr(adbin, adrelid), CASE WHEN relkind IN ('r', 'p') THEN (
        SELECT count(*) FROM pg_attribute AS other
        WHERE other.attrelid = relation.oid AND other.attnum BETWEEN 1 AND pg_attribute.attnum AND NOT other.attisdropped
    ) END
) FROM relation JOIN pg_attribute ON attrelid = oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
UNION ALL SELECT format('constraint %s %s', conname, pg_get_constraintdef(pg_constraint.oid))
FROM relation JOIN pg_constraint ON conrelid = relation.oid AND contype <> 'n'  -- from 18 on; attnotnull says it
UNION ALL SELECT format('index %s', replace(pg_get_indexdef(oid), ' ON ONLY ', ' ON '))
FROM relation WHERE relkind IN ('i', 'I')
UNION ALL SELECT format('comment %s %s %s', relname, objsubid, description)
FROM relation JOIN pg_description ON objoid = oid AND classoid = 'pg_class'::regclass
UNION ALL SELECT format('trigger %s %s', pg_get_triggerdef(pg_trigger.oid), tgenabled)
FROM relation JOIN pg_trigger ON tgrelid = relation.oid AND (NOT tgisinternal OR tgparentid <> 0)
UNION ALL SELECT format('function %s %s', pg_get_functiondef(oid), proacl)
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT format('type %s', typname) FROM pg_type
WHERE typnamespace = 'public'::regnamespace AND typtype <> 'c' AND typcategory <> 'A'
"""


# Whether the session keeps everybody from the ledger, at the end of each statement that changes a table.
WATCH_LOCKS = """
CREATE TABLE seen AS SELECT '' AS query, false AS locked LIMIT 0;
CREATE FUNCTION watch_locks() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen SELECT current_query(), EXISTS (
        SELECT FROM pg_locks
        WHERE pid = pg_backend_pid() AND relation = 'writer_batches'::regclass AND mode = 'AccessExclusiveLock'
    );
END
$$;
CREATE EVENT TRIGGER watch_locks ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION watch_locks();
"""


async def read_schema(connection: asyncpg.Connection) -> list[str]:
    return sorted(row[0] for row in await connection.fetch(SCHEMA))


def modelled(schema: list[str]) -> list[str]:
    """Leave out what models can't say: triggers and functions, and how the partitions hang together."""
    return [line for line in schema if not line.startswith(("trigger ", "function "))]


def scripts() -> ScriptDirectory:
    spec = importlib.util.find_spec("breaker_store.migrations")
    assert spec is not None
    assert spec.origin is not None
    return ScriptDirectory(str(Path(spec.origin).parent))


@pytest.fixture
async def empty(connect: Connect, empty_database_url: str) -> asyncpg.Connection:
    return await connect(empty_database_url)


def test_there_is_one_head_and_one_line_of_numbered_revisions() -> None:
    revisions = list(scripts().walk_revisions())[::-1]

    assert [scripts().get_current_head()] == scripts().get_heads()
    assert [script.revision for script in revisions] == [
        f"{number:04}" for number in range(1, len(revisions) + 1)
    ]
    assert tuple(script.revision for script in revisions) == migrating.known_revisions()


def test_every_file_begins_with_its_revision() -> None:
    for script in scripts().walk_revisions():
        assert Path(script.path).name.startswith(f"{script.revision}_")


async def test_every_step_goes_up_and_down_and_up(empty: asyncpg.Connection, empty_database_url: str) -> None:
    """What a step down leaves is what was there before the step up."""
    for revision in migrating.known_revisions():
        before = await read_schema(empty)
        await migrating.upgrade(empty_database_url, revision)
        above = await read_schema(empty)
        await migrating.downgrade(empty_database_url, "-1")
        assert await read_schema(empty) == before
        await migrating.upgrade(empty_database_url, revision)
        assert await read_schema(empty) == above != before
        assert await migrating.current(empty_database_url) == revision


async def test_going_all_the_way_down_with_events_leaves_nothing(
    connection: asyncpg.Connection, database_url: str
) -> None:
    await connection.execute("SELECT ensure_outcome_partitions('2026-01-01', '2026-01-03')")
    await connection.execute(
        "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind)"
        " VALUES ('2026-01-02 12:00+00', 1, 1, 1, 0, 0, 1)"
    )

    await migrating.downgrade(database_url, "base")

    assert await read_schema(connection) == []
    assert await migrating.current(database_url) is None


async def test_autogenerate_finds_nothing_to_do(connection: asyncpg.Connection, database_url: str) -> None:
    """Daily partitions, which no model knows, are no difference either."""
    await connection.execute("SELECT ensure_outcome_partitions('2026-01-01', '2026-01-03')")

    async with migrating.open_engine(database_url).connect() as migrated:
        await migrated.run_sync(lambda sync: command.check(migrating.make_config(sync)))


async def test_models_equal_migrations(
    connection: asyncpg.Connection, empty: asyncpg.Connection, empty_database_url: str
) -> None:
    """Also in what autogenerate doesn't compare: checks, partial indexes, order of columns, storage options."""
    async with migrating.open_engine(empty_database_url).begin() as modelling:
        await modelling.run_sync(metadata.create_all)

    assert modelled(await read_schema(empty)) == modelled(await read_schema(connection))


async def test_a_ledger_with_batches_without_events_goes_down_and_up_with_them(
    connection: asyncpg.Connection, database_url: str
) -> None:
    """They can't be taken out of it; from then on there are no new ones."""
    batch = "INSERT INTO writer_batches VALUES ($1, 1, 1, 0, 0, 1, 0, sha256('nothing'), NULL, now(), now())"
    await connection.execute(batch, 1)

    await migrating.downgrade(database_url, "0002")
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(batch, 2)
    await migrating.upgrade(database_url)

    await connection.execute(batch, 3)
    assert await connection.fetchval("SELECT array_agg(writer_id ORDER BY 1) FROM writer_batches") == [1, 3]


async def test_appends_go_on_while_the_ledgers_rows_are_looked_at_again(
    empty: asyncpg.Connection, empty_database_url: str
) -> None:
    """Validating must not hold the lock under which the check was changed."""
    await migrating.upgrade(empty_database_url, "0002")
    try:
        await empty.execute(WATCH_LOCKS)
    except asyncpg.InsufficientPrivilegeError:
        pytest.skip("only a superuser may watch statements by an event trigger")

    await migrating.upgrade(empty_database_url)

    seen = await empty.fetch("SELECT * FROM seen WHERE query LIKE '%VALIDATE%'")
    assert [row["locked"] for row in seen] == [False]


async def test_tokens_whose_names_look_alike_are_told_apart_and_the_oldest_keeps_its_name(
    connection: asyncpg.Connection, database_url: str
) -> None:
    await migrating.downgrade(database_url, "0010")
    for number, name in enumerate(["alice", "Alice", "ALICE", "bob"]):
        await connection.execute(
            "INSERT INTO access_tokens (public_id, name, role, secret_hash) VALUES ($1, $2, 'viewer', sha256(''))",
            *(f"00000000000{number}", name),
        )

    await migrating.upgrade(database_url)

    names = await connection.fetchval("SELECT array_agg(name ORDER BY public_id) FROM access_tokens")
    assert names == ["alice", "Alice-000000000001", "ALICE-000000000002", "bob"]


A_TRANSITION = """
INSERT INTO breaker_events (
    occurred_at, user_id, writer_id, writer_seq, position, generation, era, version, kind, details, details_version
) VALUES (now(), 1, 1, 1, 1, 1, 1, 1, 10, '{}', 1)
"""


async def test_who_may_act_as_the_owner_migrates_a_log_with_events_in_the_owners_place(
    empty: asyncpg.Connection, empty_database_url: str
) -> None:
    owner = f"breaker_store_test_owner_{os.getpid()}"
    await empty.execute(f"CREATE ROLE {owner}; GRANT {owner} TO CURRENT_USER")
    try:
        await empty.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
        separator = "&" if "?" in empty_database_url else "?"
        await migrating.upgrade(f"{empty_database_url}{separator}role={owner}", "0008")
        await empty.execute(A_TRANSITION)

        await migrating.upgrade(empty_database_url)

        assert await empty.fetchval("SELECT chain FROM breaker_transitions") is not None
        assert await empty.fetch(
            "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        ) == [(owner,)]
    finally:
        await empty.execute(f"DROP OWNED BY {owner}; DROP ROLE {owner}")


OPEN_BATCH = "SELECT open_batch($1, 1, 1, 1, 1, 1::smallint, 0::smallint, sha256('old'), NULL, now(), now())"


async def test_batches_of_an_earlier_version_stay_what_they_were_and_go_on_coming(
    empty: asyncpg.Connection, empty_database_url: str
) -> None:
    """They have no seal: those that were there, and those of a process that goes on meanwhile."""
    await migrating.upgrade(empty_database_url, "0008")
    await empty.execute(OPEN_BATCH, 1)

    await migrating.upgrade(empty_database_url)
    await empty.execute(OPEN_BATCH, 2)

    found = await verify(empty_database_url)
    assert (found.findings, found.batches.old_batches) == ((), 2)


async def test_positions_begin_at_zero_in_one_row(connection: asyncpg.Connection) -> None:
    assert [tuple(row) for row in await connection.fetch("SELECT * FROM log_position")] == [
        (True, 0, 0, 0, 0, bytes(32), 0)
    ]
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("INSERT INTO log_position DEFAULT VALUES")
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("INSERT INTO log_position VALUES (false, 0)")


async def test_all_stands_in_the_schema_that_comes_first(
    empty: asyncpg.Connection, empty_database_url: str
) -> None:
    """Whoever calls the function later, with whatever search path, makes partitions there."""
    await empty.execute('CREATE SCHEMA "Host\'s own"')
    separator = "&" if "?" in empty_database_url else "?"
    await migrating.upgrade(f"{empty_database_url}{separator}search_path=%22Host's own%22")

    await empty.execute("SELECT \"Host's own\".ensure_outcome_partitions('2026-01-01', '2026-01-01')")

    assert await read_schema(empty) == []
    assert (
        await empty.fetchval("SELECT to_regclass($1)", '"Host\'s own".breaker_outcomes_20260101') is not None
    )


async def test_days_that_are_there_get_their_index_on_time_and_a_migration_that_was_broken_off_goes_on(
    connection: asyncpg.Connection, owner_url: str, owner: asyncpg.Connection
) -> None:
    await migrating.downgrade(owner_url, "0014")
    await migrating.downgrade(owner_url, "-1")
    await owner.execute("SELECT ensure_outcome_partitions('2026-01-01', '2026-01-02')")
    await owner.execute(
        "CREATE INDEX breaker_outcomes_by_time ON ONLY breaker_outcomes USING brin (occurred_at)"
    )
    await owner.execute(
        "CREATE INDEX breaker_outcomes_20260101_occurred_at_idx ON breaker_outcomes_20260101 (user_id)"
    )
    await owner.execute("SELECT ensure_outcome_partitions('2026-01-03', '2026-01-03')")

    await migrating.upgrade(owner_url)

    indexes = await connection.fetch(
        "SELECT indrelid::regclass::text AS leaf, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
        " JOIN pg_am ON pg_am.oid = relam WHERE amname = 'brin' AND indrelid::regclass::text LIKE 'breaker_outcomes%'"
    )
    days = [f"breaker_outcomes_2026010{day}" for day in (1, 2, 3)]
    assert {index["leaf"] for index in indexes} == {"breaker_outcomes", *days}
    assert all(index["indisvalid"] for index in indexes)
