"""Why a breaker is as it is: the facts of a transition and around it, read in one snapshot by few cheap statements.

Nothing is read without a bound. The other breakers around a trip are counted here, by their error, and so much of the
window is left out as is more than `ROWS_EACH_WAY` transitions away from the trip; of one breaker's own past, and of
what it refused since, so much is read at most as the limits in `explaining_sql` say. What was cut is told.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.events import ENDINGS, CircuitState, EventId, Kind, Transition
from breaker_store.core.explanation import explain
from breaker_store.core.facts import Aftermath, Facts, Success, WellSince
from breaker_store.core.fleet_verdict import HOUR_BEFORE_US, WINDOW_US, Around
from breaker_store.core.recurrence import Step
from breaker_store.errors import StoreError, UnknownBreakerError
from breaker_store.ports import StoredBreaker
from breaker_store.postgres import explaining_sql as sql
from breaker_store.postgres import loading
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.explanation_items import ExplanationItem, explanation_item
from breaker_store.postgres.reading import driver_connection_of
from breaker_store.postgres.remarks import Place, is_remarkable, read_remarks
from breaker_store.postgres.standing import read_transition_of
from breaker_store.postgres.stored_events import read_transition


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
    driver_connection = await driver_connection_of(connection)
    async with driver_connection.transaction(isolation="repeatable_read", readonly=True):
        await driver_connection.execute(sql.BY_INDEX)
        facts = await _Reading(driver_connection, user_id).facts(event_id)
        facts = await _with_remark(driver_connection, facts)
    return explanation_item(facts, explain(facts))


async def _with_remark(connection: Connection, facts: Facts) -> Facts:
    event = facts.event
    if event is None or not is_remarkable(event.kind, event.position):
        return facts
    place = Place(facts.user_id, event.version)
    return replace(facts, remark=(await read_remarks(connection, [place])).get(place))


class _Reading:
    """Reads the facts for one question, within one snapshot."""

    def __init__(self, connection: asyncpg.Connection, user_id: int) -> None:
        self._connection = connection
        self._user_id = user_id

    async def facts(self, event_id: EventId | None) -> Facts:
        stored = await loading.read_breaker(self._connection, self._user_id, None)
        if stored is None:
            raise UnknownBreakerError(self._user_id)
        now = microseconds(await self._connection.fetchval(sql.NOW))
        if event_id is None:
            return await self._about_latest(stored, now)
        event = await read_transition_of(self._connection, self._user_id, event_id)
        if event is None:
            raise UnknownTransitionError(self._user_id, event_id)
        facts = _begin(stored, now, event)
        if event.position is None:
            return replace(facts, steps=(), origin=None)
        return await self._with_episode(facts, event.version)

    async def _about_latest(self, stored: StoredBreaker, now: int) -> Facts:
        facts = await self._with_episode(_begin(stored, now, None), sql.ANY_VERSION)
        return replace(facts, event=facts.origin, is_latest=True)

    async def _with_episode(self, facts: Facts, version: int) -> Facts:
        """Add the opening to which a version belongs and what is around it, and the breaker's past up to there."""
        facts = await self._with_steps(facts, version)
        episode = await self._connection.fetchrow(sql.EPISODE, self._user_id, version)
        if episode is None or (version < sql.ANY_VERSION and (episode["ending"] or version) < version):
            return facts
        wanted = [number for number in episode if number is not None]
        rows = await self._connection.fetch(sql.BY_VERSION, self._user_id, wanted)
        found = {row["version"]: read_transition(row).transition for row in rows}
        facts = replace(facts, origin=found[episode["origin"]])
        facts = await self._with_past(facts, found.get(episode["ending_before"]))
        facts = await self._with_aftermath(facts, found[episode["origin"]], found.get(episode["ending"]))
        return await self._with_others(facts)

    async def _with_steps(self, facts: Facts, version: int) -> Facts:
        rows = await self._connection.fetch(sql.STEPS, self._user_id, version)
        steps = tuple(Step(Kind(row["kind"]), microseconds(row["occurred_at"])) for row in rows)
        endings = sum(step.kind in ENDINGS for step in steps)
        return replace(facts, steps=steps, steps_are_cut=endings > sql.ENDINGS_LIMIT)

    async def _with_past(self, facts: Facts, ending_before: Transition | None) -> Facts:
        """Add what was before the opening: the last success, and since when it was well."""
        began_at = facts.trouble_began_at
        assert began_at is not None  # noqa: S101 - there is an opening
        before = self._user_id, to_datetime(began_at)
        row = await self._connection.fetchrow(sql.LAST_SUCCESS, *before)
        is_cut = row is None and await self._connection.fetchval(sql.HAS_MORE, *before)
        if ending_before is not None:
            well_since = WellSince(ending_before.at, ending_before.kind)
        else:
            well_since = WellSince(
                microseconds(await self._connection.fetchval(sql.FIRST_EVENT, self._user_id)), None
            )
        last_success = None if row is None else _success(row)
        return replace(facts, last_success=last_success, success_is_cut=is_cut, well_since=well_since)

    async def _with_aftermath(self, facts: Facts, origin: Transition, ending: Transition | None) -> Facts:
        """Add what happened since the opening."""
        at = to_datetime(origin.at)
        until = to_datetime(facts.now if ending is None else ending.at)
        kept = await self._outcomes_are_kept(at.date())
        outcomes = await self._connection.fetchrow(sql.OUTCOMES_AFTER, self._user_id, at, until)
        last = sql.ANY_VERSION if ending is None else ending.version
        steps = await self._connection.fetchrow(sql.REOPENINGS, self._user_id, origin.version, last)
        is_cut = outcomes["looked_at"] == sql.OUTCOMES_LIMIT or steps["looked_at"] == sql.REOPENINGS_LIMIT
        aftermath = Aftermath(
            refused_calls=outcomes["refused"],
            would_be_refused=outcomes["would_be_refused"],
            probes_succeeded=outcomes["probes_succeeded"],
            probes_failed=outcomes["probes_failed"],
            reopened=steps["reopened"],
            reopened_is_lower_bound=steps["looked_at"] == sql.REOPENINGS_LIMIT,
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
        breakers: int = await self._connection.fetchval(sql.COUNT_BREAKERS)
        at, window = to_datetime(trip.at), timedelta(microseconds=WINDOW_US)
        begin, end = at - window, at + window
        since, until = await self._connection.fetchrow(sql.REACH, at, begin, end)
        own_errors = [cause.error_type for cause in trip.causes]
        rows = await self._connection.fetch(
            sql.AROUND, since, until, self._user_id, list(filter(None, own_errors))
        )
        before_since, same_before = await self._same_before(begin, own_errors[-1] if own_errors else None)
        around = Around(
            breakers=breakers,
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
        since = (await self._connection.fetchrow(sql.REACH, until, begin, until))["since"]
        count = await self._connection.fetchval(sql.SAME_BEFORE, since, until, self._user_id, error_type)
        return since, count


def _begin(stored: StoredBreaker, now: int, event: Transition | None) -> Facts:
    state = stored.state
    remaining_us: int | None = None
    if state.state is CircuitState.OPEN and stored.remaining_us is not None:
        remaining_us = min(max(0, stored.remaining_us), state.longest_wait_us)
    return Facts(stored.user_id, now, event, None, state, remaining_us)


def _success(row: Mapping[str, Any]) -> Success:
    event_id = EventId(row["writer_id"], row["writer_seq"])
    return Success(event_id, microseconds(row["occurred_at"]), row["operation"], row["duration_us"])
