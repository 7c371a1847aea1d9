"""Names of access tokens that differ by more than upper and lower case, since people read them in the log."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Of those that look alike the oldest keeps its name. The others get a part of their tokens behind it: no name is lost, and
# from now on the log tells them apart.
TELL_APART = """
UPDATE access_tokens AS token SET name = token.name || '-' || token.public_id
WHERE EXISTS (
    SELECT FROM access_tokens AS older
    WHERE lower(older.name) = lower(token.name)
        AND (older.created_at, older.public_id) < (token.created_at, token.public_id)
)
"""

# Beside the constraint on the names as they are, which the code of before asks for.
UNIQUE = "CREATE UNIQUE INDEX access_tokens_lower_name ON access_tokens (lower(name))"


def upgrade() -> None:
    op.execute(TELL_APART)
    op.execute(UNIQUE)


def downgrade() -> None:
    """Let names differ by case alone again; what was renamed keeps its new name."""
    op.execute("DROP INDEX access_tokens_lower_name")
