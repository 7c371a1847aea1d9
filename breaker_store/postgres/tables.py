"""The tables, as SQLAlchemy sees them: for queries, and for Alembic to compare with.

The tables are made by the migrations alone, never by ``metadata.create_all``: partitions, triggers and functions stand
there. What a migrated database holds and what stands here is the same, and a test keeps it so.

``breaker_events`` is one logical table. Its transitions are one plain partition, kept for ever and with keys of their
own. Its outcomes are a partition that is itself partitioned by day (see ``partitions``), so that retention can drop
days whole. The two partitions stand here as tables, since a query that knows which it wants reads less through them;
the days' leaves don't. The roll-ups are in the module `rollup_tables`, which adds them to `metadata`.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import UserDefinedType

OUTCOME_KINDS: Final = range(1, 10)
"""The kinds that the outcomes' partition takes; not all are in use."""

TRANSITION_KINDS: Final = range(10, 50)
"""The kinds that the transitions' partition takes; not all are in use."""


class TransactionSnapshot(UserDefinedType[str]):
    """Postgres' ``pg_snapshot``: which transactions a moment sees."""

    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        return "PG_SNAPSHOT"


class TransactionId(UserDefinedType[int]):
    """Postgres' ``xid8``: the number of a transaction, which does not wrap around."""

    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        return "XID8"


metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    },
)


def instant() -> DateTime:
    return DateTime(timezone=True)


def _event_columns() -> list[Column[Any]]:
    """Make the columns of an event, widest first, so that none is padded."""
    return [
        # The end of the call, on the database's clock; an imported event keeps its own time. Refusals that were counted
        # together have the time of the first, since a writer's times never run backwards.
        Column("occurred_at", instant(), nullable=False),
        Column("user_id", BigInteger, nullable=False),
        # The identity of the event: a run of a process, and the number of the event in that run, from 1.
        Column("writer_id", BigInteger, nullable=False),
        Column("writer_seq", BigInteger, nullable=False),
        # Rejected: from the first to the last refusal that the row counts.
        Column("duration_us", BigInteger),
        # Transitions that won: their number in the whole system's order, without a gap. Null: superseded, or an outcome.
        Column("position", BigInteger),
        # The pair under which the call was admitted; of a transition, the pair that it begins (policy_changed: goes on with).
        Column("generation", Integer, nullable=False),
        Column("era", Integer, nullable=False),
        # Transitions: the version that it makes.
        Column("version", Integer),
        # The number of the probe in its half-open round, from 1.
        Column("probe", Integer),
        # Rejected: the refusals in this row, at least 1.
        Column("count", Integer),
        Column("kind", SmallInteger, nullable=False),
        # Outcomes: 0 counted, 1 not counted (late, or it says nothing of the bot), 2 would have been refused (imported).
        Column("verdict", SmallInteger),
        Column("attempt", SmallInteger),
        Column("trace_id", Uuid),
        Column("operation", Text),
        Column("error_type", Text),
        Column("error_message", Text),
        # Transitions: from, to, reason, actor, the policy in force, the causes; readable without the outcomes.
        Column("details", JSONB),
        Column("details_version", SmallInteger),
        # Transitions that won: their link of the chain; a random salt; and, once their user was erased, which forgets
        # the salt, the digest of what was about them.
        Column("chain", LargeBinary),
        Column("salt", LargeBinary),
        Column("private_digest", LargeBinary),
    ]


_HISTORY = ("user_id", "occurred_at", "writer_id", "writer_seq")
"""A user's history, the fold at start-up and time travel: the one index on all events."""

events = Table(
    "breaker_events",
    metadata,
    *_event_columns(),
    Index("breaker_events_history", *_HISTORY),
    comment="All events: append-only. Transitions and outcomes are its partitions",
    postgresql_partition_by="LIST (kind)",
)

transitions = Table(
    "breaker_transitions",
    metadata,
    *_event_columns(),
    Index("breaker_transitions_history", *_HISTORY),
    Index(
        "breaker_transitions_position", "position", unique=True, postgresql_where=text("position IS NOT NULL")
    ),
    Index(
        "breaker_transitions_version",
        "user_id",
        "version",
        unique=True,
        postgresql_include=["generation", "era", "writer_id", "writer_seq", "kind"],
        postgresql_where=text("position IS NOT NULL"),
    ),
    Index(
        "breaker_transitions_endings",
        *("user_id", "version"),
        postgresql_where=text("position IS NOT NULL AND kind IN (12, 13, 15, 18)"),
    ),
    Index("breaker_transitions_identity", "writer_id", "writer_seq", unique=True),
    Index("breaker_transitions_time", "occurred_at", "position"),
    Index(
        "breaker_transitions_by_kind",
        *("kind", "occurred_at", "position"),
        postgresql_where=text("position IS NOT NULL"),
    ),
    Index(
        "breaker_transitions_by_actor",
        text("\"left\"(details ->> 'actor', 200)"),
        *("occurred_at", "position"),
        postgresql_where=text("position IS NOT NULL AND (details ->> 'actor') IS NOT NULL"),
    ),
    Index(
        "breaker_transitions_by_error",
        text("(details #>> '{causes,-1,error_type}')"),
        *("occurred_at", "position"),
        postgresql_where=text("position IS NOT NULL AND (details #>> '{causes,-1,error_type}') IS NOT NULL"),
    ),
    comment="Transitions of breakers, kept for ever. Those without a position are superseded",
)

outcomes = Table(
    "breaker_outcomes",
    metadata,
    *_event_columns(),
    Index("breaker_outcomes_history", *_HISTORY),
    # An entry for every megabyte. Made when the megabyte is full, by the server in the background.
    Index(
        "breaker_outcomes_by_time",
        "occurred_at",
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    ),
    comment="Outcomes of calls, a partition per UTC day",
    postgresql_partition_by="RANGE (occurred_at)",
)

states = Table(
    "breaker_states",
    metadata,
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    # Where the current count begins: may be early, never late. Null: nothing to fold, the counters are zero.
    Column("tail_from", instant()),
    # The last failure that was marked, and whose it was (0: several at once): a success after it ends the run.
    Column("tail_until", instant()),
    Column("tail_writer", BigInteger),
    # The identity of the last transition of the chain, which the next one must follow.
    Column("last_writer_id", BigInteger),
    Column("last_writer_seq", BigInteger),
    # When the current state began.
    Column("since", instant()),
    Column("opened_at", instant()),
    # By this server's clock_timestamp(). Null: not open, or open until it is released.
    Column("retry_at", instant()),
    Column("version", Integer, nullable=False, server_default=text("0")),
    Column("generation", Integer, nullable=False, server_default=text("0")),
    Column("era", Integer, nullable=False, server_default=text("0")),
    # 0 closed, 1 open, 2 half-open.
    Column("state", SmallInteger, nullable=False, server_default=text("0")),
    # With how many the count began.
    Column("failure_count", Integer, nullable=False, server_default=text("0")),
    # Half-open: the successful probes of this round, those that were carried over among them.
    Column("success_count", Integer, nullable=False, server_default=text("0")),
    # The last failure that counted, as it stands in the details of transitions.
    Column("last_failure", JSONB),
    # Null: the package's defaults.
    Column("policy", JSONB),
    Column("policy_is_own", Boolean, nullable=False, server_default=text("false")),
    # The error of the last trip: of the last failure that led to it.
    Column("trip_error", Text),
    # How often it tripped: opened when it was well.
    Column("trips", Integer, nullable=False, server_default=text("0")),
    # Whether somebody opened it, so that its wait is not its policy's.
    Column("forced", Boolean, nullable=False, server_default=text("false")),
    # Whether that was done by suspending the bot: only its resumption ends it.
    Column("suspended", Boolean, nullable=False, server_default=text("false")),
    Index("breaker_states_by_state", "state", "user_id", postgresql_where=text("state <> 0")),
    # Those that never changed come last, when the newest changes come first.
    Index("breaker_states_by_change", text("coalesce(since, '-infinity')"), "user_id"),
    Index("breaker_states_by_trips", "trips", "user_id"),
    Index(
        "breaker_states_by_trip_error",
        "trip_error",
        text("coalesce(since, '-infinity')"),
        "user_id",
        postgresql_where=text("trip_error IS NOT NULL"),
    ),
    comment="What the events say of each breaker: one row a breaker, made by its first event",
    # Room in each page, so that a counted failure, which changes no column of an index, stays in it.
    postgresql_with={"fillfactor": "80"},
)

batches = Table(
    "writer_batches",
    metadata,
    Column("writer_id", BigInteger, primary_key=True, autoincrement=False),
    # 1, 2, 3, ... within a writer.
    Column("batch_no", BigInteger, primary_key=True, autoincrement=False),
    # A batch without events brings gaps alone; its first number may then be the one after its last.
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("event_count", Integer, nullable=False),
    # The version of the encoding that the digest is made of.
    Column("format", SmallInteger, nullable=False),
    # 0 live, 1 import, 2 operator.
    Column("source", SmallInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    # Null for a writer's first batch alone.
    Column("previous_digest", LargeBinary),
    # The earliest and latest occurred_at in the batch.
    Column("earliest", instant(), nullable=False),
    Column("latest", instant(), nullable=False),
    Column("recorded_at", instant(), nullable=False, server_default=func.clock_timestamp()),
    Column("xid", TransactionId, nullable=False, server_default=func.pg_current_xact_id()),
    # The salt, and the digest of what is countable. Null in format 1.
    Column("seal", LargeBinary),
    CheckConstraint("batch_no >= 1", "batch_no"),
    CheckConstraint("first_seq >= 1", "first"),
    CheckConstraint("event_count BETWEEN 0 AND last_seq - first_seq + 1", "count"),
    CheckConstraint("octet_length(digest) = 32 AND octet_length(previous_digest) = 32", "digest"),
    CheckConstraint("(batch_no = 1) = (previous_digest IS NULL)", "chain"),
    CheckConstraint("earliest <= latest", "times"),
    CheckConstraint("(format <> 1 OR seal IS NULL) AND octet_length(seal) = 48", "seal"),
    # What came after a snapshot; it grows at its right edge.
    Index("writer_batches_by_transaction", "xid"),
    # When what a day holds was stored.
    Index(
        "writer_batches_by_time",
        *("earliest", "latest"),
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    ),
    comment="The ledger: every batch of events that is stored, once. Append-only",
)

unsealed_batches = Table(
    "unsealed_batches",
    metadata,
    Column("writer_id", BigInteger, primary_key=True, autoincrement=False),
    Column("batch_no", BigInteger, primary_key=True, autoincrement=False),
    comment="The batches whose contents have no seal, as they were stored. Append-only",
)

resealed_batches = Table(
    "resealed_batches",
    metadata,
    Column("writer_id", BigInteger, primary_key=True, autoincrement=False),
    Column("batch_no", BigInteger, primary_key=True, autoincrement=False),
    # The event that tells of the erasure.
    Column("erasure_writer_id", BigInteger, primary_key=True, autoincrement=False),
    Column("erasure_writer_seq", BigInteger, primary_key=True, autoincrement=False),
    # Of the batch's contents.
    Column("digest_before", LargeBinary, nullable=False),
    Column("digest_after", LargeBinary, nullable=False),
    CheckConstraint("octet_length(digest_before) = 32 AND octet_length(digest_after) = 32", "digests"),
    comment="The batches from which a person was erased: the digest of their contents before and after. Append-only",
)

gaps = Table(
    "log_gaps",
    metadata,
    # The batch that brought it, and its number there, from 1.
    Column("writer_id", BigInteger, primary_key=True, autoincrement=False),
    Column("batch_no", BigInteger, primary_key=True, autoincrement=False),
    # On the database's clock: what is missing happened between them.
    Column("first_at", instant(), nullable=False),
    Column("last_at", instant(), nullable=False),
    Column("successes", BigInteger, nullable=False),
    Column("refusals", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("transitions", BigInteger, nullable=False),
    # Events of which nothing is known but that there were so many.
    Column("unknown", BigInteger, nullable=False),
    Column("recorded_at", instant(), nullable=False, server_default=func.clock_timestamp()),
    Column("gap_no", Integer, primary_key=True, autoincrement=False),
    # 1 the queue was full, 2 the spool was full, 3 refused by the database, 4 damaged, 5 contradicted by the ledger,
    # 6 forgotten by the database, 7 the store was closed.
    Column("reason", SmallInteger, nullable=False),
    CheckConstraint("first_at <= last_at", "times"),
    comment="What happened and is not in the log, as the writers counted it. Append-only",
)

recorders = Table(
    "recorders",
    metadata,
    Column("writer_id", BigInteger, primary_key=True, autoincrement=False),
    Column("started_at", instant(), nullable=False),
    # No index: it would have to be changed with every report.
    Column("reported_at", instant(), nullable=False, server_default=func.clock_timestamp()),
    Column("queued", BigInteger, nullable=False),
    Column("flushed", BigInteger, nullable=False),
    Column("spooled", BigInteger, nullable=False),
    Column("set_aside", BigInteger, nullable=False),
    Column("lost", BigInteger, nullable=False),
    Column("oldest_waiting_us", BigInteger),
    Column("pid", Integer, nullable=False),
    Column("ended", Boolean, nullable=False),
    Column("host", Text, nullable=False),
    # behind, journaled, committed.
    Column("durability", Text, nullable=False),
    Column("lost_why", Text),
    Column("last_error", Text),
    comment="How each process's recording goes, as it said last. No log: forgotten after 30 days of silence",
    # Every row changes every few seconds, and should do so within its page.
    postgresql_with={"fillfactor": "50"},
)

log_position = Table(
    "log_position",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("last", BigInteger, nullable=False, server_default=text("0")),
    # How many there are, and are open, half-open and suspended: counting them would take longer the more there are.
    Column("breakers", BigInteger, nullable=False, server_default=text("0")),
    Column("open_breakers", BigInteger, nullable=False, server_default=text("0")),
    Column("half_open_breakers", BigInteger, nullable=False, server_default=text("0")),
    # The last link.
    Column("chain", LargeBinary, nullable=False, server_default=text("decode(repeat('00', 32), 'hex')")),
    Column("suspended_breakers", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("singleton", "one_row"),
    comment="One row: the position of the last transition that won, and how many breakers there are",
)

imported_lines = Table(
    "imported_lines",
    metadata,
    # 16 bytes of the digest of the line's content and its ordinal among equal lines.
    Column("line", Uuid, primary_key=True),
    comment="Which lines of imported files are stored, so that a second import adds nothing",
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("name", Text, primary_key=True),
    # What happened up to this transition is delivered; whose it is tells another history by the same numbers.
    Column("position", BigInteger, nullable=False),
    Column("writer_id", BigInteger),
    Column("writer_seq", BigInteger),
    # The last transition of the window that is being delivered: written before anything of it is sent, so that after a
    # crash the same messages are made again. The mark says which of them are done with.
    Column("window_to", BigInteger),
    # Messages, since the webhook began; refused ones were set aside.
    Column("delivered", BigInteger, nullable=False, server_default=text("0")),
    Column("refused", BigInteger, nullable=False, server_default=text("0")),
    # By this server's clock_timestamp(): until then no other process delivers.
    Column("leased_until", instant(), nullable=False),
    Column("last_delivered_at", instant()),
    Column("last_error_at", instant()),
    Column("holder", Uuid, nullable=False),
    Column("window_mark", Text),
    Column("last_error", Text),
    CheckConstraint("window_to > position", "window"),
    comment="How far each webhook has come, and which process delivers it. Who is not in it begins at the log's end",
    # Its few rows change with every message.
    postgresql_with={"fillfactor": "50"},
)

access_tokens = Table(
    "access_tokens",
    metadata,
    Column("created_at", instant(), nullable=False, server_default=func.clock_timestamp()),
    # Null: it never expires.
    Column("expires_at", instant()),
    Column("revoked_at", instant()),
    # To the minute.
    Column("last_used_at", instant()),
    # The part of a token that is no secret, by which it is looked up.
    Column("public_id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    # SHA-256 of the secret part.
    Column("secret_hash", LargeBinary, nullable=False),
    CheckConstraint("role IN ('viewer', 'operator')", "role"),
    CheckConstraint("octet_length(secret_hash) = 32", "hash"),
    Index("access_tokens_lower_name", text("lower(name)"), unique=True),
    comment="Who may use the admin API. Revoked and expired ones stay: the log says by their names who did what",
)

staged_resets = Table(
    "staged_resets",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("per_second", Double, nullable=False),
    Column("created_at", instant(), nullable=False, server_default=func.clock_timestamp()),
    # When it was stopped or done.
    Column("ended_at", instant()),
    # By this server's clock_timestamp(): until then no other process carries it out.
    Column("leased_until", instant(), nullable=False, server_default=func.clock_timestamp()),
    Column("holder", Uuid),
    Column("total", Integer, nullable=False),
    Column("reset_count", Integer, nullable=False, server_default=text("0")),
    Column("moved_on_count", Integer, nullable=False, server_default=text("0")),
    Column("failed_count", Integer, nullable=False, server_default=text("0")),
    # 0 running, 1 stopped, 2 done.
    Column("state", SmallInteger, nullable=False, server_default=text("0")),
    # The writers under which processes that carried it out have appended: so a reset of its own is known in the log.
    Column("writers", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    # What was asked for: states, error, since.
    Column("filter", JSONB, nullable=False),
    Column("actor", Text),
    Column("reason", Text),
    Column("stopped_by", Text),
    CheckConstraint("reset_count + moved_on_count + failed_count <= total", "counts"),
    Index("staged_resets_running", "id", postgresql_where=text("state = 0")),
    comment="Resets of many breakers, a few a second: which were asked for, how far they are, who carries them out",
    # The counts change with every breaker.
    postgresql_with={"fillfactor": "50"},
)

staged_reset_breakers = Table(
    "staged_reset_breakers",
    metadata,
    Column("staged_reset_id", BigInteger, ForeignKey("staged_resets.id"), primary_key=True),
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("settled_at", instant()),
    # The reset, as an event.
    Column("writer_id", BigInteger),
    Column("writer_seq", BigInteger),
    # The breaker's version as it was staged.
    Column("version", Integer, nullable=False),
    # 0 waiting, 1 reset, 2 moved on, 3 failed.
    Column("settlement", SmallInteger, nullable=False, server_default=text("0")),
    Column("error", Text),
    comment="The breakers of staged resets, and what became of each",
    postgresql_with={"fillfactor": "80"},
)


dropped_partitions = Table(
    "dropped_partitions",
    metadata,
    Column("dropped_at", instant(), nullable=False, server_default=func.clock_timestamp()),
    Column("outcomes", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("day", Date),
    # The number of this drop among those of the day, from 1.
    Column("drops", SmallInteger),
    Column("actor", Text),
    PrimaryKeyConstraint("day", "drops"),
    CheckConstraint("drops >= 1", "drops"),
    comment="The days whose outcomes were dropped, and how often: an event that comes late may make a day anew. Append-only",
)

dropped_rollups = Table(
    "dropped_rollups",
    metadata,
    Column("dropped_at", instant(), nullable=False, server_default=func.clock_timestamp()),
    # Null: rows among others.
    Column("bytes", BigInteger),
    Column("first_day", Date),
    Column("last_day", Date, nullable=False),
    # minutes, hours, days.
    Column("kind", Text),
    Column("actor", Text),
    PrimaryKeyConstraint("kind", "first_day", "dropped_at"),
    comment="Of which days roll-ups were dropped: what is there of them since is only what came late. Append-only",
)

retention = Table(
    "retention",
    metadata,
    Column("set_at", instant(), nullable=False, server_default=func.clock_timestamp()),
    # After the youngest of it was stored.
    Column("keep_days", Integer, nullable=False),
    # Whether days that an import touched go too.
    Column("imports", Boolean, nullable=False, server_default=text("false")),
    Column("kind", Text, primary_key=True),
    Column("actor", Text),
    CheckConstraint("keep_days BETWEEN 1 AND 36500", "keep_days"),
    CheckConstraint("kind IN ('outcomes', 'minutes', 'hours', 'days')", "kind"),
    comment="What is kept for so many days. What has no row is kept for ever",
)
