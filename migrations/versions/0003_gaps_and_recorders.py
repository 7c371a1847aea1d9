"""What is missing in the log, and how the processes' recording goes.

The ledger takes batches without events from here on: they bring gaps alone.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

GAPS = """
CREATE TABLE log_gaps (
    writer_id bigint,
    batch_no bigint,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    successes bigint NOT NULL,
    refusals bigint NOT NULL,
    failures bigint NOT NULL,
    transitions bigint NOT NULL,
    unknown bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    gap_no integer,
    reason smallint NOT NULL,
    PRIMARY KEY (writer_id, batch_no, gap_no),
    CONSTRAINT log_gaps_times_check CHECK (first_at <= last_at)
)
"""

RECORDERS = """
CREATE TABLE recorders (
    writer_id bigint PRIMARY KEY,
    started_at timestamptz NOT NULL,
    reported_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    queued bigint NOT NULL,
    flushed bigint NOT NULL,
    spooled bigint NOT NULL,
    set_aside bigint NOT NULL,
    lost bigint NOT NULL,
    oldest_waiting_us bigint,
    pid integer NOT NULL,
    ended boolean NOT NULL,
    host text NOT NULL,
    durability text NOT NULL,
    lost_why text,
    last_error text
) WITH (fillfactor = 50)
"""

COMMENTS = {
    "log_gaps": "What happened and is not in the log, as the writers counted it. Append-only",
    "recorders": "How each process''s recording goes, as it said last. No log: forgotten after 30 days of silence",
}

# While old rows are being looked at, appends go on; and whoever starts again after it was broken off finds nothing in
# the way. So it comes before all else, outside the revision's own transaction.
ALLOW_NO_EVENTS = (
    """
    ALTER TABLE writer_batches
        DROP CONSTRAINT writer_batches_count_check,
        ADD CONSTRAINT writer_batches_count_check
            CHECK (event_count BETWEEN 0 AND last_seq - first_seq + 1) NOT VALID
    """,
    "ALTER TABLE writer_batches VALIDATE CONSTRAINT writer_batches_count_check",
)

# Batches without events can't be taken out of the ledger: where there are any, the check is one for new rows.
DEMAND_EVENTS = """
DO $$
BEGIN
    EXECUTE 'ALTER TABLE writer_batches
        DROP CONSTRAINT writer_batches_count_check,
        ADD CONSTRAINT writer_batches_count_check
            CHECK (event_count BETWEEN 1 AND last_seq - first_seq + 1)'
        || CASE WHEN EXISTS (SELECT FROM writer_batches WHERE event_count = 0) THEN ' NOT VALID' ELSE '' END;
END
$$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for statement in ALLOW_NO_EVENTS:
            op.execute(statement)
    op.execute(GAPS)
    op.execute(RECORDERS)
    for table, comment in COMMENTS.items():
        op.execute(f"COMMENT ON TABLE {table} IS '{comment}'")
    _protect("append_only", "BEFORE UPDATE OR DELETE", "FOR EACH ROW")
    _protect("append_only_truncate", "BEFORE TRUNCATE", "FOR EACH STATEMENT")
    op.execute(_read("0003_finish_batch.sql"))


def downgrade() -> None:
    """Forget what is missing in the log, and how recording goes."""
    op.execute(_read("0002_finish_batch.sql").replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))
    op.execute("DROP TABLE log_gaps, recorders")
    op.execute(DEMAND_EVENTS)


def _protect(name: str, event: str, each: str) -> None:
    op.execute(f"CREATE TRIGGER {name} {event} ON log_gaps {each} EXECUTE FUNCTION refuse_log_change()")
    op.execute(f"ALTER TABLE log_gaps ENABLE ALWAYS TRIGGER {name}")


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
