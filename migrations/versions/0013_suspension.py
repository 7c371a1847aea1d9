"""Which bots somebody suspended, and counts that go on although their outcomes were dropped."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0013"
down_revision = "0010"
branch_labels = None
depends_on = None

# Each with the file that it goes back to.
REPLACED = {
    "apply_changes": "0009_apply_changes.sql",
    "restore_breaker_state": "0006_restore_breaker_state.sql",
    "recount_breakers": "0004_recount_breakers.sql",
    "private_transition_digest": "0009_private_transition_digest.sql",
    "chain_transition": "0009_chain_transition.sql",
}

COLUMNS = (
    "ALTER TABLE breaker_states ADD COLUMN suspended boolean NOT NULL DEFAULT false",
    "ALTER TABLE log_position ADD COLUMN suspended_breakers bigint NOT NULL DEFAULT 0",
)


def upgrade() -> None:
    # Appends wait, each before it has called a function that is replaced here: the ledger comes first in every one.
    op.execute("LOCK TABLE writer_batches, breaker_states IN SHARE ROW EXCLUSIVE MODE")
    # Nothing could be suspended before, so there is nothing to fill in, and no row is written anew.
    for statement in COLUMNS:
        op.execute(statement)
    for name in REPLACED:
        _replace(f"0013_{name}.sql")


def downgrade() -> None:
    """Forget which ones are suspended: they stay forced open, and anybody who may can release or reset them.

    Where a suspension stands in the log, its link of the chain can't be checked any more.
    """
    op.execute("LOCK TABLE writer_batches, breaker_states IN SHARE ROW EXCLUSIVE MODE")
    for file in REPLACED.values():
        _replace(file)
    op.execute("ALTER TABLE log_position DROP COLUMN suspended_breakers")
    op.execute("ALTER TABLE breaker_states DROP COLUMN suspended")


def _replace(file: str) -> None:
    statement = Path(__file__).with_name(file).read_text(encoding="utf-8")
    op.execute(statement.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))
