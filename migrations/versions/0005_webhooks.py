"""How far each webhook has come in telling of the log's transitions."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

WEBHOOKS = """
CREATE TABLE webhooks (
    name text PRIMARY KEY,
    position bigint NOT NULL,
    writer_id bigint,
    writer_seq bigint,
    window_to bigint,
    delivered bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0,
    leased_until timestamptz NOT NULL,
    last_delivered_at timestamptz,
    last_error_at timestamptz,
    holder uuid NOT NULL,
    window_mark text,
    last_error text,
    CONSTRAINT webhooks_window_check CHECK (window_to > position)
) WITH (fillfactor = 50)
"""

COMMENT = (
    "How far each webhook has come, and which process delivers it. Who is not in it begins at the log''s end"
)


def upgrade() -> None:
    op.execute(WEBHOOKS)
    op.execute(f"COMMENT ON TABLE webhooks IS '{COMMENT}'")


def downgrade() -> None:
    """Forget how far the webhooks have come: after the next step up each begins at the log's end."""
    op.execute("DROP TABLE webhooks")
