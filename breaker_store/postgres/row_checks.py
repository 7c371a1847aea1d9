"""The check of what is kept of breakers beside their state: waits, rules, trips, and how many are open.

The fold does not need these columns, since the last transition has them; lists and restarts read them. So they are
compared with the transitions directly.
"""

from __future__ import annotations

import json
from typing import Final

from breaker_store.core.policy import Policy
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.findings import Findings
from breaker_store.postgres.stored_events import read_policy

# The rules of a breaker without a transition are those of the process that made its row: no event has them.
_DIFFERENT: Final = """
WITH chain AS (
    SELECT DISTINCT ON (user_id) user_id, details FROM breaker_transitions
    WHERE position IS NOT NULL
    ORDER BY user_id, version DESC
), tripped AS (
    SELECT
        user_id, count(*) AS trips,
        (array_agg(details #>> '{causes,-1,error_type}' ORDER BY version DESC))[1] AS trip_error
    FROM breaker_transitions
    WHERE position IS NOT NULL AND is_trip(kind, details)
    GROUP BY user_id
)
SELECT * FROM (
    SELECT
        state.user_id, state.policy,
        CASE WHEN details -> 'policy' <> coalesce(state.policy, $1::jsonb) THEN details -> 'policy' END AS told_policy,
        array_remove(ARRAY[
            CASE WHEN state.opened_at IS DISTINCT FROM (details ->> 'opened_at')::timestamptz THEN 'opened_at' END,
            CASE WHEN state.retry_at IS DISTINCT FROM (details ->> 'retry_at')::timestamptz THEN 'retry_at' END,
            CASE WHEN state.forced <> coalesce((details ->> 'forced')::boolean, false) THEN 'forced' END,
            CASE WHEN state.trips <> coalesce(tripped.trips, 0) THEN 'trips' END,
            CASE WHEN state.trip_error IS DISTINCT FROM tripped.trip_error THEN 'trip_error' END
        ], NULL) AS columns
    FROM breaker_states AS state
    LEFT JOIN chain USING (user_id)
    LEFT JOIN tripped USING (user_id)
) AS compared
WHERE columns <> '{}' OR told_policy IS NOT NULL
ORDER BY user_id
"""

_COUNTS: Final = """
SELECT
    count(*) AS breakers, count(*) FILTER (WHERE state = 1) AS open_breakers,
    count(*) FILTER (WHERE state = 2) AS half_open_breakers
FROM breaker_states
"""
_KEPT_COUNTS: Final = "SELECT breakers, open_breakers, half_open_breakers FROM log_position"


async def check_rows(connection: Connection, findings: Findings) -> None:
    """Compare the columns with the transitions, within the caller's snapshot."""
    default = json.dumps(Policy().to_document())
    for row in await connection.fetch(_DIFFERENT, default):
        different = list(row["columns"])
        # Of an older version the document may be another one for the same rules.
        if row["told_policy"] is not None and read_policy(row["policy"]) != read_policy(row["told_policy"]):
            different.append("policy")
        if different:
            findings.add(
                f"the breaker of user {row['user_id']} is not what its events say: {', '.join(different)}"
            )


async def check_counts(connection: Connection, findings: Findings) -> int:
    """Compare the kept counts with the rows; tell how many breakers there are."""
    counted = await connection.fetchrow(_COUNTS)
    kept = await connection.fetchrow(_KEPT_COUNTS)
    for name, count in counted.items():
        if kept[name] != count:
            what = name.replace("_", " ").replace("half open", "half-open")
            findings.add(f"there are {count} {what}, and the log's count of them says {kept[name]}")
    breakers: int = counted["breakers"]
    return breakers
