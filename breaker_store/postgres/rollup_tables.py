"""The tables of roll-ups and of health: what outcomes add up to, and how far they are counted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Double,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from breaker_store.postgres.tables import TransactionSnapshot, instant, metadata


def _rollup_key() -> list[Column[Any]]:
    return [
        Column("started_at", instant()),
        Column("user_id", BigInteger),
    ]


def _drops() -> Column[Any]:
    # How often the outcomes of the UTC day had been dropped when this was counted. Rows of an earlier number are never
    # counted again: what holds is the sum over all of them.
    return Column("drops", SmallInteger)


def _details_of_calls() -> list[Column[Any]]:
    return [
        # A number for each bucket of the histogram that has calls, in their order: bucket * 2^40 + calls.
        Column("durations", ARRAY(BigInteger), nullable=False),
        # Of the failures that have one: how many of each. Null: none has.
        Column("error_types", JSONB),
    ]


def _quantiles() -> list[Column[Any]]:
    # Worked out of the histogram when it was counted. Null: of no call it is known how long it took.
    return [Column(name, Double) for name in ("p50_us", "p95_us", "p99_us")]


def _rollups_by_time(table: str) -> Index:
    return Index(
        f"{table}_by_time", "started_at", postgresql_using="brin", postgresql_with={"autosummarize": "on"}
    )


# Most columns are the fields of `core.health.Tally`.
minute_rollups = Table(
    "minute_rollups",
    metadata,
    *_rollup_key(),
    Column("refusals", BigInteger, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    Column("weighted_us", Double, nullable=False),
    Column("weight_left", Double, nullable=False),
    Column("first_duration_us", BigInteger),
    Column("successes", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("failure_run", Integer, nullable=False),
    _drops(),
    *_details_of_calls(),
    PrimaryKeyConstraint("user_id", "started_at", "drops"),
    _rollups_by_time("minute_rollups"),
    comment="What the outcomes of a user in a minute add up to, a partition per UTC day",
    postgresql_partition_by="RANGE (started_at)",
)


def _longer_rollups(name: str, comment: str, **options: Any) -> Table:
    return Table(
        name,
        metadata,
        *_rollup_key(),
        Column("refusals", BigInteger, nullable=False),
        Column("duration_us", BigInteger, nullable=False),
        *_quantiles(),
        Column("successes", Integer, nullable=False),
        Column("failures", Integer, nullable=False),
        # Of which it is known how long they took.
        Column("timed_calls", Integer, nullable=False),
        _drops(),
        *_details_of_calls(),
        PrimaryKeyConstraint("user_id", "started_at", "drops"),
        _rollups_by_time(name),
        comment=comment,
        **options,
    )


hour_rollups = _longer_rollups(
    "hour_rollups",
    "What the outcomes of a user in an hour add up to, a partition per month",
    postgresql_partition_by="RANGE (started_at)",
)

day_rollups = _longer_rollups("day_rollups", "What the outcomes of a user on a UTC day add up to")

fleet_rollups = Table(
    "fleet_rollups",
    metadata,
    Column("started_at", instant()),
    Column("successes", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("refusals", BigInteger, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    Column("timed_calls", BigInteger, nullable=False),
    *_quantiles(),
    # The users that had an outcome.
    Column("bots", Integer, nullable=False),
    # 0 minute, 1 hour, 2 day.
    Column("bucket", SmallInteger),
    Column("drops", SmallInteger),
    *_details_of_calls(),
    PrimaryKeyConstraint("bucket", "started_at", "drops"),
    comment="What the outcomes of all users in a minute, hour or day add up to",
)

rollup_marks = Table(
    "rollup_marks",
    metadata,
    Column("started_at", instant()),
    Column("bucket", SmallInteger),
    PrimaryKeyConstraint("bucket", "started_at"),
    comment="The minutes, hours and days that are to be counted, since outcomes were stored that are of them",
)

rollup_progress = Table(
    "rollup_progress",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    # When the last run that got to its end began: all that was over and stored then is counted.
    Column("rolled_up_at", instant()),
    # The server's system identifier. On another one, where a dump was restored, the snapshot means nothing.
    Column("server_id", BigInteger),
    # The batches that it sees are marked. Null: none is.
    Column("snapshot", TransactionSnapshot),
    CheckConstraint("singleton", "one_row"),
    comment="One row: what of the ledger has been marked to be counted",
)

unhealthy_bots = Table(
    "unhealthy_bots",
    metadata,
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    # From which judgement on it has this status.
    Column("since", instant(), nullable=False),
    # What it was judged by; null where there was nothing to tell it from.
    Column("error_rate", Double),
    Column("mean_ms", Double),
    Column("average_ms", Double),
    Column("failure_run", Integer, nullable=False),
    # 1 degraded, 2 unhealthy, 3 suspended.
    Column("status", SmallInteger, nullable=False),
    Column("findings", ARRAY(Text), nullable=False),
    # In the list, worst first. Whom an operator suspended is known to them: it comes last.
    Column(
        "place",
        ARRAY(BigInteger),
        Computed(
            """ARRAY[
                (CASE status WHEN 2 THEN 0 WHEN 1 THEN 1 ELSE 2 END)::bigint,
                (- round(COALESCE(error_rate, 0::double precision) * 1000000::double precision))::bigint,
                (- failure_run)::bigint,
                user_id
            ]""",
            persisted=True,
        ),
        nullable=False,
        unique=True,
    ),
    comment="The bots that are not healthy, as of when the fleet was judged last",
)

fleet_health = Table(
    "fleet_health",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    # The end of the window. Null: not yet judged.
    Column("judged_at", instant()),
    Column("bots", BigInteger, nullable=False, server_default=text("0")),
    Column("degraded", BigInteger, nullable=False, server_default=text("0")),
    Column("unhealthy", BigInteger, nullable=False, server_default=text("0")),
    Column("suspended", BigInteger, nullable=False, server_default=text("0")),
    # What the outcomes of the window add up to.
    Column("successes", BigInteger, nullable=False, server_default=text("0")),
    Column("failures", BigInteger, nullable=False, server_default=text("0")),
    Column("refusals", BigInteger, nullable=False, server_default=text("0")),
    Column("duration_us", BigInteger, nullable=False, server_default=text("0")),
    # Those whose duration is known.
    Column("timed_calls", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("singleton", "one_row"),
    comment="One row: how many bots were not healthy when the fleet was judged last, and its sums of the window",
)
