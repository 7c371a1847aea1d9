"""An explanation as it is shown: the sentence, and the evidence under it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from breaker_store.core.events import CircuitState, Failure, Transition
from breaker_store.core.explanation import Explanation
from breaker_store.core.facts import Facts, Success
from breaker_store.core.fleet_verdict import LIMITS, RULE, Around, FleetVerdict, Judgement
from breaker_store.core.recurrence import HOUR_RULE, Recurrence
from breaker_store.postgres.codec import to_datetime
from breaker_store.postgres.history import Cause

ERRORS_SHOWN: Final = 5

_SECOND_US: Final = 1_000_000
_MILLISECOND_US: Final = 1_000


@dataclass(frozen=True, slots=True)
class ExplainedEvent:
    """A transition; `failures` are those that led to it, oldest first, as they are kept with it."""

    id: str
    kind: str
    at: datetime
    from_state: str
    to_state: str
    superseded: bool
    actor: str | None
    reason: str | None
    failure_count: int
    failures: list[Cause]


@dataclass(frozen=True, slots=True)
class SuccessItem:
    """A call that succeeded."""

    id: str
    at: datetime
    operation: str | None
    duration_ms: float | None


@dataclass(frozen=True, slots=True)
class SinceItem:
    """What happened since the breaker opened, up to its ending or until now.

    Attributes:
        would_be_refused: calls that happened elsewhere and would have been refused, known from an import.
        is_lower_bound: the numbers are lower bounds: there was too much to count, or retention has dropped some.
        ended_by: the transition that ended it; null if it goes on.
        recovered_after_seconds: from the opening to that.
        may_try_at: when an open breaker lets a call try; null if it is not open, or only a person can close it.
        remaining_seconds: until then, from 0.

    """

    refused_calls: int
    would_be_refused: int
    probes_succeeded: int
    probes_failed: int
    reopened: int
    is_lower_bound: bool
    ended_by: ExplainedEvent | None
    recovered_after_seconds: float | None
    may_try_at: datetime | None
    remaining_seconds: float | None


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How many other breakers tripped with an error; `error_type` is null where it is not known."""

    error_type: str | None
    breakers: int


@dataclass(frozen=True, slots=True)
class AroundItem:
    """The other breakers that tripped around this one.

    Attributes:
        since, until: the time that was looked at; `is_lower_bound` if it is less than the window, which was too full.
        is_over: whether the window has passed, so that no more can come.
        breakers: how many there are in all.
        same_error_count: how many of those that opened have this one's error.
        same_error_before: how many did in the hour before, or in as much of it as was looked at.
        by_error: the most frequent errors.

    """

    since: datetime
    until: datetime
    is_over: bool
    is_lower_bound: bool
    breakers: int
    opened_count: int
    same_error_count: int
    same_error_before: int
    by_error: list[ErrorCount]


@dataclass(frozen=True, slots=True)
class RecurrenceItem:
    """How this breaker's trips recur.

    Attributes:
        up_to: the moment up to which they are counted: now, or the event that was asked for.
        since: from when on they were looked at; null if all were. Numbers that begin before are lower bounds.
        trips: all that were looked at.
        usual_hour_utc: null if there is none by `hour_rule`.
        mean_seconds_to_recover: over `recoveries` trips that have ended.

    """

    up_to: datetime
    since: datetime | None
    trips_24_hours: int
    trips_7_days: int
    trips: int
    usual_hour_utc: int | None
    hour_rule: str
    mean_seconds_to_recover: float | None
    recoveries: int


@dataclass(frozen=True, slots=True)
class ExplanationItem:
    """Why a breaker is, or was, as it is.

    Attributes:
        sentence: the whole answer in one plain sentence; printable, on one line.
        state: of the breaker, now.
        verdict: whose trouble the trip looks like, by `rule` and within its `limits`; null if there is no trip.
        advice: what to do about it.
        event: what is explained; null if the breaker has never been open.
        opened_by: the opening that the event belongs to, often the event itself; null if it belongs to none.
        outcomes_are_kept: whether the outcomes of that day are still stored; what is told without them is not less
            true, but the last success and the numbers since may be missing.
        last_success: before the failures; null if none is kept, or `last_success_is_cut`: it is not among the
            nearest outcomes before them, and no more are searched.
        well_since: when its last trouble ended, or its first kept event; null if nothing is known from before, or if it
            was not well.
        well_for_seconds: from then to the first of the failures that are kept with the opening: at most so long if its
            `failure_count` says that there were more.
        policy: the rules that were in force at the event, or are now.

    """

    user_id: int
    sentence: str
    state: str
    verdict: FleetVerdict | None
    advice: str | None
    rule: str
    limits: str
    event: ExplainedEvent | None
    opened_by: ExplainedEvent | None
    outcomes_are_kept: bool
    last_success: SuccessItem | None
    last_success_is_cut: bool
    well_since: datetime | None
    well_for_seconds: float | None
    policy: dict[str, Any]
    policy_is_own: bool
    since: SinceItem | None
    around: AroundItem | None
    recurrence: RecurrenceItem


def explanation_item(facts: Facts, explanation: Explanation) -> ExplanationItem:
    judgement = explanation.judgement
    rules = facts.state if facts.event is None else facts.event
    well_since = facts.well_since if facts.well_for_us is not None else None
    return ExplanationItem(
        user_id=facts.user_id,
        sentence=explanation.sentence,
        state=facts.state.state.value,
        verdict=None if judgement is None else judgement.verdict,
        advice=None if judgement is None else judgement.advice,
        rule=RULE,
        limits=LIMITS,
        event=_event(facts.event),
        opened_by=_event(facts.origin),
        outcomes_are_kept=facts.outcomes_are_kept,
        last_success=facts.last_success and _success(facts.last_success),
        last_success_is_cut=facts.success_is_cut,
        well_since=None if well_since is None else to_datetime(well_since.at),
        well_for_seconds=_seconds(facts.well_for_us),
        policy=rules.policy.to_document(),
        policy_is_own=rules.policy_is_own,
        since=_since(facts),
        around=_around(facts.around, judgement),
        recurrence=_recurrence(explanation.recurrence),
    )


def _event(transition: Transition | None) -> ExplainedEvent | None:
    if transition is None:
        return None
    return ExplainedEvent(
        id=str(transition.event_id),
        kind=transition.kind.label,
        at=to_datetime(transition.at),
        from_state=transition.from_state.value,
        to_state=transition.to_state.value,
        superseded=transition.position is None,
        actor=transition.actor,
        reason=transition.reason,
        failure_count=transition.failure_count,
        failures=_causes(transition.causes),
    )


def _causes(failures: Iterable[Failure]) -> list[Cause]:
    return [
        Cause(
            id=str(failure.event_id),
            at=to_datetime(failure.at),
            error_type=failure.error_type,
            error_message=failure.error_message,
            operation=failure.operation,
            duration_ms=_milliseconds(failure.duration_us),
            trace_id=failure.trace_id,
        )
        for failure in failures
    ]


def _success(success: Success) -> SuccessItem:
    return SuccessItem(
        str(success.event_id), to_datetime(success.at), success.operation, _milliseconds(success.duration_us)
    )


def _since(facts: Facts) -> SinceItem | None:
    if facts.origin is None:
        return None
    aftermath, ending = facts.aftermath, facts.aftermath.ending
    waits = ending is None and facts.state.state is CircuitState.OPEN and facts.remaining_us is not None
    remaining_us = facts.remaining_us if waits else None
    return SinceItem(
        refused_calls=aftermath.refused_calls,
        would_be_refused=aftermath.would_be_refused,
        probes_succeeded=aftermath.probes_succeeded,
        probes_failed=aftermath.probes_failed,
        reopened=aftermath.reopened,
        is_lower_bound=aftermath.is_lower_bound,
        ended_by=_event(ending),
        recovered_after_seconds=None if ending is None else _seconds(max(0, ending.at - facts.origin.at)),
        may_try_at=to_datetime(facts.state.retry_at) if waits and facts.state.retry_at is not None else None,
        remaining_seconds=_seconds(remaining_us),
    )


def _around(around: Around | None, judgement: Judgement | None) -> AroundItem | None:
    if around is None or judgement is None:
        return None
    ranked = sorted(around.by_error.items(), key=lambda pair: (-pair[1], pair[0] or ""))
    return AroundItem(
        since=to_datetime(around.since),
        until=to_datetime(around.until),
        is_over=around.is_over,
        is_lower_bound=around.is_cut,
        breakers=around.breakers,
        opened_count=around.opened,
        same_error_count=judgement.same_error,
        same_error_before=around.same_before,
        by_error=[ErrorCount(*pair) for pair in ranked[:ERRORS_SHOWN]],
    )


def _recurrence(recurrence: Recurrence) -> RecurrenceItem:
    return RecurrenceItem(
        up_to=to_datetime(recurrence.up_to),
        since=None if recurrence.since is None else to_datetime(recurrence.since),
        trips_24_hours=recurrence.in_day,
        trips_7_days=recurrence.in_week,
        trips=recurrence.trips,
        usual_hour_utc=recurrence.usual_hour,
        hour_rule=HOUR_RULE,
        mean_seconds_to_recover=_seconds(recurrence.mean_recovery_us),
        recoveries=recurrence.recoveries,
    )


def _seconds(length_us: int | None) -> float | None:
    return None if length_us is None else length_us / _SECOND_US


def _milliseconds(length_us: int | None) -> float | None:
    return None if length_us is None else length_us / _MILLISECOND_US
