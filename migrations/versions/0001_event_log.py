"""The log of events, its ledger, and the breakers' states.

Going down from here deletes the log: every event, for ever.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

EVENTS = """
CREATE TABLE breaker_events (
    occurred_at timestamptz NOT NULL,
    user_id bigint NOT NULL,
    writer_id bigint NOT NULL,
    writer_seq bigint NOT NULL,
    duration_us bigint,
    position bigint,
    generation integer NOT NULL,
    era integer NOT NULL,
    version integer,
    probe integer,
    count integer,
    kind smallint NOT NULL,
    verdict smallint,
    attempt smallint,
    trace_id uuid,
    operation text,
    error_type text,
    error_message text,
    details jsonb,
    details_version smallint
) PARTITION BY LIST (kind)
"""

STATES = """
CREATE TABLE breaker_states (
    user_id bigint PRIMARY KEY,
    tail_from timestamptz,
    tail_until timestamptz,
    tail_writer bigint,
    last_writer_id bigint,
    last_writer_seq bigint,
    since timestamptz,
    opened_at timestamptz,
    retry_at timestamptz,
    version integer NOT NULL DEFAULT 0,
    generation integer NOT NULL DEFAULT 0,
    era integer NOT NULL DEFAULT 0,
    state smallint NOT NULL DEFAULT 0,
    failure_count integer NOT NULL DEFAULT 0,
    success_count integer NOT NULL DEFAULT 0,
    last_failure jsonb,
    policy jsonb,
    policy_is_own boolean NOT NULL DEFAULT false
) WITH (fillfactor = 80)
"""

LEDGER = """
CREATE TABLE writer_batches (
    writer_id bigint,
    batch_no bigint CONSTRAINT writer_batches_batch_no_check CHECK (batch_no >= 1),
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    event_count integer NOT NULL,
    format smallint NOT NULL,
    source smallint NOT NULL,
    digest bytea NOT NULL,
    previous_digest bytea,
    earliest timestamptz NOT NULL,
    latest timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (writer_id, batch_no),
    CONSTRAINT writer_batches_first_check CHECK (first_seq >= 1),
    CONSTRAINT writer_batches_count_check CHECK (event_count BETWEEN 1 AND last_seq - first_seq + 1),
    CONSTRAINT writer_batches_digest_check CHECK (octet_length(digest) = 32 AND octet_length(previous_digest) = 32),
    CONSTRAINT writer_batches_chain_check CHECK ((batch_no = 1) = (previous_digest IS NULL)),
    CONSTRAINT writer_batches_times_check CHECK (earliest <= latest)
)
"""

POSITION = """
CREATE TABLE log_position (
    singleton boolean PRIMARY KEY DEFAULT true CONSTRAINT log_position_one_row_check CHECK (singleton),
    last bigint NOT NULL DEFAULT 0
)
"""

COMMENTS = {
    "breaker_events": "All events: append-only. Transitions and outcomes are its partitions",
    "breaker_transitions": "Transitions of breakers, kept for ever. Those without a position are superseded",
    "breaker_outcomes": "Outcomes of calls, a partition per UTC day",
    "breaker_states": "What the events say of each breaker: one row a breaker, made by its first event",
    "writer_batches": "The ledger: every batch of events that is stored, once. Append-only",
    "log_position": "One row: the position of the last transition that won",
    "imported_lines": "Which lines of imported files are stored, so that a second import adds nothing",
}

# A SECURITY DEFINER function must find its tables wherever they were made, and nobody else's before them.
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
    create_event_tables()
    create_event_indexes()
    create_tables_beside_the_log()
    protect_log()
    create_partition_function()
    for table, comment in COMMENTS.items():
        op.execute(f"COMMENT ON TABLE {table} IS '{comment}'")


def downgrade() -> None:
    """Delete the log: every event, transition, batch and state."""
    op.execute("DROP FUNCTION ensure_outcome_partitions(date, date)")
    op.execute("DROP TABLE breaker_events, breaker_states, writer_batches, log_position, imported_lines")
    op.execute("DROP FUNCTION refuse_log_change()")


def create_event_tables() -> None:
    op.execute(EVENTS)
    op.execute(
        "CREATE TABLE breaker_transitions PARTITION OF breaker_events"
        f" FOR VALUES IN ({_numbers(range(10, 50))})"
    )
    op.execute(
        "CREATE TABLE breaker_outcomes PARTITION OF breaker_events"
        f" FOR VALUES IN ({_numbers(range(1, 10))}) PARTITION BY RANGE (occurred_at)"
    )


def create_event_indexes() -> None:
    # The partitions' own come first: the parent's then takes them as its parts, and they keep their names.
    for table in ("breaker_transitions", "breaker_outcomes", "breaker_events"):
        op.execute(f"CREATE INDEX {table}_history ON {table} (user_id, occurred_at, writer_id, writer_seq)")
    op.execute(
        "CREATE UNIQUE INDEX breaker_transitions_position ON breaker_transitions (position)"
        " WHERE position IS NOT NULL"
    )
    op.execute(
        "CREATE UNIQUE INDEX breaker_transitions_version ON breaker_transitions (user_id, version)"
        " INCLUDE (generation, era, writer_id, writer_seq, kind)"
        " WHERE position IS NOT NULL"
    )
    op.execute(
        "CREATE UNIQUE INDEX breaker_transitions_identity ON breaker_transitions (writer_id, writer_seq)"
    )
    op.execute("CREATE INDEX breaker_transitions_time ON breaker_transitions (occurred_at, position)")


def create_tables_beside_the_log() -> None:
    op.execute(STATES)
    op.execute(
        "CREATE INDEX breaker_states_not_closed ON breaker_states (state) INCLUDE (user_id) WHERE state <> 0"
    )
    op.execute(LEDGER)
    op.execute(POSITION)
    op.execute("INSERT INTO log_position DEFAULT VALUES")
    op.execute("CREATE TABLE imported_lines (line uuid PRIMARY KEY)")


def protect_log() -> None:
    op.execute(_read("0001_refuse_log_change.sql"))
    # A trigger for rows reaches every partition, now and later; one for TRUNCATE stays where it is put.
    for table in ("breaker_events", "writer_batches"):
        _add_trigger(table, "append_only", "BEFORE UPDATE OR DELETE", "FOR EACH ROW")
    for table in ("breaker_events", "breaker_transitions", "breaker_outcomes", "writer_batches"):
        _add_trigger(table, "append_only_truncate", "BEFORE TRUNCATE", "FOR EACH STATEMENT")


def create_partition_function() -> None:
    op.execute(_read("0001_ensure_outcome_partitions.sql"))
    op.execute(FIX_SEARCH_PATH)
    op.execute("REVOKE EXECUTE ON FUNCTION ensure_outcome_partitions(date, date) FROM PUBLIC")


def _add_trigger(table: str, name: str, event: str, each: str) -> None:
    op.execute(f"CREATE TRIGGER {name} {event} ON {table} {each} EXECUTE FUNCTION refuse_log_change()")
    # Also for a session that calls itself a replica: it would pass by ordinary triggers.
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def _numbers(numbers: range) -> str:
    return ", ".join(str(number) for number in numbers)


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
