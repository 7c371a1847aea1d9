"""Roll-ups of outcomes by minute, hour and day, how the fleet is, and which days' outcomes were dropped.

Two indexes let what is new be found: by time on the outcomes, which appends hardly notice, since it has an entry for
every megabyte; and by transaction on the ledger. They are made first, outside a transaction: a revision that was broken
off meanwhile can be started again.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

OUTCOMES_BY_TIME = "USING brin (occurred_at) WITH (autosummarize = on)"

LEAVES_WITHOUT_INDEX = """
SELECT leaf.relname
FROM pg_inherits
JOIN pg_class AS leaf ON leaf.oid = inhrelid
WHERE inhparent = 'breaker_outcomes'::regclass AND NOT inhdetachpending AND NOT EXISTS (
    SELECT
    FROM pg_inherits AS part
    JOIN pg_index ON indexrelid = part.inhrelid
    WHERE part.inhparent = 'breaker_outcomes_by_time'::regclass AND indrelid = leaf.oid
)
ORDER BY leaf.relname
"""

MINUTES = """
CREATE TABLE minute_rollups (
    started_at timestamptz,
    user_id bigint,
    refusals bigint NOT NULL,
    duration_us bigint NOT NULL,
    weighted_us double precision NOT NULL,
    weight_left double precision NOT NULL,
    first_duration_us bigint,
    successes integer NOT NULL,
    failures integer NOT NULL,
    failure_run integer NOT NULL,
    drops smallint,
    durations bigint[] NOT NULL,
    error_types jsonb,
    PRIMARY KEY (user_id, started_at, drops)
) PARTITION BY RANGE (started_at)
"""

LONGER = """
CREATE TABLE {table} (
    started_at timestamptz,
    user_id bigint,
    refusals bigint NOT NULL,
    duration_us bigint NOT NULL,
    p50_us double precision,
    p95_us double precision,
    p99_us double precision,
    successes integer NOT NULL,
    failures integer NOT NULL,
    timed_calls integer NOT NULL,
    drops smallint,
    durations bigint[] NOT NULL,
    error_types jsonb,
    PRIMARY KEY (user_id, started_at, drops)
) {partitioning}
"""

FLEET = """
CREATE TABLE fleet_rollups (
    started_at timestamptz,
    successes bigint NOT NULL,
    failures bigint NOT NULL,
    refusals bigint NOT NULL,
    duration_us bigint NOT NULL,
    timed_calls bigint NOT NULL,
    p50_us double precision,
    p95_us double precision,
    p99_us double precision,
    bots integer NOT NULL,
    bucket smallint,
    drops smallint,
    durations bigint[] NOT NULL,
    error_types jsonb,
    PRIMARY KEY (bucket, started_at, drops)
)
"""

MARKS = """
CREATE TABLE rollup_marks (
    started_at timestamptz,
    bucket smallint,
    PRIMARY KEY (bucket, started_at)
)
"""

PROGRESS = """
CREATE TABLE rollup_progress (
    singleton boolean PRIMARY KEY DEFAULT true CONSTRAINT rollup_progress_one_row_check CHECK (singleton),
    rolled_up_at timestamptz,
    server_id bigint,
    snapshot pg_snapshot
)
"""

UNHEALTHY = """
CREATE TABLE unhealthy_bots (
    user_id bigint PRIMARY KEY,
    since timestamptz NOT NULL,
    error_rate double precision,
    mean_ms double precision,
    average_ms double precision,
    failure_run integer NOT NULL,
    status smallint NOT NULL,
    findings text[] NOT NULL,
    place bigint[] NOT NULL GENERATED ALWAYS AS (ARRAY[
        (CASE status WHEN 2 THEN 0 WHEN 1 THEN 1 ELSE 2 END)::bigint,
        (- round(COALESCE(error_rate, 0::double precision) * 1000000::double precision))::bigint,
        (- failure_run)::bigint,
        user_id
    ]) STORED UNIQUE
)
"""

FLEET_HEALTH = """
CREATE TABLE fleet_health (
    singleton boolean PRIMARY KEY DEFAULT true CONSTRAINT fleet_health_one_row_check CHECK (singleton),
    judged_at timestamptz,
    bots bigint NOT NULL DEFAULT 0,
    degraded bigint NOT NULL DEFAULT 0,
    unhealthy bigint NOT NULL DEFAULT 0,
    suspended bigint NOT NULL DEFAULT 0,
    successes bigint NOT NULL DEFAULT 0,
    failures bigint NOT NULL DEFAULT 0,
    refusals bigint NOT NULL DEFAULT 0,
    duration_us bigint NOT NULL DEFAULT 0,
    timed_calls bigint NOT NULL DEFAULT 0
)
"""

DROPPED = """
CREATE TABLE dropped_partitions (
    dropped_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    outcomes bigint NOT NULL,
    bytes bigint NOT NULL,
    day date,
    drops smallint CONSTRAINT dropped_partitions_drops_check CHECK (drops >= 1),
    actor text,
    PRIMARY KEY (day, drops)
)
"""

COMMENTS = {
    "minute_rollups": "What the outcomes of a user in a minute add up to, a partition per UTC day",
    "hour_rollups": "What the outcomes of a user in an hour add up to, a partition per month",
    "day_rollups": "What the outcomes of a user on a UTC day add up to",
    "fleet_rollups": "What the outcomes of all users in a minute, hour or day add up to",
    "rollup_marks": "The minutes, hours and days that are to be counted, since outcomes were stored that are of them",
    "rollup_progress": "One row: what of the ledger has been marked to be counted",
    "unhealthy_bots": "The bots that are not healthy, as of when the fleet was judged last",
    "fleet_health": "One row: how many bots were not healthy when the fleet was judged last, and its sums of the window",
    "dropped_partitions": "The days whose outcomes were dropped, and how often: an event that comes late may make a day anew. Append-only",
}

FIX_SEARCH_PATH = """
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION {name} SET search_path = %I, pg_temp', current_schema());
END
$$
"""

BY_USER = ("minute_rollups", "hour_rollups", "day_rollups")


def upgrade() -> None:
    add_indexes()
    for statement in (
        MINUTES,
        LONGER.format(table="hour_rollups", partitioning="PARTITION BY RANGE (started_at)"),
        LONGER.format(table="day_rollups", partitioning=""),
    ):
        op.execute(statement)
    for table in BY_USER:
        op.execute(
            f"CREATE INDEX {table}_by_time ON {table} USING brin (started_at) WITH (autosummarize = on)"
        )
    for statement in (FLEET, MARKS, PROGRESS, UNHEALTHY, FLEET_HEALTH, DROPPED):
        op.execute(statement)
    for table in ("rollup_progress", "fleet_health"):
        op.execute(f"INSERT INTO {table} DEFAULT VALUES")
    for table, comment in COMMENTS.items():
        op.execute(f"COMMENT ON TABLE {table} IS '{comment}'")
    _protect("append_only", "BEFORE UPDATE OR DELETE", "FOR EACH ROW")
    _protect("append_only_truncate", "BEFORE TRUNCATE", "FOR EACH STATEMENT")
    for name in ("ensure_rollup_partitions", "erase_rollups"):
        op.execute(_read(f"0014_{name}.sql"))
    op.execute(FIX_SEARCH_PATH.format(name="ensure_rollup_partitions"))
    _replace_erasure("0014_erase_person.sql")
    op.execute("REVOKE EXECUTE ON FUNCTION ensure_rollup_partitions, erase_rollups FROM PUBLIC")


def downgrade() -> None:
    """Forget the roll-ups. What was counted of days that have been dropped can't be had again."""
    _replace_erasure("0012_erase_person.sql")
    op.execute("DROP FUNCTION ensure_rollup_partitions, erase_rollups")
    op.execute(f"DROP TABLE {', '.join(COMMENTS)}")
    op.execute("DROP INDEX breaker_outcomes_by_time, writer_batches_by_transaction")


def add_indexes() -> None:
    if op.get_context().as_sql:
        op.execute(f"CREATE INDEX breaker_outcomes_by_time ON breaker_outcomes {OUTCOMES_BY_TIME}")
        op.execute("CREATE INDEX writer_batches_by_transaction ON writer_batches (xid)")
        return
    with op.get_context().autocommit_block():
        # One whose making was broken off is there, and of no use.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS writer_batches_by_transaction")
        op.execute("CREATE INDEX CONCURRENTLY writer_batches_by_transaction ON writer_batches (xid)")
        op.execute(
            f"CREATE INDEX IF NOT EXISTS breaker_outcomes_by_time ON ONLY breaker_outcomes {OUTCOMES_BY_TIME}"
        )
        # Days that are made from here on have it from their parent.
        for leaf in op.get_bind().scalars(text(LEAVES_WITHOUT_INDEX)).all():
            name = f"{leaf}_occurred_at_idx"
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {leaf} {OUTCOMES_BY_TIME}")
            op.execute(f"ALTER INDEX breaker_outcomes_by_time ATTACH PARTITION {name}")


def _protect(name: str, event: str, each: str) -> None:
    op.execute(
        f"CREATE TRIGGER {name} {event} ON dropped_partitions {each} EXECUTE FUNCTION refuse_log_change()"
    )
    op.execute(f"ALTER TABLE dropped_partitions ENABLE ALWAYS TRIGGER {name}")


def _replace_erasure(file: str) -> None:
    # Replacing it keeps who owns it and may call it, and forgets its settings.
    op.execute(_read(file).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))
    op.execute(FIX_SEARCH_PATH.format(name="erase_person"))


def _read(file: str) -> str:
    return Path(__file__).with_name(file).read_text(encoding="utf-8")
