"""Which breakers somebody forced open: their wait is not their policy's."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

REPLACED = ("apply_changes", "restore_breaker_state")


def upgrade() -> None:
    # Appends wait, each before it has called a function that is replaced here: the ledger comes first in every one.
    op.execute("LOCK TABLE writer_batches, breaker_states IN SHARE ROW EXCLUSIVE MODE")
    # Nothing could be forced open before, so there is nothing to fill in, and no row is written anew.
    op.execute("ALTER TABLE breaker_states ADD COLUMN forced boolean NOT NULL DEFAULT false")
    for name in REPLACED:
        op.execute(_read(f"0006_{name}.sql"))


def downgrade() -> None:
    """Forget which ones are forced open: they stay open as long as was said, cut to their policy's timeout."""
    op.execute("LOCK TABLE writer_batches, breaker_states IN SHARE ROW EXCLUSIVE MODE")
    for name in REPLACED:
        op.execute(_read(f"0004_{name}.sql"))
    op.execute("ALTER TABLE breaker_states DROP COLUMN forced")


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
