"""A chain over the transitions, seals of batches from which a person can be erased, and the way to erase one.

The chain is made over what is there. Batches of before have digests that can't be checked once a person is erased, and
are in another form: their contents are not covered, and `verify` says so.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

COLUMNS = (
    "ALTER TABLE breaker_events ADD COLUMN chain bytea, ADD COLUMN salt bytea, ADD COLUMN private_digest bytea",
    "ALTER TABLE log_position ADD COLUMN chain bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex')",
    "ALTER TABLE writer_batches ADD COLUMN seal bytea",
    (
        "ALTER TABLE writer_batches ADD CONSTRAINT writer_batches_seal_check"
        " CHECK ((format <> 1 OR seal IS NULL) AND octet_length(seal) = 48)"
    ),
)

RESEALED_BATCHES = """
CREATE TABLE resealed_batches (
    writer_id bigint,
    batch_no bigint,
    erasure_writer_id bigint,
    erasure_writer_seq bigint,
    digest_before bytea NOT NULL,
    digest_after bytea NOT NULL,
    CONSTRAINT resealed_batches_pkey PRIMARY KEY (writer_id, batch_no, erasure_writer_id, erasure_writer_seq),
    CONSTRAINT resealed_batches_digests_check
        CHECK (octet_length(digest_before) = 32 AND octet_length(digest_after) = 32)
)
"""
COMMENT = (
    "The batches from which a person was erased: the digest of their contents before and after. Append-only"
)

CHAIN_WHAT_IS_THERE = """
DO $$
DECLARE
    transition record;
    head bytea := (SELECT chain FROM log_position);
    drawn bytea;
BEGIN
    PERFORM set_config('breaker_store.erasing', pg_current_xact_id()::text, true);
    FOR transition IN SELECT * FROM breaker_transitions WHERE position IS NOT NULL ORDER BY position LOOP
        drawn := uuid_send(gen_random_uuid());
        head := chain_transition(
            head, transition.position, transition.occurred_at, transition.writer_id, transition.writer_seq,
            transition.generation, transition.era, transition.version, transition.kind, transition.details_version,
            transition.details, private_transition_digest(drawn, transition.user_id, transition.details)
        );
        UPDATE breaker_transitions SET chain = head, salt = drawn
        WHERE writer_id = transition.writer_id AND writer_seq = transition.writer_seq;
    END LOOP;
    UPDATE log_position SET chain = head;
    PERFORM set_config('breaker_store.erasing', '', true);
END
$$
"""

FIX_SEARCH_PATH = """
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION erase_person SET search_path = %I, pg_temp', current_schema());
END
$$
"""

MADE = ("private_transition_digest", "chain_transition", "erase_person")
REPLACED = {"apply_changes": "0006_apply_changes.sql", "refuse_log_change": "0001_refuse_log_change.sql"}
LENGTHENED = ("open_batch", "append_batch")
LEDGER_ENTRY = (
    "bigint, bigint, bigint, bigint, integer, smallint, smallint, bytea, bytea, timestamptz, timestamptz"
)
OLD_ARGUMENTS = {"open_batch": LEDGER_ENTRY, "append_batch": f"{LEDGER_ENTRY}, jsonb"}


def upgrade() -> None:
    # Appends wait, each before it has called a function that is replaced here: the ledger comes first in every one.
    op.execute("LOCK TABLE writer_batches, breaker_states IN SHARE ROW EXCLUSIVE MODE")
    for statement in COLUMNS:
        op.execute(statement)
    op.execute(RESEALED_BATCHES)
    op.execute(f"COMMENT ON TABLE resealed_batches IS '{COMMENT}'")
    for name, arguments in OLD_ARGUMENTS.items():
        op.execute(f"DROP FUNCTION {name}({arguments})")
    for name in (*MADE, *REPLACED, *LENGTHENED):
        op.execute(_read(f"0009_{name}.sql"))
    op.execute(FIX_SEARCH_PATH)
    op.execute("REVOKE EXECUTE ON FUNCTION erase_person FROM PUBLIC")
    _protect("append_only", "BEFORE UPDATE OR DELETE", "FOR EACH ROW")
    _protect("append_only_truncate", "BEFORE TRUNCATE", "FOR EACH STATEMENT")
    op.execute(CHAIN_WHAT_IS_THERE)


def downgrade() -> None:
    """Forget the chain and the seals: what was sealed since can't be checked any more."""
    for name in MADE:
        op.execute(f"DROP FUNCTION {name}")
    for name, file in REPLACED.items():
        op.execute(_read(file).replace(f"CREATE FUNCTION {name}", f"CREATE OR REPLACE FUNCTION {name}", 1))
    for name in LENGTHENED:
        op.execute(f"DROP FUNCTION {name}")
        op.execute(_read(f"0002_{name}.sql"))
    op.execute("DROP TABLE resealed_batches")
    op.execute("ALTER TABLE writer_batches DROP COLUMN seal")
    op.execute("ALTER TABLE log_position DROP COLUMN chain")
    op.execute("ALTER TABLE breaker_events DROP COLUMN chain, DROP COLUMN salt, DROP COLUMN private_digest")


def _protect(name: str, event: str, each: str) -> None:
    op.execute(
        f"CREATE TRIGGER {name} {event} ON resealed_batches {each} EXECUTE FUNCTION refuse_log_change()"
    )
    op.execute(f"ALTER TABLE resealed_batches ENABLE ALWAYS TRIGGER {name}")


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
