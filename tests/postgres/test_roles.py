"""What the application and maintenance may do in the database, and that nobody's rights are forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from breaker_store.errors import ConfigurationError, NotMigratedError
from breaker_store.postgres import rollup_tables  # noqa: F401 - it adds its tables to the metadata
from breaker_store.postgres.migrating import VERSION_TABLE
from breaker_store.postgres.privileges import (
    DEFAULT_APPLICATION,
    DEFAULT_MAINTENANCE,
    FUNCTIONS,
    TABLES,
    Roles,
    roles_sql,
)
from breaker_store.postgres.roles import apply_roles, are_current
from breaker_store.postgres.tables import metadata
from tests.postgres.test_append_only import CHANGES, EVERY_TABLE, FILL

ROLES = Roles()
FUNCTIONS_THERE = """
SELECT proname::text, prosecdef, proconfig, (
    SELECT bool_or(grantee = 0) FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))
) AS everybodys
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
"""


@pytest.fixture
async def log(owner: asyncpg.Connection, connection: asyncpg.Connection) -> asyncpg.Connection:
    """Fill the log, and give the application's connection to it."""
    await owner.execute(FILL)
    return connection


@pytest.fixture
async def maintenance(owner: asyncpg.Connection) -> asyncpg.Connection:
    await owner.execute(f"{FILL}; SET ROLE {DEFAULT_MAINTENANCE}")
    return owner


async def test_every_table_and_function_is_in_the_list(owner: asyncpg.Connection) -> None:
    """One that is made later, and forgotten here, would be out of the application's reach."""
    functions = {row["proname"] for row in await owner.fetch(FUNCTIONS_THERE)}
    assert (set(TABLES), set(FUNCTIONS)) == ({*metadata.tables, VERSION_TABLE}, functions)


@pytest.mark.parametrize("table", EVERY_TABLE)
@pytest.mark.parametrize("change", CHANGES)
async def test_the_application_lacks_the_privilege_to_change_the_log(
    log: asyncpg.Connection, table: str, change: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await log.execute(CHANGES[change].format(table=table))


@pytest.mark.parametrize("table", EVERY_TABLE)
async def test_maintenance_reads_the_log_and_changes_nothing_itself(
    maintenance: asyncpg.Connection, table: str
) -> None:
    for change in CHANGES.values():
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await maintenance.execute(change.format(table=table))
    if table in TABLES:
        assert await maintenance.fetchval(f"SELECT count(*) FROM {table}") > 0


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE breaker_events DISABLE TRIGGER ALL",
        "DROP TABLE breaker_outcomes_20260102",
        "ALTER TABLE breaker_outcomes DETACH PARTITION breaker_outcomes_20260102",
        "SET session_replication_role = replica",
        "CREATE TABLE mine ()",
        "SELECT count(*) FROM breaker_outcomes_20260102",
        "INSERT INTO breaker_transitions TABLE breaker_transitions",
    ],
)
async def test_the_application_can_not_go_round_the_list(log: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await log.execute(statement)


async def test_what_acts_in_the_owners_place_has_its_own_search_path_and_is_not_everybodys(
    owner: asyncpg.Connection,
) -> None:
    acting = [row for row in await owner.fetch(FUNCTIONS_THERE) if row["prosecdef"]]
    assert acting
    for row in acting:
        assert row["proconfig"] == ["search_path=public, pg_temp"]
        assert row["everybodys"] is False


@pytest.mark.parametrize(
    "trap",
    [
        "FUNCTION public.format(text, text) RETURNS text",
        "FUNCTION public.to_char(date, text) RETURNS text",
        "FUNCTION public.caught(oid, regclass) RETURNS boolean",
    ],
)
async def test_a_function_that_fits_better_does_not_run_as_the_owner(
    owner: asyncpg.Connection, connection: asyncpg.Connection, trap: str
) -> None:
    """Also where the application may create functions beside the log, as everybody could before Postgres 15."""
    await owner.execute(f"GRANT CREATE ON SCHEMA public TO {DEFAULT_APPLICATION}")
    await connection.execute(
        f"CREATE {trap} LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'caught %', current_user; END $$"
    )
    if "caught" in trap:
        await connection.execute(
            "CREATE OPERATOR public.= (FUNCTION = public.caught, LEFTARG = oid, RIGHTARG = regclass)"
        )
    assert await connection.fetchval("SELECT ensure_outcome_partitions('2026-01-02', '2026-01-02')") == 1


async def test_what_a_hand_has_granted_and_taken_is_put_right(
    owner: asyncpg.Connection, owner_url: str
) -> None:
    await owner.execute("SELECT ensure_outcome_partitions('2026-01-01', '2026-01-03')")
    for deviation in (
        f"GRANT UPDATE ON breaker_events TO {DEFAULT_APPLICATION}",
        f"GRANT UPDATE (source) ON writer_batches TO {DEFAULT_APPLICATION}",
        f"GRANT DELETE ON breaker_outcomes_20260102 TO {DEFAULT_APPLICATION}",
        "GRANT TRUNCATE ON log_gaps TO PUBLIC",
        f"REVOKE INSERT ON breaker_events FROM {DEFAULT_APPLICATION}",
        f"REVOKE SELECT ON webhooks FROM {DEFAULT_MAINTENANCE}",
        f"REVOKE EXECUTE ON FUNCTION open_batch FROM {DEFAULT_APPLICATION}",
    ):
        await owner.execute(deviation)
        assert not await are_current(owner, ROLES), deviation
        await apply_roles(owner_url, ROLES)
        assert await are_current(owner, ROLES), deviation


@pytest.fixture
async def own_roles(owner: asyncpg.Connection) -> AsyncIterator[Roles]:
    """Name two roles that are not there, and are gone after the test: roles are the whole server's."""
    database = await owner.fetchval("SELECT current_database()")
    names = [f"{database}_{suffix}" for suffix in ("bots-1", "m@x")]
    yield Roles(*names)
    for name in names:
        await owner.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')


async def test_roles_of_any_name_are_made(
    owner: asyncpg.Connection, owner_url: str, own_roles: Roles
) -> None:
    await apply_roles(owner_url, own_roles)
    await apply_roles(owner_url, own_roles)
    assert await are_current(owner, own_roles)


async def test_an_owner_who_is_no_superuser_is_enough(owner: asyncpg.Connection, own_roles: Roles) -> None:
    """As with a managed Postgres: it owns the tables, and may create roles."""
    admin = f"{own_roles.application}_admin"
    await owner.execute(
        f'CREATE ROLE "{admin}" CREATEROLE; GRANT ALL ON SCHEMA public TO "{admin}" WITH GRANT OPTION'
    )
    for table in TABLES:
        await owner.execute(f'ALTER TABLE {table} OWNER TO "{admin}"')
    for function in FUNCTIONS:
        await owner.execute(f'ALTER FUNCTION {function} OWNER TO "{admin}"')
    await owner.execute(f'SET ROLE "{admin}"')
    await owner.execute(roles_sql(own_roles))
    assert await are_current(owner, own_roles)
    await owner.execute("RESET ROLE")
    await owner.execute(f'REASSIGN OWNED BY "{admin}" TO CURRENT_USER; DROP OWNED BY "{admin}" CASCADE')
    await owner.execute(f'DROP ROLE "{admin}"')


@pytest.mark.parametrize(
    "names", [("a b", "m"), ("", "m"), ("pg_a", "m"), ("public", "m"), ("a", "a"), ("a", "x" * 64)]
)
def test_names_that_no_two_roles_can_have_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        Roles(*names)


async def test_who_does_not_own_the_tables_is_told_so(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="connect as the owner"):
        await apply_roles(database_url, ROLES)


async def test_the_owner_is_not_made_the_application(owner: asyncpg.Connection, owner_url: str) -> None:
    name = await owner.fetchval("SELECT current_user")
    with pytest.raises(ConfigurationError, match="owns the tables"):
        await apply_roles(owner_url, Roles(application=name))


async def test_without_tables_there_is_nothing_to_give_rights_on(empty_database_url: str) -> None:
    with pytest.raises(NotMigratedError):
        await apply_roles(empty_database_url, ROLES)
