"""What held at an instant, from the events alone: what a rebuild of all events up to it gives.

The last link of a breaker's chain up to the instant says in which state it was, and the outcomes up to then that were
counted under it say how far the count had come. Links are taken by their version: the clocks of two processes differ by
milliseconds, so a link may bear an earlier time than the one that it follows. For the same reason outcomes are looked
for from an hour before their count began.

What was still on its way from a process to the log is not known, and may change what held at a recent instant. Neither
is, at an instant before a user's first transition, the policy: shown is then the one that their program had last, or
the package's default.

How far back the log reaches is the matter of `horizon`. What happened before it is not guessed: also within the reach
a count that began before it, and was not ended by a success since, can't be told. The time of a last failure is that
of the last one that is kept, and a summary counts the breakers of which any event is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.events import CircuitState, Kind, Outcome, Transition
from breaker_store.core.policy import Policy
from breaker_store.core.rebuild import rebuild_from, stands_alone
from breaker_store.core.state import BreakerState
from breaker_store.errors import UnknownBreakerError
from breaker_store.ports import StoredBreaker
from breaker_store.postgres.codec import DETAILS_VERSION, microseconds, to_datetime
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.horizon import FutureError, check_count, check_horizon
from breaker_store.postgres.queries import IDS_LIMIT, Summary
from breaker_store.postgres.reading import driver_connection_of
from breaker_store.postgres.standing import Standing, describe, read_forced_opening
from breaker_store.postgres.stored_events import KNOWN_KINDS, read_outcome, read_policy, read_transition

logger = logging.getLogger(__name__)

_SLACK: Final = timedelta(hours=1)
"""By how much the clocks of two processes may differ; milliseconds is what they do."""

_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Before the first day that can have outcomes."""

_LINKS_AT_ONCE: Final = 4

_ROW = "SELECT policy, policy_is_own FROM breaker_states WHERE user_id = $1"

_CHAIN = """
SELECT
    user_id, writer_id, writer_seq, kind, occurred_at, version, generation, era, position, details, details_version
FROM breaker_transitions
WHERE user_id = $1 AND position IS NOT NULL AND occurred_at <= $2
ORDER BY version DESC
"""

# From the newest day backwards, and only until there is one.
_KNOWN = """
SELECT EXISTS (SELECT FROM breaker_transitions WHERE user_id = $1 AND occurred_at <= $2)
    OR (
        SELECT true FROM breaker_outcomes WHERE user_id = $1 AND occurred_at <= $2
        ORDER BY occurred_at DESC LIMIT 1
    ) IS NOT NULL
"""

_COUNTED = """
FROM breaker_outcomes
WHERE user_id = $1 AND generation = $2 AND era = $3 AND verdict = 0
    AND occurred_at >= $4 AND occurred_at <= $5
"""
_OUTCOMES = f"SELECT * {_COUNTED} AND kind IN (1, 2)"
_LAST_SUCCESS = f"SELECT occurred_at {_COUNTED} AND kind = 1 ORDER BY occurred_at DESC LIMIT 1"
_LAST_FAILURE = f"""
SELECT * {_COUNTED} AND kind = 2
ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC
LIMIT 1
"""

# For each breaker the last link that can be read; details, which are large, only where the kind does not say enough.
# Without a link, its newest outcome, or a transition that lost, tells that it was there.
_SUMMARY = f"""
WITH breaker AS MATERIALIZED (
    SELECT
        state.user_id,
        coalesce(
            (
                SELECT CASE
                    WHEN kind IN (10, 14, 17) THEN 'open'
                    WHEN kind = 11 THEN 'half_open'
                    WHEN kind IN (12, 13, 15, 18) THEN 'closed'
                    ELSE details ->> 'to'
                END
                FROM breaker_transitions
                WHERE user_id = state.user_id AND position IS NOT NULL AND occurred_at <= $1
                    AND kind = ANY($2::smallint[]) AND coalesce(details_version, 0) <= {DETAILS_VERSION}
                ORDER BY version DESC
                LIMIT 1
            ),
            (
                SELECT 'closed' FROM breaker_outcomes
                WHERE user_id = state.user_id AND occurred_at <= $1
                ORDER BY occurred_at DESC
                LIMIT 1
            ),
            (SELECT 'closed' FROM breaker_transitions WHERE user_id = state.user_id AND occurred_at <= $1 LIMIT 1)
        ) AS state
    FROM breaker_states AS state
)
SELECT
    count(state) AS total_breakers,
    count(*) FILTER (WHERE state = 'closed') AS closed,
    count(*) FILTER (WHERE state = 'open') AS open,
    count(*) FILTER (WHERE state = 'half_open') AS half_open,
    ARRAY(SELECT user_id FROM breaker WHERE state = 'open' ORDER BY user_id LIMIT {IDS_LIMIT})
        AS open_user_ids,
    ARRAY(SELECT user_id FROM breaker WHERE state = 'half_open' ORDER BY user_id LIMIT {IDS_LIMIT})
        AS half_open_user_ids
FROM breaker
"""


async def read_standing_at(connection: AsyncConnection, user_id: int, at: datetime) -> Standing:
    """Tell how a breaker stood at an instant.

    Raises:
        FutureError: the instant is yet to come.
        HorizonError: the log does not go back far enough.
        UnknownBreakerError: nothing is stored of this user up to then.

    """
    driver_connection = await _begin(connection, at)
    stored = await read_breaker_at(driver_connection, user_id, at)
    if stored is None:
        raise UnknownBreakerError(user_id, at)
    return describe(stored, await read_forced_opening(driver_connection, user_id, stored.state))


async def summary_at(connection: AsyncConnection, at: datetime) -> Summary:
    """Tell how all breakers stood at an instant: by look-ups for each, about a second for 100,000 breakers.

    Raises:
        FutureError: the instant is yet to come.
        HorizonError: the log does not go back so far.

    """
    driver_connection = await _begin(connection, at)
    found = await driver_connection.fetchrow(_SUMMARY, at, sorted(KNOWN_KINDS))
    return Summary(**found, ids_truncated=max(found["open"], found["half_open"]) > IDS_LIMIT)


async def _begin(connection: AsyncConnection, at: datetime) -> Connection:
    """Begin the snapshot in which all is read, and make sure that the log can tell of the instant."""
    # By SQLAlchemy, which begins a transaction with it; what goes past it to the driver is in the same one.
    now: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    if at > now:
        raise FutureError(at)
    driver_connection = await driver_connection_of(connection)
    await check_horizon(driver_connection, at)
    return driver_connection


async def read_breaker_at(connection: Connection, user_id: int, at: datetime) -> StoredBreaker | None:
    """Give one breaker as it was, or None if nothing is stored of this user up to then, within a transaction.

    Raises:
        HorizonError: what was counted then began before the horizon.

    """
    row = await connection.fetchrow(_ROW, user_id)
    if row is None or not await connection.fetchval(_KNOWN, user_id, at):
        return None
    chain = await _read_chain(connection, user_id, at)
    policy = _policy_in_force(chain, row)
    begun = rebuild_from(policy, chain, ())
    outcomes = await _read_counted(connection, user_id, begun, _since(chain, begun), at)
    state = rebuild_from(policy, chain, outcomes)
    remaining_us = None if state.retry_at is None else state.retry_at - microseconds(at)
    return StoredBreaker(user_id, state, remaining_us)


async def _read_chain(connection: Connection, user_id: int, at: datetime) -> list[Transition]:
    """Give the end of the chain as it was, from the last link on that stands alone."""
    newest_first: list[Transition] = []
    async for row in connection.cursor(_CHAIN, user_id, at, prefetch=_LINKS_AT_ONCE):
        link = read_transition(row).transition
        newest_first.append(link)
        if stands_alone(link):
            break
        if link.kind is Kind.UNRECOGNIZED:
            logger.error("breaker %s: %s", user_id, link.reason)
    return newest_first[::-1]


def _policy_in_force(chain: Sequence[Transition], row: Mapping[str, Any]) -> Policy:
    """Give the policy for a user without one of their own: the last link's, else the nearest that is known."""
    for link in reversed(chain):
        if link.kind is not Kind.UNRECOGNIZED:
            return link.policy
    return Policy() if row["policy_is_own"] else read_policy(row["policy"])


def _since(chain: Sequence[Transition], begun: BreakerState) -> datetime:
    """Give a lower bound of the times of what a count counts."""
    for link in chain:
        if (link.generation, link.era) == (begun.generation, begun.era):
            return to_datetime(link.at) - _SLACK if stands_alone(link) else _EVER
    return _EVER


async def _read_counted(
    connection: Connection, user_id: int, begun: BreakerState, since: datetime, at: datetime
) -> list[Outcome]:
    """Read the outcomes that decide: those since the last success if it is closed, or of the half-open round.

    Of a closed breaker the last failure of the count is among them, however long ago it was.

    Raises:
        HorizonError: some of them may be missing.

    """
    if begun.state is CircuitState.OPEN:
        return []
    count = user_id, begun.generation, begun.era
    is_closed = begun.state is CircuitState.CLOSED
    success: datetime | None = (
        await connection.fetchval(_LAST_SUCCESS, *count, since, at) if is_closed else None
    )
    if success is None:
        await check_count(connection, at, since)
    rows = await connection.fetch(_OUTCOMES, *count, success or since, at)
    if success is not None and all(row["kind"] != Kind.FAILURE for row in rows):
        rows += await connection.fetch(_LAST_FAILURE, *count, since, success)
    return [read_outcome(row) for row in rows]
