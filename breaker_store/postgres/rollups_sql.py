"""The statements that count outcomes into roll-ups: of a span of time as a whole, in one statement, so of one snapshot.

Parameters: $1 and $2 begin and end of the span, which lies in one UTC day; $3 how often the outcomes of that day had been
dropped; $4 where the buckets of the histogram begin; $5 how long a roll-up is.

The quantiles of hours, of days and of the fleet are worked out once, here, since histories tell hundreds of them; to the bit
as `core.histogram.quantiles_us` does it. Each user's minutes are far more than are ever told.

What is stored already is changed only where it differs. Rows of the span of which no outcome is left go: a person was
erased.
"""

from __future__ import annotations

from typing import Final

from breaker_store.core.events import Kind
from breaker_store.core.health import WEIGHT
from breaker_store.core.histogram import COUNT_BITS, COUNT_MASK

NEGLIGIBLE_AFTER: Final = 700
"""After so many calls an earlier one weighs less than 1e-108, and is not multiplied further: Postgres refuses underflow."""


def bounded(total: str) -> str:
    """Keep a sum within its column, 0 for none: an import may bring durations that are absurd, and must not stop all counting."""
    return f"least(coalesce({total}, 0), {2**63 - 1})"


def bucket_of_duration(begins: str) -> str:
    """Write which bucket of the histogram `duration_us` falls into; `begins` is the parameter with `BUCKET_BEGINS_US`."""
    return f"width_bucket(greatest(duration_us, 1)::float8, {begins}::float8[]) - 1"


_OUTCOMES = f"""
    FROM breaker_outcomes
    WHERE occurred_at >= $1 AND occurred_at < $2 AND kind IN ({Kind.SUCCESS}, {Kind.FAILURE}, {Kind.REJECTED})
"""
_STARTED_AT = "date_bin($5::interval, occurred_at, 'epoch')"
_TIMED = f"kind <> {Kind.REJECTED} AND duration_us IS NOT NULL"
_NEWEST_FIRST = "ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC"

_SUMS = f"""
        count(*) FILTER (WHERE kind = {Kind.SUCCESS}) AS successes,
        count(*) FILTER (WHERE kind = {Kind.FAILURE}) AS failures,
        coalesce(sum(coalesce(count, 1)) FILTER (WHERE kind = {Kind.REJECTED}), 0) AS refusals,
        {bounded(f"sum(duration_us) FILTER (WHERE kind <> {Kind.REJECTED})")} AS duration_us
"""


def _quantile(share: float) -> str:
    """Write the quantile of a histogram whose buckets are rows, with the calls up to each of them in `seen`."""
    wanted = f"{share}::float8 * timed_calls"
    begin, end = (f"($4::float8[])[bucket + {number}]" for number in (1, 2))
    return f"""
        max({end} - ({end} - {begin}) * (seen - {wanted}) / calls)
            FILTER (WHERE bucket IS NOT NULL AND seen >= {wanted} AND seen - calls < {wanted})"""


_QUANTILES = f"""
        coalesce(max(timed_calls), 0) AS timed_calls, {_quantile(0.5)} AS p50_us, {_quantile(0.95)} AS p95_us, {_quantile(0.99)} AS p99_us
"""

# Made of the calls of each user in their order. For a day those would be too many.
_MINUTES = f"""
WITH ordered AS (
    SELECT user_id, {_STARTED_AT} AS started_at,
        {_SUMS},
        array_agg(kind {_NEWEST_FIRST}) FILTER (WHERE kind <> {Kind.REJECTED}) AS kinds,
        array_agg(duration_us {_NEWEST_FIRST}) FILTER (WHERE {_TIMED}) AS timed,
        array_agg(error_type) FILTER (WHERE kind = {Kind.FAILURE} AND error_type IS NOT NULL) AS types
    {_OUTCOMES}
    GROUP BY 1, 2
    OFFSET 0
),
counted AS MATERIALIZED (
    SELECT user_id, started_at, successes, failures, refusals, duration_us,
        coalesce((
            SELECT sum({WEIGHT}::float8 * duration_us * power({1 - WEIGHT}::float8, least(number - 1, {NEGLIGIBLE_AFTER})))
            FROM unnest(timed) WITH ORDINALITY AS call (duration_us, number)
        ), 0) AS weighted_us,
        power({1 - WEIGHT}::float8, least(coalesce(cardinality(timed), 0), {NEGLIGIBLE_AFTER})) AS weight_left,
        timed[cardinality(timed)] AS first_duration_us,
        coalesce(array_position(kinds, {Kind.SUCCESS}::smallint) - 1, failures) AS failure_run,
        coalesce((
            SELECT array_agg((bucket::bigint << {COUNT_BITS}) + calls ORDER BY bucket)
            FROM (
                SELECT {bucket_of_duration("$4")} AS bucket, count(*) AS calls
                FROM unnest(timed) AS duration_us
                GROUP BY bucket
            ) AS bucketed
        ), '{{}}') AS durations,
        CASE WHEN types IS NOT NULL THEN (
            SELECT jsonb_object_agg(type, failures)
            FROM (SELECT type, count(*) AS failures FROM unnest(types) AS type GROUP BY type) AS typed
        ) END AS error_types
    FROM ordered
),
"""

_LONGER = f"""
WITH bucketed AS (
    SELECT user_id, {_STARTED_AT} AS started_at,
        CASE WHEN {_TIMED} THEN {bucket_of_duration("$4")} END AS bucket,
        count(*) AS calls,
        {_SUMS}
    {_OUTCOMES}
    GROUP BY 1, 2, 3
),
typed AS (
    SELECT user_id, started_at, jsonb_object_agg(error_type, failures) AS error_types
    FROM (
        SELECT user_id, {_STARTED_AT} AS started_at, error_type, count(*) AS failures
        {_OUTCOMES} AND kind = {Kind.FAILURE} AND error_type IS NOT NULL
        GROUP BY 1, 2, 3
    ) AS failure
    GROUP BY user_id, started_at
),
cumulated AS (
    SELECT *,
        (sum(calls) OVER (PARTITION BY user_id, started_at ORDER BY bucket))::bigint AS seen,
        (sum(calls) FILTER (WHERE bucket IS NOT NULL) OVER (PARTITION BY user_id, started_at))::bigint AS timed_calls
    FROM bucketed
),
summed AS (
    SELECT user_id, started_at, sum(successes)::bigint AS successes, sum(failures)::bigint AS failures,
        sum(refusals)::bigint AS refusals, {bounded("sum(duration_us)")}::bigint AS duration_us,
        coalesce(
            array_agg((bucket::bigint << {COUNT_BITS}) + calls ORDER BY bucket) FILTER (WHERE bucket IS NOT NULL), '{{}}'
        ) AS durations,
        {_QUANTILES}
    FROM cumulated
    GROUP BY user_id, started_at
),
counted AS MATERIALIZED (
    SELECT summed.*, error_types FROM summed LEFT JOIN typed USING (user_id, started_at)
),
"""

_FLEET = f"""
fleet AS (
    SELECT started_at, count(*) AS bots, sum(successes) AS successes, sum(failures) AS failures,
        sum(refusals) AS refusals, {bounded("sum(duration_us)")} AS duration_us
    FROM counted
    GROUP BY started_at
),
fleet_durations AS (
    SELECT started_at, array_agg((bucket << {COUNT_BITS}) + calls ORDER BY bucket) AS durations,
        {_QUANTILES}
    FROM (
        SELECT *,
            (sum(calls) OVER (PARTITION BY started_at ORDER BY bucket))::bigint AS seen,
            (sum(calls) OVER (PARTITION BY started_at))::bigint AS timed_calls
        FROM (
            SELECT started_at, element >> {COUNT_BITS} AS bucket, sum(element & {COUNT_MASK})::bigint AS calls
            FROM counted CROSS JOIN unnest(durations) AS element
            GROUP BY 1, 2
        ) AS bucketed
    ) AS cumulated
    GROUP BY started_at
),
fleet_types AS (
    SELECT started_at, jsonb_object_agg(type, failures) AS error_types
    FROM (
        SELECT started_at, type.key AS type, sum(type.value::bigint) AS failures
        FROM counted CROSS JOIN jsonb_each_text(error_types) AS type
        GROUP BY 1, 2
    ) AS typed
    GROUP BY started_at
),
"""

_STORE = """
stored AS (
    INSERT INTO {table} AS old (user_id, started_at, drops, {counted})
    SELECT user_id, started_at, $3, {counted} FROM counted ORDER BY user_id, started_at
    ON CONFLICT (user_id, started_at, drops) DO UPDATE SET ({counted}) = ({new})
    WHERE ({old}) IS DISTINCT FROM ({new})
    RETURNING 1
),
gone AS (
    DELETE FROM {table} AS old
    WHERE started_at >= $1 AND started_at < $2 AND drops = $3 AND NOT EXISTS (
        SELECT FROM counted WHERE counted.user_id = old.user_id AND counted.started_at = old.started_at
    )
    RETURNING 1
),
fleet_stored AS (
    INSERT INTO fleet_rollups AS old (bucket, started_at, drops, {counted_fleet})
    SELECT {bucket}, started_at, $3, bots, successes, failures, refusals, duration_us, coalesce(timed_calls, 0), p50_us,
        p95_us, p99_us, coalesce(durations, '{{}}'), error_types
    FROM fleet LEFT JOIN fleet_durations USING (started_at) LEFT JOIN fleet_types USING (started_at)
    ON CONFLICT (bucket, started_at, drops) DO UPDATE SET ({counted_fleet}) = ({new_fleet})
    WHERE ({old_fleet}) IS DISTINCT FROM ({new_fleet})
),
fleet_gone AS (
    DELETE FROM fleet_rollups AS old
    WHERE bucket = {bucket} AND started_at >= $1 AND started_at < $2 AND drops = $3
        AND NOT EXISTS (SELECT FROM fleet WHERE fleet.started_at = old.started_at)
)
SELECT (SELECT count(*) FROM stored) + (SELECT count(*) FROM gone)
"""

_COUNTED: Final = ("refusals", "duration_us", "successes", "failures", "durations", "error_types")
_WORKED_OUT: Final = ("timed_calls", "p50_us", "p95_us", "p99_us")
_IN_ORDER: Final = ("weighted_us", "weight_left", "first_duration_us", "failure_run")
_COUNTED_FLEET: Final = (
    "bots",
    "successes",
    "failures",
    "refusals",
    "duration_us",
    *_WORKED_OUT,
    "durations",
    "error_types",
)


def count_statement(table: str, bucket: int, *, in_order: bool) -> str:
    """Write the statement that counts a span of outcomes, stores what differs, and tells how many rows did.

    in_order: whether the table has what depends on the order of the calls, and so no quantiles.
    """
    counted = _COUNTED + (_IN_ORDER if in_order else _WORKED_OUT)
    store = _STORE.format(
        table=table,
        bucket=bucket,
        counted=", ".join(counted),
        old=_of("old", counted),
        new=_of("excluded", counted),
        counted_fleet=", ".join(_COUNTED_FLEET),
        old_fleet=_of("old", _COUNTED_FLEET),
        new_fleet=_of("excluded", _COUNTED_FLEET),
    )
    return (_MINUTES if in_order else _LONGER) + _FLEET + store


def _of(row: str, columns: tuple[str, ...]) -> str:
    return ", ".join(f"{row}.{column}" for column in columns)
