"""The functions by which a batch is appended, each explained in its own file."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LEDGER_ENTRY = (
    "bigint, bigint, bigint, bigint, integer, smallint, smallint, bytea, bytea, timestamptz, timestamptz"
)
FUNCTIONS = {
    "open_batch": LEDGER_ENTRY,
    "apply_changes": "bigint, jsonb",
    "finish_batch": "bigint, jsonb",
    "append_batch": f"{LEDGER_ENTRY}, jsonb",
    "restore_breaker_state": "bigint",
}


def upgrade() -> None:
    for name in FUNCTIONS:
        op.execute(Path(__file__).with_name(f"0002_{name}.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Take the functions away; nothing can be appended then, and nothing is lost."""
    for name, arguments in reversed(list(FUNCTIONS.items())):
        op.execute(f"DROP FUNCTION {name}({arguments})")
