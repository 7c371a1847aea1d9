"""Checks of what stands in the database: the schema, the rights on it, the triggers, the days' partitions."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final

from breaker_store.diagnosis.finding import Finding, ok, shortened, warning, wrong
from breaker_store.errors import SchemaError
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.migrating import VERSION_TABLE, judge_revision, needed_revision
from breaker_store.postgres.privileges import FUNCTIONS, rights
from breaker_store.postgres.roles import excess_rights, missing_functions, missing_rights

DAYS_AHEAD: Final = 2
"""Writers make seven days ahead, once a day: fewer than this, and none has been there for long."""

# A member of the owner can take the triggers away; SET ROLE is enough.
_STANDING: Final = """
SELECT current_user AS role, pg_get_userbyid(relowner) AS owner, pg_has_role(relowner, 'MEMBER') AS is_owner
FROM pg_class WHERE oid = 'breaker_events'::regclass
"""

_OPEN_FUNCTIONS: Final = """
SELECT oid::regprocedure::text FROM pg_proc
WHERE pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'breaker_events'::regclass) AND prosecdef
    AND proname = ANY($1::text[])
    AND (
        NOT EXISTS (SELECT FROM unnest(proconfig) AS setting WHERE setting LIKE 'search_path=%')
        OR EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
    )
"""

# Every table of the log, and each trigger that it should have.
_UNPROTECTED: Final = """
SELECT protected.oid::regclass::text AS table_name
FROM (
    SELECT relid::oid AS oid FROM pg_partition_tree('breaker_events')
    UNION SELECT unnest(ARRAY[
        'writer_batches', 'log_gaps', 'resealed_batches', 'unsealed_batches', 'dropped_partitions', 'dropped_rollups'
    ]::regclass[])
) AS protected
CROSS JOIN (VALUES ('append_only'), ('append_only_truncate')) AS wanted (name)
WHERE NOT EXISTS (
    SELECT FROM pg_trigger
    WHERE tgrelid = protected.oid AND tgname = wanted.name AND tgenabled = 'A'
        AND tgfoid = 'refuse_log_change'::regproc
)
GROUP BY protected.oid ORDER BY 1
"""

_DAYS: Final = """
SELECT wanted::date AS day, EXISTS (
    SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'breaker_outcomes'::regclass AND NOT inhdetachpending
        AND relname = 'breaker_outcomes_' || to_char(wanted, 'YYYYMMDD')
) AS is_there
FROM generate_series(
    (clock_timestamp() AT TIME ZONE 'UTC')::date::timestamp,
    (clock_timestamp() AT TIME ZONE 'UTC')::date::timestamp + $1 * interval '1 day',
    interval '1 day'
) AS wanted
ORDER BY 1
"""

_DETACHED: Final = r"""
SELECT relname::text FROM pg_class
WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'breaker_outcomes'::regclass)
    AND relkind = 'r' AND relname ~ '^breaker_outcomes_\d{8}$'
    AND NOT EXISTS (
        SELECT FROM pg_inherits
        WHERE inhrelid = pg_class.oid AND inhparent = 'breaker_outcomes'::regclass AND NOT inhdetachpending
    )
ORDER BY 1
"""


async def check_schema(connection: Connection) -> Finding:
    """Compare the schema's revision with the one that this package needs; without it nothing else can be looked at."""
    found = None
    if await connection.fetchval(f"SELECT to_regclass('{VERSION_TABLE}') IS NOT NULL"):
        found = await connection.fetchval(f"SELECT version_num FROM {VERSION_TABLE}")
    try:
        judge_revision(found)
    except SchemaError as error:
        return wrong(
            "schema",
            str(error),
            "run `breaker-store migrate up` as the owner, or install a newer breaker-store",
        )
    return ok("schema", f"the schema is at {needed_revision()}, as this package needs it")


async def check_role(connection: Connection) -> Finding:
    """Tell whether the connected role could change the log, or take away what keeps it from that."""
    role, owner, is_owner = await connection.fetchrow(_STANDING)
    advice = "run `breaker-store roles apply` as the owner, and let programs connect as the application role"
    if is_owner:
        return warning(
            "role", f'"{role}" may act as "{owner}", who owns the log and can take its triggers away', advice
        )
    excess = await excess_rights(connection, role)
    if excess:
        return wrong("role", f'"{role}" may change what only is appended to: {shortened(excess)}', advice)
    return ok("role", f'"{role}" may append to the log, and can neither update nor delete anything of it')


async def check_rights(connection: Connection) -> Finding:
    """Tell whether the connected role may do all that the application needs."""
    role = await connection.fetchval("SELECT current_user")
    missing = [str(right) for right in await missing_rights(connection, role, rights("application"))]
    missing += [f"EXECUTE on {name}" for name in await missing_functions(connection, role)]
    if missing:
        return wrong(
            "rights",
            f'"{role}" lacks {shortened(missing)}',
            "run `breaker-store roles apply` as the owner, and connect as the application role",
        )
    return ok("rights", f'"{role}" may do all that bots, API and commands need')


async def check_functions(connection: Connection) -> Finding:
    """Tell whether a function that acts in the owner's place could be turned against it."""
    open_functions = [row[0] for row in await connection.fetch(_OPEN_FUNCTIONS, list(FUNCTIONS))]
    if open_functions:
        return wrong(
            "functions",
            f"acts as the owner for everybody, or without a search path of its own: {shortened(open_functions)}",
            "run `breaker-store migrate up` and `breaker-store roles apply` as the owner",
        )
    return ok("functions", "what acts in the owner's place has its own search path, and is not everybody's")


async def check_triggers(connection: Connection) -> Finding:
    """Tell whether each table of the log refuses to be changed, by both triggers, whatever the session calls itself."""
    unprotected = [row["table_name"] for row in await connection.fetch(_UNPROTECTED)]
    if unprotected:
        return wrong(
            "triggers",
            f"can be changed by its owner, since a trigger is missing or off: {shortened(unprotected)}",
            "find out who did it, run `breaker-store verify`, then put the triggers append_only and "
            "append_only_truncate back, ENABLE ALWAYS",
        )
    return ok("triggers", "every table of the log refuses UPDATE, DELETE and TRUNCATE")


async def check_days(connection: Connection) -> Finding:
    """Tell whether today and the next days have their partition."""
    rows = await connection.fetch(_DAYS, DAYS_AHEAD)
    missing = [row["day"] for row in rows if not row["is_there"]]
    if missing and not await connection.fetchval("SELECT EXISTS (SELECT FROM recorders)"):
        return ok("days ahead", "nobody has written here yet: the first writer makes the days' partitions")
    if missing:
        first, last = missing[0], missing[-1]
        return warning(
            "days ahead",
            f"outcomes of {_span(first, last)} have no partition yet",
            "the next writer makes it, at the cost of its first append; if writers run, look at their logs",
        )
    return ok("days ahead", f"today and the next {DAYS_AHEAD} days have their partitions")


async def check_detached(connection: Connection) -> Finding:
    """Tell whether a day was detached and not dropped: nothing of it is read, and it can't be made again."""
    detached = [row[0] for row in await connection.fetch(_DETACHED)]
    if not detached:
        return ok("detached days", "no day is detached")
    today = await connection.fetchval("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
    advice = "attach it again to breaker_outcomes, or drop it"
    found = f"detached, and not read: {shortened(detached)}"
    if any(name >= _leaf(today - timedelta(days=1)) for name in detached):
        return wrong("detached days", f"{found}; outcomes of these days can't be stored", advice)
    return warning("detached days", found, advice)


def _leaf(day: date) -> str:
    return f"breaker_outcomes_{day:%Y%m%d}"


def _span(first: date, last: date) -> str:
    return str(first) if first == last else f"{first} to {last}"


SCHEMA_CHECKS: Final = (
    check_role,
    check_rights,
    check_functions,
    check_triggers,
    check_days,
    check_detached,
)
