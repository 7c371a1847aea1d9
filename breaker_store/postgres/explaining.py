"""Why a breaker is as it is: the facts of a transition and around it, read in one snapshot by few cheap statements.

Nothing is read without a bound. The other breakers around a trip are counted here, by their error, and so much of the
window is left out as is more than `ROWS_EACH_WAY` transitions away from the trip; of one breaker's own past, and of
what it refused since, so much is read at most as the limits below say. What was cut is told.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.events import CircuitState, EventId, Kind, Transition
from breaker_store.core.explanation import explain
from breaker_store.core.facts import Aftermath, Facts, Success, WellSince
from breaker_store.core.fleet_verdict import HOUR_BEFORE_US, WINDOW_US, Around
from breaker_store.core.recurrence import ENDINGS, Step
from breaker_store.errors import StoreError, UnknownBreakerError
from breaker_store.ports import StoredBreaker
from breaker_store.postgres import loading
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.explanation_items import ExplanationItem, explanation_item
from breaker_store.postgres.stored_events import is_known_kind, read_transition

ROWS_EACH_WAY: Final = 20_000
"""How many transitions of all breakers are looked at before a trip, after it, and in the hour before both."""

BREAKERS_LIMIT: Final = 100_000
"""How many breakers are counted at most."""

STEPS_LIMIT: Final = 2_000
"""How many of a breaker's own transitions are looked at for how its trips recur."""

OUTCOMES_LIMIT: Final = 20_000
"""How many outcomes after an opening are counted, and how many before it are searched for a success."""

REOPENINGS_LIMIT: Final = 10_000
"""How many transitions after an opening are searched for reopenings."""

_ANY_VERSION: Final = 2**31 - 1
_ENDINGS: Final = ", ".join(str(int(kind)) for kind in sorted(ENDINGS))
_OPENINGS: Final = f"{int(Kind.OPENED)}, {int(Kind.FORCED_OPEN)}"

# Every statement here is served by an index and stops early; one of a fleet that is in trouble right now is planned with
# statistics of a time when it was well, and a scan of a whole day would look cheaper.
_BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"

_NOW = "SELECT clock_timestamp()"

_COUNT_BREAKERS = f"SELECT count(*) FROM (SELECT FROM breaker_states LIMIT {BREAKERS_LIMIT + 1}) AS counted"

_BY_ID = "SELECT * FROM breaker_transitions WHERE writer_id = $1 AND writer_seq = $2 AND user_id = $3"

_BY_VERSION = """
SELECT * FROM breaker_transitions WHERE user_id = $1 AND position IS NOT NULL AND version = ANY($2::integer[])
"""

# The newest opening up to a version, back to the first one after the breaker was last well, unless it was opened by
# hand; the ending before that, and the one that followed. By kinds alone, which the index holds: details may be long.
_EPISODE = f"""
WITH chain AS NOT MATERIALIZED (
    SELECT version, kind FROM breaker_transitions WHERE user_id = $1 AND position IS NOT NULL
), newest AS (
    SELECT version, kind FROM chain
    WHERE version <= $2 AND kind IN ({_OPENINGS})
    ORDER BY version DESC LIMIT 1
), origin AS (
    SELECT CASE WHEN newest.kind = {int(Kind.FORCED_OPEN)} THEN newest.version ELSE (
        SELECT version FROM chain
        WHERE kind IN ({_OPENINGS}) AND version > coalesce((
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
        WHERE version < origin.version AND kind IN ({_ENDINGS}) ORDER BY version DESC LIMIT 1
    ) AS ending_before,
    (
        SELECT version FROM chain
        WHERE version > origin.version AND kind IN ({_ENDINGS}) ORDER BY version LIMIT 1
    ) AS ending
FROM origin
"""

_REOPENINGS = f"""
SELECT count(*) FILTER (WHERE kind = {int(Kind.OPENED)}) AS reopened, count(*) AS looked_at
FROM (
    SELECT kind FROM breaker_transitions
    WHERE user_id = $1 AND position IS NOT NULL AND version > $2 AND version < $3
    ORDER BY version LIMIT {REOPENINGS_LIMIT}
) AS after
"""

# Any of them, not the first: a plan made for no user in particular would sort all that there are.
_OUTCOMES_AFTER = f"""
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

_LAST_SUCCESS = f"""
SELECT * FROM (
    SELECT occurred_at, writer_id, writer_seq, kind, operation, duration_us FROM breaker_outcomes
    WHERE user_id = $1 AND occurred_at <= $2
    ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC LIMIT {OUTCOMES_LIMIT}
) AS before
WHERE kind = 1
ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC
LIMIT 1
"""

_FIRST_EVENT = """
SELECT least(
    (SELECT occurred_at FROM breaker_outcomes WHERE user_id = $1 ORDER BY occurred_at LIMIT 1),
    (SELECT occurred_at FROM breaker_transitions WHERE user_id = $1 ORDER BY occurred_at LIMIT 1)
)
"""

# How far the window reaches: to its end, or to the transition that is the last to be looked at.
_REACH = f"""
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
_AROUND = f"""
SELECT grouping(error_type) = 1 AS is_whole, error_type, count(DISTINCT user_id) AS breakers
FROM ({_TRIPS}) AS trips
GROUP BY GROUPING SETS ((error_type), ())
ORDER BY is_whole DESC, error_type = ANY($4::text[]) DESC NULLS LAST, breakers DESC, error_type
LIMIT 60
"""

_SAME_BEFORE = f"SELECT count(DISTINCT user_id) FROM ({_TRIPS}) AS trips WHERE error_type = $4"

_STEPS = f"""
SELECT kind, occurred_at FROM breaker_transitions
WHERE user_id = $1 AND position IS NOT NULL AND version <= $2
ORDER BY version DESC LIMIT {STEPS_LIMIT + 1}
"""


class UnknownTransitionError(StoreError):
    """The log has no transition of this id for this user.

    Attributes:
        user_id: whose it would be.
        event_id: of which event.

    """

    def __init__(self, user_id: int, event_id: EventId) -> None:
        super().__init__(user_id, event_id)
        self.user_id = user_id
        self.event_id = event_id

    def __str__(self) -> str:
        return f"no transition of user {self.user_id} has the id {self.event_id}"


async def why(connection: AsyncConnection, user_id: int, event_id: EventId | None = None) -> ExplanationItem:
    """Explain a transition of a breaker; None explains the opening in force, or else the last one.

    Raises:
        UnknownBreakerError: nothing is stored of this user.
        UnknownTransitionError: the event is no transition of theirs.

    """
    driver_connection = (await connection.get_raw_connection()).driver_connection
    assert driver_connection is not None  # noqa: S101 - it is open
    async with driver_connection.transaction(isolation="repeatable_read", readonly=True):
        await driver_connection.execute(_BY_INDEX)
        facts = await _Reading(driver_connection, user_id).facts(event_id)
    return explanation_item(facts, explain(facts))


class _Reading:
    """Reads the facts for one question, within one snapshot."""

    def __init__(self, connection: asyncpg.Connection, user_id: int) -> None:
        self._connection = connection
        self._user_id = user_id

    async def facts(self, event_id: EventId | None) -> Facts:
        stored = await loading.read_breaker(self._connection, self._user_id, None)
        if stored is None:
            raise UnknownBreakerError(self._user_id)
        now = microseconds(await self._connection.fetchval(_NOW))
        if event_id is None:
            return await self._about_latest(stored, now)
        row = await self._connection.fetchrow(_BY_ID, *event_id, self._user_id)
        if row is None:
            raise UnknownTransitionError(self._user_id, event_id)
        event = read_transition(row).transition
        facts = _begin(stored, now, event)
        if event.position is None:
            return replace(facts, steps=(), origin=None)
        return await self._with_episode(facts, event.version)

    async def _about_latest(self, stored: StoredBreaker, now: int) -> Facts:
        facts = await self._with_episode(_begin(stored, now, None), _ANY_VERSION)
        return replace(facts, event=facts.origin, is_latest=True)

    async def _with_episode(self, facts: Facts, version: int) -> Facts:
        """Add the opening to which a version belongs and what is around it, and the breaker's past up to there."""
        facts = await self._with_steps(facts, version)
        episode = await self._connection.fetchrow(_EPISODE, self._user_id, version)
        if episode is None or (version < _ANY_VERSION and (episode["ending"] or version) < version):
            return facts
        wanted = [number for number in episode if number is not None]
        rows = await self._connection.fetch(_BY_VERSION, self._user_id, wanted)
        found = {row["version"]: read_transition(row).transition for row in rows}
        facts = replace(facts, origin=found[episode["origin"]])
        facts = await self._with_past(facts, found.get(episode["ending_before"]))
        facts = await self._with_aftermath(facts, found[episode["origin"]], found.get(episode["ending"]))
        return await self._with_others(facts)

    async def _with_steps(self, facts: Facts, version: int) -> Facts:
        rows = await self._connection.fetch(_STEPS, self._user_id, version)
        steps = [
            Step(Kind(row["kind"]) if is_known_kind(row["kind"]) else None, microseconds(row["occurred_at"]))
            for row in reversed(rows[:STEPS_LIMIT])
        ]
        return replace(facts, steps=tuple(steps), steps_are_cut=len(rows) > STEPS_LIMIT)

    async def _with_past(self, facts: Facts, ending_before: Transition | None) -> Facts:
        """Add what was before the opening: the last success, and since when it was well."""
        began_at = facts.trouble_began_at
        assert began_at is not None  # noqa: S101 - there is an opening
        row = await self._connection.fetchrow(_LAST_SUCCESS, self._user_id, to_datetime(began_at))
        if ending_before is not None:
            well_since = WellSince(ending_before.at, ending_before.kind)
        else:
            well_since = WellSince(
                microseconds(await self._connection.fetchval(_FIRST_EVENT, self._user_id)), None
            )
        return replace(facts, last_success=None if row is None else _success(row), well_since=well_since)

    async def _with_aftermath(self, facts: Facts, origin: Transition, ending: Transition | None) -> Facts:
        """Add what happened since the opening."""
        at = to_datetime(origin.at)
        until = to_datetime(facts.now if ending is None else ending.at)
        kept = await self._outcomes_are_kept(at.date())
        outcomes = await self._connection.fetchrow(_OUTCOMES_AFTER, self._user_id, at, until)
        last = _ANY_VERSION if ending is None else ending.version
        steps = await self._connection.fetchrow(_REOPENINGS, self._user_id, origin.version, last)
        is_cut = outcomes["looked_at"] == OUTCOMES_LIMIT or steps["looked_at"] == REOPENINGS_LIMIT
        aftermath = Aftermath(
            refused_calls=outcomes["refused"],
            would_be_refused=outcomes["would_be_refused"],
            probes_succeeded=outcomes["probes_succeeded"],
            probes_failed=outcomes["probes_failed"],
            reopened=steps["reopened"],
            is_lower_bound=is_cut or not kept,
            ending=ending,
        )
        return replace(facts, aftermath=aftermath, outcomes_are_kept=kept)

    async def _outcomes_are_kept(self, day: dt.date) -> bool:
        """Tell whether the day has its partition: that of a day on which something happened is made before."""
        name = f"breaker_outcomes_{day:%Y%m%d}"
        return bool(await self._connection.fetchval("SELECT to_regclass($1) IS NOT NULL", name))

    async def _with_others(self, facts: Facts) -> Facts:
        trip = facts.trip
        if trip is None:
            return facts
        breakers: int = await self._connection.fetchval(_COUNT_BREAKERS)
        at, window = to_datetime(trip.at), timedelta(microseconds=WINDOW_US)
        begin, end = at - window, at + window
        since, until = await self._connection.fetchrow(_REACH, at, begin, end)
        own_errors = [cause.error_type for cause in trip.causes]
        rows = await self._connection.fetch(
            _AROUND, since, until, self._user_id, list(filter(None, own_errors))
        )
        before_since, same_before = await self._same_before(begin, own_errors[-1] if own_errors else None)
        around = Around(
            breakers=min(breakers, BREAKERS_LIMIT),
            breakers_are_more=breakers > BREAKERS_LIMIT,
            since=microseconds(since),
            until=microseconds(until),
            is_cut=(since, until) != (begin, end),
            is_over=facts.now > microseconds(end),
            opened=rows[0]["breakers"],
            by_error={row["error_type"]: row["breakers"] for row in rows[1:]},
            same_before=same_before,
            before_us=microseconds(begin) - microseconds(before_since),
        )
        return replace(facts, around=around)

    async def _same_before(self, until: datetime, error_type: str | None) -> tuple[datetime, int]:
        """Count the others that tripped with an error in the hour before; the time is how far back was looked."""
        begin = until - timedelta(microseconds=HOUR_BEFORE_US)
        if error_type is None:
            return begin, 0
        since = (await self._connection.fetchrow(_REACH, until, begin, until))["since"]
        count = await self._connection.fetchval(_SAME_BEFORE, since, until, self._user_id, error_type)
        return since, count


def _begin(stored: StoredBreaker, now: int, event: Transition | None) -> Facts:
    state = stored.state
    remaining_us: int | None = None
    if state.state is CircuitState.OPEN and stored.remaining_us is not None:
        remaining_us = min(max(0, stored.remaining_us), state.policy.timeout_us)
    return Facts(stored.user_id, now, event, None, state, remaining_us)


def _success(row: Mapping[str, Any]) -> Success:
    event_id = EventId(row["writer_id"], row["writer_seq"])
    return Success(event_id, microseconds(row["occurred_at"]), row["operation"], row["duration_us"])
