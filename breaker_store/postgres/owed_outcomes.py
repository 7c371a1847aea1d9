"""What a breaker's state owes to outcomes that are about to be dropped.

It is worked out as a check of the whole record would: by folding what would be left. So also a success counts that ended
a run which was carried over: without it, the run would be there again.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Final

from breaker_store.core.events import CircuitState, Kind, Transition
from breaker_store.core.rebuild import rebuild_from
from breaker_store.core.state import BreakerState
from breaker_store.ports import StoredBreaker
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.stored_events import read_outcome, read_transition

_CHAIN: Final = """
SELECT * FROM breaker_transitions WHERE user_id = $1 AND position IS NOT NULL ORDER BY version DESC LIMIT 5
"""

_COUNTED: Final = """
FROM breaker_outcomes
WHERE user_id = $1 AND generation = $2 AND era = $3 AND verdict = 0 AND occurred_at >= $4
"""
_LAST_SUCCESS: Final = f"SELECT occurred_at {_COUNTED} AND kind = 1 ORDER BY occurred_at DESC LIMIT 1"
_OUTCOMES: Final = f"SELECT * {_COUNTED} AND kind IN (1, 2)"


async def owes_to_outcomes_before(connection: Connection, stored: StoredBreaker, day: date) -> bool:
    """Tell whether a breaker's count would be another one without the outcomes of before a day (UTC)."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        left = await _fold(connection, stored, datetime.combine(day, time(), UTC))
    return _count(left) != _count(stored.state)


async def _fold(connection: Connection, stored: StoredBreaker, since: datetime) -> BreakerState:
    state = stored.state
    chain: list[Transition] = []
    for row in await connection.fetch(_CHAIN, stored.user_id):
        chain.insert(0, read_transition(row).transition)
        if chain[0].kind is not Kind.UNRECOGNIZED:
            break
    count = stored.user_id, state.generation, state.era
    if state.state is CircuitState.CLOSED:
        # What came before it means nothing; there may be very many.
        since = await connection.fetchval(_LAST_SUCCESS, *count, since) or since
    rows = await connection.fetch(_OUTCOMES, *count, since)
    return rebuild_from(state.policy, chain, map(read_outcome, rows))


def _count(state: BreakerState) -> tuple[object, ...]:
    failures = tuple(failure.event_id for failure in state.failures)
    return state.failure_count, failures, state.success_count
