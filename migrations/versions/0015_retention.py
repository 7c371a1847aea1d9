"""What is kept for how long, and the functions that let go of the rest: they see to the policies themselves.

An index by time on the ledger tells when what a day holds was stored. Its entries are for many pages each, so appends
hardly notice it. It is made first, outside a transaction.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

BY_TIME = "writer_batches_by_time ON writer_batches USING brin (earliest, latest) WITH (autosummarize = on)"

RETENTION = """
CREATE TABLE retention (
    set_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    keep_days integer NOT NULL CONSTRAINT retention_keep_days_check CHECK (keep_days BETWEEN 1 AND 36500),
    imports boolean NOT NULL DEFAULT false,
    kind text PRIMARY KEY CONSTRAINT retention_kind_check CHECK (kind IN ('outcomes', 'minutes', 'hours', 'days')),
    actor text
)
"""
COMMENT = "What is kept for so many days. What has no row is kept for ever"

DROPPED_ROLLUPS = """
CREATE TABLE dropped_rollups (
    dropped_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    bytes bigint,
    first_day date,
    last_day date NOT NULL,
    kind text,
    actor text,
    PRIMARY KEY (kind, first_day, dropped_at)
)
"""
DROPPED_ROLLUPS_COMMENT = (
    "Of which days roll-ups were dropped: what is there of them since is only what came late. Append-only"
)

FIX_SEARCH_PATH = """
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION {name} SET search_path = %I, pg_temp', current_schema());
END
$$
"""

FUNCTIONS = ("breakers_owing", "due_spans", "uncounted_of", "drop_outcomes", "drop_rollups")
ACTING = ("drop_outcomes", "drop_rollups")


def upgrade() -> None:
    if op.get_context().as_sql:
        op.execute(f"CREATE INDEX {BY_TIME}")
    else:
        with op.get_context().autocommit_block():
            # One whose making was broken off is there, and of no use.
            op.execute("DROP INDEX CONCURRENTLY IF EXISTS writer_batches_by_time")
            op.execute(f"CREATE INDEX CONCURRENTLY {BY_TIME}")
    op.execute(RETENTION)
    op.execute(f"COMMENT ON TABLE retention IS '{COMMENT}'")
    op.execute(DROPPED_ROLLUPS)
    op.execute(f"COMMENT ON TABLE dropped_rollups IS '{DROPPED_ROLLUPS_COMMENT}'")
    _protect("append_only", "BEFORE UPDATE OR DELETE", "FOR EACH ROW")
    _protect("append_only_truncate", "BEFORE TRUNCATE", "FOR EACH STATEMENT")
    for name in FUNCTIONS:
        op.execute(Path(__file__).with_name(f"0015_{name}.sql").read_text(encoding="utf-8"))
    for name in ACTING:
        op.execute(FIX_SEARCH_PATH.format(name=name))
    op.execute(f"REVOKE EXECUTE ON FUNCTION {', '.join(ACTING)} FROM PUBLIC")


def downgrade() -> None:
    """Forget the policies, and which roll-ups were dropped: nothing is dropped any more."""
    for name in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {name}")
    op.execute("DROP TABLE retention, dropped_rollups")
    op.execute("DROP INDEX writer_batches_by_time")


def _protect(name: str, event: str, each: str) -> None:
    op.execute(
        f"CREATE TRIGGER {name} {event} ON dropped_rollups {each} EXECUTE FUNCTION refuse_log_change()"
    )
    op.execute(f"ALTER TABLE dropped_rollups ENABLE ALWAYS TRIGGER {name}")
