"""Days that are old enough to go, in tests."""

from __future__ import annotations

from datetime import date

import asyncpg

from tests.postgres.tampering import tamper

# As a run leaves it that has counted everything.
_ROLLED_UP = """
UPDATE rollup_progress SET snapshot = pg_current_snapshot(), server_id = system_identifier, rolled_up_at = now()
FROM pg_control_system()
"""


async def roll_up_nothing(database_url: str) -> None:
    """Say that all is rolled up."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("DELETE FROM rollup_marks")
    await connection.execute(_ROLLED_UP)
    await connection.close()


async def let_pass(owner: asyncpg.Connection, days: int) -> None:
    """Have everything that is stored been stored so many days earlier."""
    await tamper(
        owner, "UPDATE writer_batches SET recorded_at = recorded_at - make_interval(days => $1)", days
    )


async def keep(owner: asyncpg.Connection, kind: str, days: int, *, imports: bool = False) -> None:
    await owner.execute(
        "INSERT INTO retention (kind, keep_days, imports) VALUES ($1, $2, $3)", kind, days, imports
    )


async def days_kept(connection: asyncpg.Connection, table: str = "breaker_outcomes") -> list[date]:
    """Give the days that have a partition."""
    rows = await connection.fetch(
        "SELECT to_date(right(relid::text, 8), 'YYYYMMDD') AS day FROM pg_partition_tree($1::text::regclass)"
        " WHERE isleaf ORDER BY 1",
        table,
    )
    return [row["day"] for row in rows]
