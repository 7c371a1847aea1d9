"""Who may use the admin API: access tokens, of which only hashes are kept."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ACCESS_TOKENS = """
CREATE TABLE access_tokens (
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    public_id text PRIMARY KEY,
    name text NOT NULL,
    role text NOT NULL,
    secret_hash bytea NOT NULL,
    CONSTRAINT access_tokens_name_key UNIQUE (name),
    CONSTRAINT access_tokens_role_check CHECK (role IN ('viewer', 'operator')),
    CONSTRAINT access_tokens_hash_check CHECK (octet_length(secret_hash) = 32)
)
"""

COMMENT = "Who may use the admin API. Revoked and expired ones stay: the log says by their names who did what"


def upgrade() -> None:
    op.execute(ACCESS_TOKENS)
    op.execute(f"COMMENT ON TABLE access_tokens IS '{COMMENT}'")


def downgrade() -> None:
    """Forget all tokens: after the next step up the API is as open as one for which none was ever made."""
    op.execute("DROP TABLE access_tokens")
