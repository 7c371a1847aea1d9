"""The check of breakers' rows against their last transition, and of the counts: how often they tripped, how many are open.

The fold takes a breaker that is not closed from its last transition, whatever its row says; lists and restarts read the
row. So its columns are compared with the transitions directly.
"""

from __future__ import annotations

import json
from typing import Final

from breaker_store.core.policy import Policy
from breaker_store.postgres.codec import DETAILS_VERSION, iso_sql
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.findings import Findings
from breaker_store.postgres.stored_events import read_policy

# Times are compared as texts: what no version writes is then another text, and not an error. The rules of a breaker
# without a transition are those of the process that made its row: no event has them. Details of a newer version are not
# looked into. Of a closed breaker the last failure is for the fold.
_DIFFERENT: Final = f"""
WITH chain AS (
    SELECT DISTINCT ON (user_id)
        user_id, version, generation, era, occurred_at, writer_id, writer_seq,
        CASE WHEN details_version <= {DETAILS_VERSION} THEN details END AS details
    FROM breaker_transitions
    WHERE position IS NOT NULL
    ORDER BY user_id, version DESC
), tripped AS (
    SELECT
        user_id, count(*) AS trips,
        (array_agg(details #>> '{{causes,-1,error_type}}' ORDER BY version DESC))[1] AS trip_error
    FROM breaker_transitions
    WHERE position IS NOT NULL AND is_trip(kind, details)
    GROUP BY user_id
), told AS (
    SELECT
        *, details IS NOT NULL AS is_readable,
        CASE details ->> 'to' WHEN 'open' THEN 1 WHEN 'half_open' THEN 2 ELSE 0 END AS state,
        coalesce(details ->> 'forced' = 'true', false) AS forced,
        coalesce(details ? 'suspension', false) AS suspended,
        coalesce(details ->> 'policy_is_own' = 'true', false) AS policy_is_own
    FROM chain
    FULL JOIN tripped USING (user_id)
)
SELECT * FROM (
    SELECT
        row.user_id, row.policy,
        CASE WHEN details -> 'policy' <> coalesce(row.policy, $1::jsonb) THEN details -> 'policy' END AS told_policy,
        array_remove(ARRAY[
            CASE WHEN is_readable IS NOT FALSE AND row.state <> coalesce(told.state, 0) THEN 'state' END,
            CASE WHEN row.version <> coalesce(told.version, 0) THEN 'version' END,
            CASE WHEN row.generation <> coalesce(told.generation, 0) THEN 'generation' END,
            CASE WHEN row.era <> coalesce(told.era, 0) THEN 'era' END,
            CASE WHEN row.since IS DISTINCT FROM told.occurred_at THEN 'since' END,
            CASE
                WHEN (row.last_writer_id, row.last_writer_seq) IS DISTINCT FROM (told.writer_id, told.writer_seq)
                THEN 'last_transition'
            END,
            CASE WHEN is_readable IS NOT FALSE AND {iso_sql("row.opened_at")} IS DISTINCT FROM details ->> 'opened_at' THEN 'opened_at' END,
            CASE WHEN is_readable IS NOT FALSE AND {iso_sql("row.retry_at")} IS DISTINCT FROM details ->> 'retry_at' THEN 'retry_at' END,
            CASE WHEN is_readable IS NOT FALSE AND row.forced <> coalesce(told.forced, false) THEN 'forced' END,
            CASE WHEN is_readable IS NOT FALSE AND row.suspended <> coalesce(told.suspended, false) THEN 'suspended' END,
            CASE WHEN is_readable IS NOT FALSE AND row.policy_is_own <> coalesce(told.policy_is_own, false) THEN 'policy_is_own' END,
            CASE
                WHEN row.state <> 0 AND is_readable IS NOT FALSE
                    AND row.last_failure IS DISTINCT FROM nullif(details -> 'last_failure', 'null')
                    OR NOT row.last_failure ?& ARRAY['id', 'at', 'error_type', 'error_message', 'operation', 'duration_us']
                THEN 'last_failure'
            END,
            CASE WHEN row.trips <> coalesce(told.trips, 0) THEN 'trips' END,
            CASE WHEN row.trip_error IS DISTINCT FROM told.trip_error THEN 'trip_error' END
        ], NULL) AS columns
    FROM breaker_states AS row
    LEFT JOIN told USING (user_id)
) AS compared
WHERE columns <> '{{}}' OR told_policy IS NOT NULL
ORDER BY user_id
"""

_COUNTS: Final = """
SELECT
    count(*) AS breakers, count(*) FILTER (WHERE state = 1) AS open_breakers,
    count(*) FILTER (WHERE state = 2) AS half_open_breakers,
    count(*) FILTER (WHERE suspended) AS suspended_breakers
FROM breaker_states
"""
_KEPT_COUNTS: Final = (
    "SELECT breakers, open_breakers, half_open_breakers, suspended_breakers FROM log_position"
)


async def check_rows(connection: Connection, findings: Findings) -> int:
    """Compare rows and counts, within the caller's snapshot; tell how many breakers there are."""
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
    return await _check_counts(connection, findings)


async def _check_counts(connection: Connection, findings: Findings) -> int:
    counted = await connection.fetchrow(_COUNTS)
    kept = await connection.fetchrow(_KEPT_COUNTS)
    for name, count in counted.items():
        if kept[name] != count:
            what = name.replace("_", " ").replace("half open", "half-open")
            findings.add(f"there are {count} {what}, and the log's count of them says {kept[name]}")
    breakers: int = counted["breakers"]
    return breakers
