"""What lists and summaries of a large fleet need: kept counts, trips, and indexes that give pages in order.

How many breakers there are, open and half-open, is kept in the row of the position. It is counted once, here, while
nothing is appended; so are the trips. Both are absolute, and columns and indexes are made where they are missing: a
revision that was broken off while it built indexes, outside its transaction, can be started again.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = (
    "ALTER TABLE log_position ADD COLUMN IF NOT EXISTS breakers bigint NOT NULL DEFAULT 0",
    "ALTER TABLE log_position ADD COLUMN IF NOT EXISTS open_breakers bigint NOT NULL DEFAULT 0",
    "ALTER TABLE log_position ADD COLUMN IF NOT EXISTS half_open_breakers bigint NOT NULL DEFAULT 0",
    "ALTER TABLE breaker_states ADD COLUMN IF NOT EXISTS trip_error text",
    "ALTER TABLE breaker_states ADD COLUMN IF NOT EXISTS trips integer NOT NULL DEFAULT 0",
)

COUNT_TRIPS = """
UPDATE breaker_states SET trips = counted.trips, trip_error = counted.error
FROM (
    SELECT user_id, count(*) AS trips, (array_agg(details #>> '{causes,-1,error_type}' ORDER BY version DESC))[1] AS error
    FROM breaker_transitions
    WHERE position IS NOT NULL AND is_trip(kind, details)
    GROUP BY user_id
) AS counted
WHERE breaker_states.user_id = counted.user_id
"""

INDEXES = {
    "breaker_states_by_state": "breaker_states (state, user_id) WHERE state <> 0",
    "breaker_states_by_change": "breaker_states (coalesce(since, '-infinity'), user_id)",
    "breaker_states_by_trips": "breaker_states (trips, user_id)",
    "breaker_states_by_trip_error": "breaker_states (trip_error, coalesce(since, '-infinity'), user_id)"
    " WHERE trip_error IS NOT NULL",
    # How trips began and ended, past a bot that stays broken: it opens again each minute, perhaps for weeks.
    "breaker_transitions_endings": "breaker_transitions (user_id, version)"
    " WHERE position IS NOT NULL AND kind IN (12, 13, 15, 18)",
    "breaker_transitions_by_kind": "breaker_transitions (kind, occurred_at, position) WHERE position IS NOT NULL",
    # An entry of an index has to fit into a third of a page, and an actor may be 2,000 characters long.
    "breaker_transitions_by_actor": "breaker_transitions (left(details ->> 'actor', 200), occurred_at, position)"
    " WHERE position IS NOT NULL AND (details ->> 'actor') IS NOT NULL",
    "breaker_transitions_by_error": "breaker_transitions ((details #>> '{causes,-1,error_type}'), occurred_at, position)"
    " WHERE position IS NOT NULL AND (details #>> '{causes,-1,error_type}') IS NOT NULL",
}

NOT_CLOSED = (
    "CREATE INDEX breaker_states_not_closed ON breaker_states (state) INCLUDE (user_id) WHERE state <> 0"
)

MADE = ("is_trip", "recount_breakers")
REPLACED = {
    "apply_changes": "0002_apply_changes.sql",
    "finish_batch": "0003_finish_batch.sql",
    "restore_breaker_state": "0002_restore_breaker_state.sql",
}
COMMENT = "COMMENT ON TABLE log_position IS"


def upgrade() -> None:
    # Appends wait while it is counted, each before it has called a function that is replaced here: the ledger comes first
    # in every one of them. A writer that waits for too long spools, and comes again.
    op.execute("LOCK TABLE writer_batches, breaker_states IN SHARE ROW EXCLUSIVE MODE")
    for statement in COLUMNS:
        op.execute(statement)
    for name in MADE:
        op.execute(_read(f"0004_{name}.sql"))
    for name in REPLACED:
        op.execute(_read(f"0004_{name}.sql"))
    op.execute("SELECT recount_breakers()")
    op.execute(COUNT_TRIPS)
    op.execute(
        f"{COMMENT} 'One row: the position of the last transition that won, and how many breakers there are'"
    )
    with op.get_context().autocommit_block():
        for name, definition in INDEXES.items():
            # One whose making was broken off is there, and of no use.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS breaker_states_not_closed")


def downgrade() -> None:
    """Forget the counts, which can be had again by counting."""
    for name, file in REPLACED.items():
        op.execute(_read(file).replace(f"CREATE FUNCTION {name}", f"CREATE OR REPLACE FUNCTION {name}", 1))
    op.execute("DROP FUNCTION is_trip(smallint, jsonb), recount_breakers()")
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
    op.execute(NOT_CLOSED)
    op.execute("ALTER TABLE breaker_states DROP COLUMN trips, DROP COLUMN trip_error")
    op.execute(
        "ALTER TABLE log_position DROP COLUMN breakers, DROP COLUMN open_breakers, DROP COLUMN half_open_breakers"
    )
    op.execute(f"{COMMENT} 'One row: the position of the last transition that won'")


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
