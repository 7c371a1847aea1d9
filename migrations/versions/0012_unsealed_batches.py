"""Which batches have no seal is told when they are stored, and an erasure can do nothing but erase.

A batch of the format of before is not covered by `verify`. So it must not be enough to say of a batch that it is one: they
are named in a table of their own, those that are there and those that a process of an earlier version may still bring.

The function that erases a person believed what it was told of details and batches. Now it works out the details itself,
and sees that the batches hold the person's events and are as they were sealed.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

UNSEALED_BATCHES = """
CREATE TABLE unsealed_batches (
    writer_id bigint,
    batch_no bigint,
    CONSTRAINT unsealed_batches_pkey PRIMARY KEY (writer_id, batch_no)
)
"""
COMMENT = "The batches whose contents have no seal, as they were stored. Append-only"
NAME_WHAT_IS_THERE = (
    "INSERT INTO unsealed_batches SELECT writer_id, batch_no FROM writer_batches WHERE format = 1"
)

MADE = ("erased_details", "has_contents")

FIX_SEARCH_PATH = """
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION erase_person SET search_path = %I, pg_temp', current_schema());
END
$$
"""


def upgrade() -> None:
    # Appends wait, each before it has called a function that is replaced here: the ledger comes first in every one.
    op.execute("LOCK TABLE writer_batches IN SHARE ROW EXCLUSIVE MODE")
    op.execute(UNSEALED_BATCHES)
    op.execute(f"COMMENT ON TABLE unsealed_batches IS '{COMMENT}'")
    op.execute(NAME_WHAT_IS_THERE)
    _protect("append_only", "BEFORE UPDATE OR DELETE", "FOR EACH ROW")
    _protect("append_only_truncate", "BEFORE TRUNCATE", "FOR EACH STATEMENT")
    op.execute(_read("0012_open_batch.sql"))
    for name in MADE:
        op.execute(_read(f"0012_{name}.sql"))
    _replace_erasure("0012_erase_person.sql")


def downgrade() -> None:
    """Forget which batches have no seal; going up again believes what the ledger then says."""
    _replace_erasure("0009_erase_person.sql")
    for name in MADE:
        op.execute(f"DROP FUNCTION {name}")
    op.execute(_read("0009_open_batch.sql").replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))
    op.execute("DROP TABLE unsealed_batches")


def _replace_erasure(name: str) -> None:
    op.execute("DROP FUNCTION erase_person")
    op.execute(_read(name))
    op.execute(FIX_SEARCH_PATH)
    op.execute("REVOKE EXECUTE ON FUNCTION erase_person FROM PUBLIC")


def _protect(name: str, event: str, each: str) -> None:
    op.execute(
        f"CREATE TRIGGER {name} {event} ON unsealed_batches {each} EXECUTE FUNCTION refuse_log_change()"
    )
    op.execute(f"ALTER TABLE unsealed_batches ENABLE ALWAYS TRIGGER {name}")


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
