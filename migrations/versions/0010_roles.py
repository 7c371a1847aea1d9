"""What acts in the owner's place is safe from who may create functions beside it.

The function that makes partitions had its search path fixed, and was nobody's but the owner's to call. But its calls found
whatever stands in the log's schema and fits better. The roles themselves are made by `breaker-store roles`.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Replacing a function keeps who owns it and may call it, and forgets its settings.
FIX_SEARCH_PATH = """
DO $$
BEGIN
    EXECUTE format(
        'ALTER FUNCTION ensure_outcome_partitions(date, date) SET search_path = %I, pg_temp', current_schema()
    );
END
$$
"""


def upgrade() -> None:
    _replace("0010_ensure_outcome_partitions.sql")


def downgrade() -> None:
    """Bring the function back as it was; nothing is lost."""
    _replace("0001_ensure_outcome_partitions.sql")


def _replace(name: str) -> None:
    statement = Path(__file__).with_name(name).read_text(encoding="utf-8")
    op.execute(statement.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))
    op.execute(FIX_SEARCH_PATH)
