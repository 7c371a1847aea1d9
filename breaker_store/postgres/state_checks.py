"""The check that the breakers' rows say what their events say (DESIGN rule 14).

The server finds out for which breakers there is anything to fold: those that are not closed, that have a failure after
their last success, or whose row is not word for word what the last transition and the last failure say. These are
folded here by the core, from the events that can matter: the end of the chain, and the outcomes of its count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from breaker_store.core.events import FIRST_TRANSITION_KIND, Kind, StoredEvent
from breaker_store.core.policy import Policy
from breaker_store.core.rebuild import rebuild
from breaker_store.core.state import BreakerState
from breaker_store.postgres.codec import to_datetime
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.findings import Findings
from breaker_store.postgres.loading import read_some
from breaker_store.postgres.outcome_days import DroppedDays
from breaker_store.postgres.stored_events import read_outcome, read_transition

_BREAKERS_AT_ONCE: Final = 500

# Of outcomes only the last failures are looked at, and what came after them: a success after another one means nothing.
# One of another count that is not plainly older is for the core to judge. Of the row's last failure the time is left
# out: it is the one by the clock of its process.
_TO_FOLD: Final = """
WITH counted AS MATERIALIZED (
    SELECT user_id, max(occurred_at) FILTER (WHERE kind = 2 AND verdict = 0) AS failure_at
    FROM breaker_outcomes
    GROUP BY user_id
), chain AS (
    SELECT DISTINCT ON (user_id) * FROM breaker_transitions
    WHERE position IS NOT NULL
    ORDER BY user_id, version DESC
)
SELECT user_id
FROM breaker_states AS state
FULL JOIN counted USING (user_id)
FULL JOIN chain USING (user_id)
LEFT JOIN LATERAL (
    SELECT
        (outcome.generation, outcome.era) = (state.generation, state.era) AS is_current,
        jsonb_build_object(
            'id', writer_id || '-' || writer_seq, 'error_type', error_type, 'error_message', error_message,
            'operation', operation, 'duration_us', duration_us
        ) || CASE WHEN trace_id IS NULL THEN '{}' ELSE jsonb_build_object('trace_id', trace_id) END AS document,
        EXISTS (
            SELECT FROM breaker_outcomes AS success
            WHERE success.user_id = state.user_id AND success.occurred_at > failure_at AND kind = 1 AND verdict = 0
                AND (success.generation, success.era) = (state.generation, state.era)
        ) AS is_over
    FROM breaker_outcomes AS outcome
    WHERE outcome.user_id = state.user_id AND occurred_at = failure_at AND kind = 2 AND verdict = 0
    ORDER BY writer_id DESC, writer_seq DESC
    LIMIT 1
) AS failure ON failure_at IS NOT NULL
WHERE state.version IS NULL
    OR state.state <> 0
    OR state.failure_count <> 0
    OR state.success_count <> 0
    OR (is_current AND NOT is_over)
    OR (NOT is_current AND failure_at > state.since - interval '1 h')
    OR chain.details ->> 'failure_count' <> '0'
    OR chain.details ->> 'to' <> 'closed'
    OR (state.version, state.generation, state.era, state.since, state.last_writer_id, state.last_writer_seq)
        IS DISTINCT FROM (
            coalesce(chain.version, 0), coalesce(chain.generation, 0), coalesce(chain.era, 0), chain.occurred_at,
            chain.writer_id, chain.writer_seq
        )
    OR state.policy_is_own IS DISTINCT FROM coalesce((chain.details ->> 'policy_is_own')::boolean, false)
    OR (state.policy_is_own AND state.policy IS DISTINCT FROM chain.details -> 'policy')
    OR state.last_failure - 'at' IS DISTINCT FROM coalesce(
        CASE WHEN is_current THEN failure.document END, nullif(chain.details -> 'last_failure', 'null') - 'at'
    )
ORDER BY user_id
"""

_VERSIONS: Final = """
SELECT user_id, count(*), max(version) FROM breaker_transitions
WHERE position IS NOT NULL
GROUP BY user_id
HAVING count(*) <> max(version)
ORDER BY user_id
"""

_EVENTS: Final = """
SELECT outcome.*
FROM unnest($1::bigint[]) AS wanted (user_id)
LEFT JOIN breaker_states AS state USING (user_id)
JOIN breaker_outcomes AS outcome
    ON outcome.user_id = wanted.user_id
        AND outcome.generation = coalesce(state.generation, 0) AND outcome.era = coalesce(state.era, 0)
WHERE outcome.kind IN (1, 2) AND outcome.verdict = 0
UNION ALL
SELECT chain.*
FROM unnest($1::bigint[]) AS wanted (user_id)
CROSS JOIN LATERAL (
    SELECT * FROM breaker_transitions
    WHERE breaker_transitions.user_id = wanted.user_id AND position IS NOT NULL
    ORDER BY version DESC
    LIMIT 5
) AS chain
ORDER BY version DESC NULLS LAST
"""


class Contradiction(NamedTuple):
    """A breaker whose row does not say what its events say; `stored` is None if it has no row."""

    user_id: int
    stored: BreakerState | None
    folded: BreakerState

    def __str__(self) -> str:
        if self.stored is None:
            return f"user {self.user_id} has events, and no breaker"
        different = [
            name
            for name in BreakerState.__dataclass_fields__
            if getattr(self.stored, name) != getattr(self.folded, name)
        ]
        return f"the breaker of user {self.user_id} is not what its events say: {', '.join(different)}"


async def check_states(
    connection: Connection,
    findings: Findings,
    dropped: DroppedDays,
    on_progress: Callable[[int, int | None], None],
) -> None:
    """Compare every breaker's row with its events, within the caller's snapshot."""
    for user_id, count, version in await connection.fetch(_VERSIONS):
        findings.add(f"user {user_id} has {count} transitions, and the last one is number {version}")
    async for contradiction in find_contradictions(connection, Policy(), on_progress):
        if not _is_excused(contradiction, dropped):
            findings.add(str(contradiction))


def _is_excused(contradiction: Contradiction, dropped: DroppedDays) -> bool:
    """Tell whether nothing is wrong: a day was dropped, or whoever was erased goes on and has been well since."""
    stored, folded = contradiction.stored, contradiction.folded
    if stored is None:
        return folded == BreakerState(folded.policy)
    if stored.last_failure is None or not dropped.lacks(to_datetime(stored.last_failure.at).date()):
        return False
    return replace(stored, last_failure=folded.last_failure) == folded


async def find_contradictions(
    connection: Connection,
    policy: Policy,
    on_progress: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> AsyncIterator[Contradiction]:
    """Give the breakers whose row says otherwise than their events, within the caller's snapshot.

    `policy` holds where a user has none.
    """
    to_fold = await connection.fetch(_TO_FOLD)
    for done in range(0, len(to_fold), _BREAKERS_AT_ONCE):
        user_ids = [row["user_id"] for row in to_fold[done : done + _BREAKERS_AT_ONCE]]
        stored = {each.user_id: each.state for each in await read_some(connection, user_ids, policy)}
        events = await _events_of(connection, user_ids)
        for user_id in user_ids:
            found, folded = stored.get(user_id), rebuild(policy, events[user_id])
            if found is None or _timeless(found) != _timeless(folded):
                yield Contradiction(user_id, found, folded)
        on_progress(min(done + _BREAKERS_AT_ONCE, len(to_fold)), len(to_fold))


async def _events_of(connection: Connection, user_ids: Sequence[int]) -> dict[int, list[StoredEvent]]:
    events: dict[int, list[StoredEvent]] = defaultdict(list)
    settled: set[int] = set()
    for row in await connection.fetch(_EVENTS, user_ids):
        user_id = row["user_id"]
        if row["kind"] < FIRST_TRANSITION_KIND:
            events[user_id].append(read_outcome(row))
        elif user_id not in settled:
            # Newest first: the last that this version knows is enough of the chain, with what follows it.
            transition = read_transition(row).transition
            events[user_id].append(transition)
            if transition.kind is not Kind.UNRECOGNIZED:
                settled.add(user_id)
    return events


def _timeless(state: BreakerState) -> BreakerState:
    return replace(state, last_failure=state.last_failure and replace(state.last_failure, at=0))
