"""The roles as they are in a database: made, and compared with the list of what they may do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from breaker_store.errors import ConfigurationError
from breaker_store.postgres import migrating
from breaker_store.postgres.connecting import Connection, connect, described
from breaker_store.postgres.privileges import FUNCTIONS, TABLES, Right, Roles, rights, roles_sql

CHANGES: Final = ("UPDATE", "DELETE", "TRUNCATE")

_HAS_RIGHT: Final = """
SELECT coalesce(CASE
    WHEN named.column_name IS NULL THEN has_table_privilege($1::name, to_regclass(named.table_name)::oid, named.privilege)
    ELSE has_column_privilege($1::name, to_regclass(named.table_name)::oid, named.column_name, named.privilege)
END, false)
FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS named (table_name, privilege, column_name, number)
ORDER BY number
"""

_CALLABLE: Final = """
SELECT proname FROM pg_proc
WHERE proname = ANY($2::text[]) AND pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'breaker_events'::regclass)
    AND has_function_privilege($1::name, oid, 'EXECUTE')
"""

# By whatever way a role comes to it: membership, PUBLIC, a single column, a day by itself.
_CHANGEABLE: Final = """
SELECT privilege || ' on ' || table_name
FROM (
    SELECT * FROM unnest($2::text[], $3::text[]) AS named (table_name, privilege)
    UNION ALL
    SELECT inhrelid::regclass::text, privilege FROM pg_inherits CROSS JOIN unnest($4::text[]) AS privilege
    WHERE inhparent = 'breaker_outcomes'::regclass
) AS change
WHERE CASE privilege
    WHEN 'UPDATE' THEN has_any_column_privilege($1::name, to_regclass(table_name)::oid, privilege)
    ELSE has_table_privilege($1::name, to_regclass(table_name)::oid, privilege)
END
"""


async def apply_roles(owner_url: str, roles: Roles) -> None:
    """Make the roles, and give them what the list says, as the owner of the tables.

    Raises:
        SchemaError: the tables are not there, or not those that this code needs.
        ConfigurationError: the address is not the owner's, or the owner may not create roles, or is one of the two.
        LogUnavailableError: the database can't be reached.

    """
    migrating.judge_revision(await migrating.current(owner_url))
    async with _connection(owner_url) as connection:
        try:
            await connection.execute(roles_sql(roles))
        except (asyncpg.InsufficientPrivilegeError, asyncpg.RaiseError) as error:
            raise ConfigurationError(
                f"the roles can't be set up: {described(error)}; connect as the owner of the tables, who needs to be "
                "allowed to create roles only where they are missing"
            ) from error


async def ensure_roles(owner_url: str, roles: Roles) -> None:
    """Do the same where the roles are not as the list says; cheap where they are."""
    async with _connection(owner_url) as connection:
        current = await are_current(connection, roles)
    if not current:
        await apply_roles(owner_url, roles)


async def are_current(connection: Connection, roles: Roles) -> bool:
    """Tell whether both roles are there and may do all that the list says, and change nothing that it does not."""
    names = [roles.application, roles.maintenance]
    if await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = ANY($1::name[])", names) < 2:
        return False
    lacking = [
        *await missing_rights(connection, roles.application, rights("application")),
        *await missing_rights(connection, roles.maintenance, rights("maintenance")),
        *await missing_functions(connection, roles.application),
    ]
    return not lacking and not await excess_rights(connection, roles.application)


async def missing_rights(connection: Connection, role: str, wanted: Iterable[Right]) -> list[Right]:
    """Give those of the rights that a role has not; all of those on a table that is not there."""
    listed = list(wanted)
    columns: list[Any] = [[right[part] for right in listed] for part in range(3)]
    rows = await connection.fetch(_HAS_RIGHT, role, *columns)
    return [right for right, [has] in zip(listed, rows, strict=True) if not has]


async def missing_functions(connection: Connection, role: str) -> list[str]:
    """Name the functions that the application calls and this role may not."""
    wanted = [name for name, grants in FUNCTIONS.items() if grants.application]
    callable_ = {row["proname"] for row in await connection.fetch(_CALLABLE, role, wanted)}
    return [name for name in wanted if name not in callable_]


async def excess_rights(connection: Connection, role: str) -> list[str]:
    """Name what a role may change and the application must not."""
    allowed = {(right.table, right.privilege) for right in rights("application")}
    refused = [(table, change) for table in TABLES for change in CHANGES if (table, change) not in allowed]
    tables, changes = zip(*refused, strict=True)
    return [row[0] for row in await connection.fetch(_CHANGEABLE, role, tables, changes, CHANGES)]


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[Connection]:
    connection = await connect(url, writing=True)
    try:
        yield connection
    finally:
        connection.terminate()
