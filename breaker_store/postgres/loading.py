"""From stored rows to breakers: one of them, or all of them at start-up.

Rows of breakers that are closed and clean are taken as they are. For the others the chain's last transition is read,
and the failures since the last success are folded. All of it is read in one snapshot, so that the follower can go on
from its position and miss nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import asyncpg

from breaker_store.core.events import CircuitState, EventId, Kind, Outcome, Transition
from breaker_store.core.policy import Policy
from breaker_store.core.rebuild import rebuild_from
from breaker_store.core.state import BreakerState, evolve
from breaker_store.ports import StoredBreaker
from breaker_store.postgres.codec import STATES, microseconds
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.stored_events import read_failure, read_outcome, read_policy, read_transition

logger = logging.getLogger(__name__)

# Breakers of which nothing is known but that they exist: one array is far faster to read than rows.
_UNTOUCHED = """
SELECT array_agg(user_id) FROM breaker_states
WHERE state = 0 AND tail_from IS NULL AND version = 0 AND last_failure IS NULL AND NOT policy_is_own
"""

_CLEAN = """
SELECT user_id, version, last_writer_id, last_writer_seq, generation, era, since, last_failure, policy, policy_is_own
FROM breaker_states
WHERE state = 0 AND tail_from IS NULL AND (version > 0 OR last_failure IS NOT NULL OR policy_is_own)
"""

# For a breaker that is open or half-open its newest transitions, of which the last may be one that only a newer
# version can read; for a closed one the failures since the last success, or since the bound `tail_from` if there is
# none, so that only the partitions needed are opened. One whose count was carried over has both.
_UNSETTLED = """
SELECT
    state.user_id, state.state, state.version, state.last_writer_id, state.last_writer_seq, state.generation, state.era,
    state.since, state.success_count, state.last_failure, state.policy, state.policy_is_own, state.tail_until,
    (extract(epoch FROM state.retry_at - clock_timestamp()) * 1000000)::bigint AS remaining_us,
    CASE WHEN state.state <> 0 OR (state.failure_count > 0 AND state.tail_from IS NOT NULL) THEN ARRAY(
        SELECT transition
        FROM breaker_transitions AS transition
        WHERE transition.user_id = state.user_id AND transition.position IS NOT NULL
        ORDER BY transition.version DESC
        LIMIT 5
    ) END AS newest,
    counted.failure
FROM breaker_states AS state
LEFT JOIN LATERAL (
    SELECT outcome AS failure
    FROM breaker_outcomes AS outcome
    WHERE outcome.user_id = state.user_id
        AND outcome.occurred_at >= greatest(state.tail_from, (
            SELECT success.occurred_at
            FROM breaker_outcomes AS success
            WHERE success.user_id = state.user_id
                AND success.occurred_at >= state.tail_from
                AND success.kind = 1 AND success.verdict = 0
                AND success.generation = state.generation AND success.era = state.era
            ORDER BY success.occurred_at DESC
            LIMIT 1
        ))
        AND outcome.kind IN (1, 2) AND outcome.verdict = 0
        AND outcome.generation = state.generation AND outcome.era = state.era
        AND state.state = 0 AND state.tail_from IS NOT NULL
    OFFSET 0  -- a fence: flattened into a hash join, it would read every outcome that the user ever had
) AS counted ON true
"""

_ALL_UNSETTLED = f"{_UNSETTLED} WHERE state.state <> 0 OR state.tail_from IS NOT NULL ORDER BY state.user_id"
_ONE = f"{_UNSETTLED} WHERE state.user_id = $1"
_SOME = f"{_UNSETTLED} WHERE state.user_id = ANY ($1::bigint[]) ORDER BY state.user_id"

# What a transition's columns tell of the row, by one look-up for each row: there may be very many transitions.
_CONTRADICTIONS = """
SELECT state.user_id,
    (state.state, state.version, state.generation, state.era, state.last_writer_id, state.last_writer_seq)::text AS row,
    (chain.state, chain.version, chain.generation, chain.era, chain.writer_id, chain.writer_seq)::text AS chain
FROM breaker_states AS state
LEFT JOIN LATERAL (
    SELECT version, generation, era, writer_id, writer_seq,
        CASE WHEN kind IN (10, 14, 17) THEN 1 WHEN kind = 11 THEN 2 WHEN kind IN (12, 13, 15, 18) THEN 0 END AS state,
        CASE WHEN kind IN (14, 17) THEN true WHEN kind IN (10, 11, 12, 13, 15, 18) THEN false END AS forced,
        CASE WHEN kind = 17 THEN true WHEN kind IN (10, 11, 12, 13, 14, 15, 18) THEN false END AS suspended
    FROM breaker_transitions
    WHERE user_id = state.user_id AND position IS NOT NULL
    ORDER BY version DESC
    LIMIT 1
) AS chain ON true
WHERE (state.version, state.generation, state.era, state.last_writer_id, state.last_writer_seq)
    IS DISTINCT FROM (
        coalesce(chain.version, 0), coalesce(chain.generation, 0), coalesce(chain.era, 0),
        chain.writer_id, chain.writer_seq
    )
    OR state.state <> CASE WHEN chain.version IS NULL THEN 0 ELSE coalesce(chain.state, state.state) END
    OR state.forced <> CASE WHEN chain.version IS NULL THEN false ELSE coalesce(chain.forced, state.forced) END
    OR state.suspended <> CASE
        WHEN chain.version IS NULL THEN false ELSE coalesce(chain.suspended, state.suspended)
    END
"""

# Rows of closed breakers that count nothing any more: another process ended what this one's predecessor began. Every
# failure moves tail_until, so an unchanged one says that none came since it was read.
_TIDY = """
WITH tidy AS (
    SELECT state.user_id
    FROM breaker_states AS state
    JOIN unnest($1::bigint[], $2::timestamptz[]) AS read (user_id, tail_until) USING (user_id)
    WHERE state.state = 0 AND state.tail_until = read.tail_until
    ORDER BY state.user_id
    FOR UPDATE OF state SKIP LOCKED
)
UPDATE breaker_states SET tail_from = NULL, tail_until = NULL, tail_writer = NULL
FROM tidy
WHERE breaker_states.user_id = tidy.user_id
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All breakers as of one moment, on the database's clock.

    Attributes:
        untouched: users whose breaker is in its first state.
        clean: rows of the other breakers that are closed and count nothing, for `read_clean`.
        breakers: all the others.
        position: of the last transition that the snapshot holds.

    """

    untouched: list[int]
    clean: list[asyncpg.Record]
    breakers: list[StoredBreaker]
    position: int


async def read_breaker(connection: Connection, user_id: int, policy: Policy | None) -> StoredBreaker | None:
    """Give one breaker, or None if nothing of this user is stored.

    `policy` holds where the user has none of their own; None leaves it at the one that was last in force.
    """
    rows = await connection.fetch(_ONE, user_id)
    return _read_unsettled(rows, policy or read_policy(rows[0]["policy"])) if rows else None


async def read_all(connection: Connection, policy: Policy) -> Snapshot:
    contradictions = await connection.fetch(_CONTRADICTIONS)
    for contradiction in contradictions:
        await _put_right(connection, contradiction)
    if contradictions:
        await connection.execute("SELECT recount_breakers()")
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        position = await connection.fetchval("SELECT last FROM log_position")
        untouched = await connection.fetchval(_UNTOUCHED) or []
        clean = await connection.fetch(_CLEAN)
        unsettled = await connection.fetch(_ALL_UNSETTLED)
    breakers = _read_unsettled_breakers(unsettled, policy)
    await _tidy_rows(connection, unsettled, breakers)
    return Snapshot(untouched, clean, breakers, position)


async def read_some(connection: Connection, user_ids: Sequence[int], policy: Policy) -> list[StoredBreaker]:
    """Give what the rows say of some breakers; those that have none are left out."""
    return _read_unsettled_breakers(await connection.fetch(_SOME, user_ids), policy)


def _read_unsettled_breakers(unsettled: list[asyncpg.Record], policy: Policy) -> list[StoredBreaker]:
    by_user = groupby(unsettled, key=lambda row: row["user_id"])
    return [_read_unsettled(list(rows), policy) for _, rows in by_user]


async def _tidy_rows(
    connection: Connection, unsettled: list[asyncpg.Record], breakers: list[StoredBreaker]
) -> None:
    calm = {breaker.user_id for breaker in breakers if breaker.state.calm}
    found = {row["user_id"]: row["tail_until"] for row in unsettled if row["user_id"] in calm}
    if found:
        await connection.execute(_TIDY, list(found), list(found.values()))


def read_clean(row: asyncpg.Record, policy: Policy) -> StoredBreaker:
    """Read one of a snapshot's clean rows."""
    return StoredBreaker(row["user_id"], _closed_state(row, policy), None)


def _closed_state(row: asyncpg.Record, policy: Policy) -> BreakerState:
    is_own = row["policy_is_own"]
    since = row["since"]
    return BreakerState(
        policy=read_policy(row["policy"]) if is_own else policy,
        policy_is_own=is_own,
        version=row["version"],
        last_transition=EventId(row["last_writer_id"], row["last_writer_seq"]) if row["version"] else None,
        generation=row["generation"],
        era=row["era"],
        last_failure=read_failure(row["last_failure"]),
        since=None if since is None else microseconds(since),
    )


def _read_unsettled(rows: list[asyncpg.Record], policy: Policy) -> StoredBreaker:
    row = rows[0]
    if STATES[row["state"]] is CircuitState.CLOSED:
        state = _closed_state(row, policy) if row["newest"] is None else _state_of_chain(row, policy)
        for outcome in sorted(_failures(rows), key=lambda outcome: (outcome.at, outcome.event_id)):
            state = evolve(state, outcome)
        return StoredBreaker(row["user_id"], state, None)
    state = replace(_state_of_chain(row, policy), success_count=row["success_count"])
    return StoredBreaker(row["user_id"], state, row["remaining_us"])


def _state_of_chain(row: asyncpg.Record, policy: Policy) -> BreakerState:
    """Give the state with which a breaker's count begins: from the last transition that can be read."""
    chain: list[Transition] = []
    for stored in row["newest"]:
        chain.insert(0, read_transition(stored).transition)
        if chain[0].kind is not Kind.UNRECOGNIZED:
            break
        logger.error("breaker %s: %s", row["user_id"], chain[0].reason)
    return rebuild_from(policy, chain, ())


def _failures(rows: list[asyncpg.Record]) -> list[Outcome]:
    return [read_outcome(row["failure"]) for row in rows if row["failure"] is not None]


async def _put_right(connection: Connection, contradiction: Mapping[str, Any]) -> None:
    """Make a breaker's row say what its chain says: the chain is the record, the row is a copy."""
    logger.error(
        "the row of breaker %s is put right by the log: (state, version, generation, era, last transition) was %s "
        "and the last transition says %s",
        contradiction["user_id"],
        contradiction["row"],
        contradiction["chain"],
    )
    await connection.execute("SELECT restore_breaker_state($1)", contradiction["user_id"])
