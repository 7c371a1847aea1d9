"""The statements by which the facts of an explanation are read, and their bounds."""

from __future__ import annotations

from typing import Final

from breaker_store.core.events import BY_HAND, ENDINGS, TROUBLES, Kind
from breaker_store.postgres.stored_events import list_kinds

ROWS_EACH_WAY: Final = 20_000
"""How many transitions of all breakers are looked at before a trip, after it, and in the hour before both."""

ENDINGS_LIMIT: Final = 1_000
"""How many of a breaker's recoveries are looked at for how its trips recur."""

OUTCOMES_LIMIT: Final = 20_000
"""How many outcomes after an opening are counted, and how many before it are searched for a success."""

REOPENINGS_LIMIT: Final = 10_000
"""How many transitions after an opening are searched for reopenings."""

ANY_VERSION: Final = 2**31 - 1
_ENDINGS: Final = list_kinds(ENDINGS)
_TROUBLES: Final = list_kinds(TROUBLES)

# Every statement here is served by an index and stops early; one of a fleet that is in trouble right now is planned with
# statistics of a time when it was well, and a scan of a whole day would look cheaper.
BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"

NOW = "SELECT clock_timestamp()"

COUNT_BREAKERS = "SELECT breakers FROM log_position"

BY_VERSION = """
SELECT * FROM breaker_transitions WHERE user_id = $1 AND position IS NOT NULL AND version = ANY($2::integer[])
"""

# The newest opening up to a version, back to the first one after the breaker was last well, unless it was opened by
# hand; the ending of the trouble before that, which may be followed by more of them that ended nothing, and the one that
# followed. By kinds alone, which the index holds: details may be long.
EPISODE = f"""
WITH chain AS NOT MATERIALIZED (
    SELECT version, kind FROM breaker_transitions WHERE user_id = $1 AND position IS NOT NULL
), newest AS (
    SELECT version, kind FROM chain
    WHERE version <= $2 AND kind IN ({_TROUBLES})
    ORDER BY version DESC LIMIT 1
), origin AS (
    SELECT CASE WHEN newest.kind IN ({list_kinds(BY_HAND)}) THEN newest.version ELSE (
        SELECT version FROM chain
        WHERE kind IN ({_TROUBLES}) AND version > coalesce((
            SELECT version FROM chain
            WHERE version < newest.version AND kind IN ({_ENDINGS})
            ORDER BY version DESC LIMIT 1
        ), 0)
        ORDER BY version LIMIT 1
    ) END AS version
    FROM newest
)
SELECT
    origin.version AS origin,
    (
        SELECT version FROM chain
        WHERE version < origin.version AND kind IN ({_ENDINGS}) AND version > (
            SELECT version FROM chain
            WHERE version < origin.version AND kind IN ({_TROUBLES})
            ORDER BY version DESC LIMIT 1
        )
        ORDER BY version LIMIT 1
    ) AS ending_before,
    (
        SELECT version FROM chain
        WHERE version > origin.version AND kind IN ({_ENDINGS}) ORDER BY version LIMIT 1
    ) AS ending
FROM origin
"""

REOPENINGS = f"""
SELECT count(*) FILTER (WHERE kind = {int(Kind.OPENED)}) AS reopened, count(*) AS looked_at
FROM (
    SELECT kind FROM breaker_transitions
    WHERE user_id = $1 AND position IS NOT NULL AND version > $2 AND version < $3
    ORDER BY version LIMIT {REOPENINGS_LIMIT}
) AS after
"""

# Any of them, not the first: a plan made for no user in particular would sort all that there are.
OUTCOMES_AFTER = f"""
SELECT
    coalesce(sum(count) FILTER (WHERE kind = 3), 0)::bigint AS refused,
    count(*) FILTER (WHERE kind IN (1, 2) AND verdict = 2) AS would_be_refused,
    count(*) FILTER (WHERE kind = 1 AND verdict = 0 AND probe IS NOT NULL) AS probes_succeeded,
    count(*) FILTER (WHERE kind = 2 AND verdict = 0 AND probe IS NOT NULL) AS probes_failed,
    count(*) AS looked_at
FROM (
    SELECT kind, verdict, probe, count FROM breaker_outcomes
    WHERE user_id = $1 AND occurred_at >= $2 AND occurred_at <= $3
    LIMIT {OUTCOMES_LIMIT}
) AS after
"""

IS_SUCCESS = "kind = 1 AND (verdict <> 1 OR error_type IS NULL)"
"""That an outcome is a success to speak of; see `Outcome.is_success`."""

LAST_SUCCESS = f"""
SELECT * FROM (
    SELECT occurred_at, writer_id, writer_seq, kind, verdict, error_type, operation, duration_us FROM breaker_outcomes
    WHERE user_id = $1 AND occurred_at <= $2
    ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC LIMIT {OUTCOMES_LIMIT}
) AS before
WHERE {IS_SUCCESS}
ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC
LIMIT 1
"""

HAS_MORE = f"""
SELECT EXISTS (
    SELECT FROM breaker_outcomes
    WHERE user_id = $1 AND occurred_at <= $2
    ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC OFFSET {OUTCOMES_LIMIT} LIMIT 1
)
"""

FIRST_EVENT = """
SELECT least(
    (SELECT occurred_at FROM breaker_outcomes WHERE user_id = $1 ORDER BY occurred_at LIMIT 1),
    (SELECT occurred_at FROM breaker_transitions WHERE user_id = $1 ORDER BY occurred_at LIMIT 1)
)
"""

# How far the window reaches: to its end, or to the transition that is the last to be looked at.
REACH = f"""
SELECT
    coalesce((
        SELECT occurred_at FROM breaker_transitions
        WHERE occurred_at <= $1 AND occurred_at >= $2
        ORDER BY occurred_at DESC OFFSET {ROWS_EACH_WAY} LIMIT 1
    ), $2) AS since,
    coalesce((
        SELECT occurred_at FROM breaker_transitions
        WHERE occurred_at > $1 AND occurred_at <= $3
        ORDER BY occurred_at OFFSET {ROWS_EACH_WAY} LIMIT 1
    ), $3) AS until
"""

# The order and the fence keep the planner to the index by time: others hold the columns too, and it would go through
# one of them as a whole.
_TRIPS = f"""
SELECT user_id, details #>> '{{causes,-1,error_type}}' AS error_type
FROM (
    SELECT user_id, kind, position, details FROM breaker_transitions
    WHERE occurred_at >= $1 AND occurred_at <= $2
    ORDER BY occurred_at OFFSET 0
) AS near
WHERE kind = {int(Kind.OPENED)} AND position IS NOT NULL AND user_id <> $3 AND details ->> 'from' = 'closed'
"""

# The whole has no error of its own, but is not to be taken for those whose error has no type.
AROUND = f"""
SELECT grouping(error_type) = 1 AS is_whole, error_type, count(DISTINCT user_id) AS breakers
FROM ({_TRIPS}) AS trips
GROUP BY GROUPING SETS ((error_type), ())
ORDER BY is_whole DESC, error_type = ANY($4::text[]) DESC NULLS LAST, breakers DESC, error_type
LIMIT 60
"""

SAME_BEFORE = f"SELECT count(DISTINCT user_id) FROM ({_TRIPS}) AS trips WHERE error_type = $4"

# The endings, and the first opening after each. What is between, a probe and a reopening a minute of a bot that stays
# broken, is passed by.
STEPS = f"""
WITH ending AS MATERIALIZED (
    SELECT version FROM breaker_transitions
    WHERE user_id = $1 AND position IS NOT NULL AND version <= $2 AND kind IN ({_ENDINGS})
    ORDER BY version DESC LIMIT {ENDINGS_LIMIT + 1}
), beginning AS (
    SELECT version, lead(version, 1, $2) OVER (ORDER BY version) AS up_to FROM (
        SELECT version FROM ending
        UNION ALL
        SELECT 0 WHERE (SELECT count(*) FROM ending) <= {ENDINGS_LIMIT}
    ) AS first
), opening AS (
    SELECT (
        SELECT version FROM breaker_transitions
        WHERE user_id = $1 AND position IS NOT NULL AND kind IN ({_TROUBLES})
            AND version > beginning.version AND version <= beginning.up_to
        ORDER BY version LIMIT 1
    ) AS version
    FROM beginning
), step AS MATERIALIZED (
    SELECT version FROM ending UNION SELECT version FROM opening
)
SELECT kind, occurred_at FROM breaker_transitions
WHERE user_id = $1 AND position IS NOT NULL AND version = ANY(ARRAY(SELECT version FROM step))
ORDER BY version
"""
