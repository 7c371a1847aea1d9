"""Resets of many breakers, a few a second, which survive whoever carries them out."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

STAGED_RESETS = """
CREATE TABLE staged_resets (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    per_second double precision NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    leased_until timestamptz NOT NULL DEFAULT clock_timestamp(),
    holder uuid,
    total integer NOT NULL,
    reset_count integer NOT NULL DEFAULT 0,
    moved_on_count integer NOT NULL DEFAULT 0,
    failed_count integer NOT NULL DEFAULT 0,
    state smallint NOT NULL DEFAULT 0,
    writers bigint[] NOT NULL DEFAULT '{}',
    filter jsonb NOT NULL,
    actor text,
    reason text,
    stopped_by text,
    CONSTRAINT staged_resets_counts_check CHECK (reset_count + moved_on_count + failed_count <= total)
) WITH (fillfactor = 50)
"""

RUNNING = "CREATE INDEX staged_resets_running ON staged_resets (id) WHERE state = 0"

BREAKERS = """
CREATE TABLE staged_reset_breakers (
    staged_reset_id bigint REFERENCES staged_resets (id),
    user_id bigint,
    settled_at timestamptz,
    writer_id bigint,
    writer_seq bigint,
    version integer NOT NULL,
    settlement smallint NOT NULL DEFAULT 0,
    error text,
    PRIMARY KEY (staged_reset_id, user_id)
) WITH (fillfactor = 80)
"""

COMMENTS = {
    "staged_resets": "Resets of many breakers, a few a second: which were asked for, how far they are, who carries them out",
    "staged_reset_breakers": "The breakers of staged resets, and what became of each",
}


def upgrade() -> None:
    for statement in (STAGED_RESETS, RUNNING, BREAKERS):
        op.execute(statement)
    for table, comment in COMMENTS.items():
        op.execute(f"COMMENT ON TABLE {table} IS '{comment}'")


def downgrade() -> None:
    """Forget the staged resets, also those that are under way; what they reset stands in the log."""
    op.execute("DROP TABLE staged_reset_breakers, staged_resets")
