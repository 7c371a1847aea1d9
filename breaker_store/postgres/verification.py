"""The check that the breakers' rows say what their events say (DESIGN rule 14): everything is folded again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import asyncpg

from breaker_store.core.events import FIRST_TRANSITION_KIND, StoredEvent
from breaker_store.core.policy import Policy
from breaker_store.core.rebuild import rebuild
from breaker_store.core.state import BreakerState
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.loading import read_states
from breaker_store.postgres.stored_events import is_known_kind, read_outcome, read_transition

ROWS_AT_ONCE = 5_000

_EVERYTHING = "SELECT * FROM breaker_events ORDER BY user_id, occurred_at, writer_id, writer_seq"


class Contradiction(NamedTuple):
    """A breaker whose row does not say what its events say; `stored` is None if it has no row."""

    user_id: int
    stored: BreakerState | None
    folded: BreakerState


async def find_contradictions(connection: Connection, policy: Policy) -> AsyncIterator[Contradiction]:
    """Fold every event of every user, in one snapshot, and give the breakers whose row says otherwise.

    Memory holds all breakers' states and one user's events at a time. `policy` holds where a user has none.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        stored = await read_states(connection, policy)
        async for user_id, events in _events_by_user(connection):
            folded = rebuild(policy, events)
            if stored.get(user_id) != folded:
                yield Contradiction(user_id, stored.get(user_id), folded)


async def _events_by_user(connection: Connection) -> AsyncIterator[tuple[int, list[StoredEvent]]]:
    user_id: int | None = None
    events: list[StoredEvent] = []
    async for row in connection.cursor(_EVERYTHING, prefetch=ROWS_AT_ONCE):
        if row["user_id"] != user_id:
            if user_id is not None:
                yield user_id, events
            user_id, events = row["user_id"], []
        if is_known_kind(row["kind"]):
            events.append(_read_event(row))
    if user_id is not None:
        yield user_id, events


def _read_event(row: asyncpg.Record) -> StoredEvent:
    return read_outcome(row) if row["kind"] < FIRST_TRANSITION_KIND else read_transition(row).transition
