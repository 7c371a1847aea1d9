"""Why a breaker is, or was, as it is: from the facts to one plain sentence, a verdict and an advice.

What is explained is a transition. Most belong to a trip: from the opening on, through probes, to the ending. A trip is
explained by the failures that it keeps itself, so that its sentence stays the same when retention has dropped the
outcomes; what then can't be told any more is said to be gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from breaker_store.core.events import CircuitState, EventId, Failure, Kind, Transition
from breaker_store.core.fleet_verdict import (
    CHECK_THE_BOT,
    ERROR_WIDTH,
    Around,
    FleetVerdict,
    Judgement,
    judge,
)
from breaker_store.core.recurrence import Recurrence, Step, recur
from breaker_store.core.state import BreakerState
from breaker_store.core.wording import counted, listed, moment, quoted, shortened, span

MESSAGE_WIDTH: Final = 120
ERRORS_SHOWN: Final = 3
OFTEN: Final = 3
"""From how many trips in a week on the sentence says so."""

_MILLISECOND: Final = 1_000


class Success(NamedTuple):
    """A call that succeeded."""

    event_id: EventId
    at: int
    operation: str | None
    duration_us: int | None


class WellSince(NamedTuple):
    """Since when a breaker was well: the kind of transition that ended its last trip, or None for its first event."""

    at: int
    ended_by: Kind | None


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What happened from an opening on, up to its ending or until now.

    Attributes:
        refused_calls: calls that the breaker refused.
        would_be_refused: calls that happened elsewhere and that it would have refused, known from an import.
        reopened: how often it opened again after a failed probe.
        is_lower_bound: whether there is more than was counted: too much, or dropped by retention.
        ending: with which it ended; None if it goes on.

    """

    refused_calls: int = 0
    would_be_refused: int = 0
    probes_succeeded: int = 0
    probes_failed: int = 0
    reopened: int = 0
    is_lower_bound: bool = False
    ending: Transition | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a transition and around it; times are Unix microseconds on the log's clock.

    Attributes:
        event: what is explained; None if the breaker has never been blocked.
        is_latest: whether it was asked for as the latest one, so that trips are counted up to now.
        origin: the opening to which the event belongs, by failures or by hand: the event itself, or one before it.
            None if the breaker was well at the event.
        state, remaining_us: the breaker now; see `StoredBreaker`.
        outcomes_are_kept: whether the outcomes of the opening's day still are there.
        around: None if there is no opening by failures.
        steps: the transitions up to the event, or to now, oldest first; `steps_are_cut` if not from the first on.

    """

    user_id: int
    now: int
    event: Transition | None
    origin: Transition | None
    state: BreakerState
    remaining_us: int | None = None
    is_latest: bool = False
    well_since: WellSince | None = None
    last_success: Success | None = None
    outcomes_are_kept: bool = True
    aftermath: Aftermath = Aftermath()
    around: Around | None = None
    steps: Sequence[Step] = ()
    steps_are_cut: bool = False

    @property
    def trip(self) -> Transition | None:
        """The opening by failures to which the event belongs."""
        return self.origin if self.origin is not None and self.origin.kind is Kind.OPENED else None

    @property
    def trouble_began_at(self) -> int | None:
        """When the first of the failures that opened it happened."""
        if self.origin is None:
            return None
        return self.origin.causes[0].at if self.origin.causes else self.origin.at

    @property
    def well_for_us(self) -> int | None:
        """How long the breaker had been well before its failures; None if nothing is known from before."""
        if self.well_since is None or self.trouble_began_at is None:
            return None
        return max(0, self.trouble_began_at - self.well_since.at) or None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What to say of the facts; `judgement` is None where there is no trip to judge."""

    sentence: str
    judgement: Judgement | None
    recurrence: Recurrence


def explain(facts: Facts) -> Explanation:
    recurrence = recur(facts.steps, _counted_up_to(facts), is_cut=facts.steps_are_cut)
    judgement = _judgement(facts)
    clauses = filter(None, _clauses(facts, recurrence, judgement))
    return Explanation(f"{'; '.join(clauses)}.", judgement, recurrence)


def _counted_up_to(facts: Facts) -> int:
    return facts.now if facts.is_latest or facts.event is None else facts.event.at


def _judgement(facts: Facts) -> Judgement | None:
    if facts.trip is None or facts.around is None:
        return None
    judgement = judge(facts.trip.causes, facts.around)
    if facts.aftermath.ending is None:
        return judgement
    return replace(judgement, advice=_advice_after(judgement))


def _advice_after(judgement: Judgement) -> str:
    """Give the advice once a trip has ended."""
    if judgement.verdict is FleetVerdict.EVERYBODY:
        return "it is over, so nothing is left to do"
    return f"it is over; should it come back, {CHECK_THE_BOT}"


def _clauses(facts: Facts, recurrence: Recurrence, judgement: Judgement | None) -> Iterator[str | None]:
    event = facts.event
    if event is None:
        yield from _never_blocked(facts)
        return
    yield _what_happened(facts.user_id, event)
    if event.position is None or event.kind is Kind.UNRECOGNIZED:
        return
    if event.kind is Kind.OPENED:
        if facts.trip not in {None, event}:
            yield _belongs_to(facts, event)
        yield _well(facts)
    elif facts.origin not in {None, event}:
        yield _belongs_to(facts, event)
    elif event.kind is Kind.RESET:
        yield "it was not open then"
    if event.kind in {Kind.OPENED, Kind.FORCED_OPEN, Kind.HALF_OPENED}:
        yield _standing(facts)
    if event.kind is Kind.OPENED:
        yield _how_often(facts, recurrence)
        if judgement is not None:
            yield f"{judgement.finding}: {judgement.advice}"


def _never_blocked(facts: Facts) -> Iterator[str]:
    state = facts.state
    if state.state is not CircuitState.CLOSED:
        yield f"User {facts.user_id}'s breaker is {state.state.replace('_', '-')}, but what opened it can't be read"
        return
    yield f"User {facts.user_id}'s breaker is closed, and has never been open"
    if state.failure_count:
        threshold = state.policy.failure_threshold
        yield f"it has seen {counted(state.failure_count, 'failure')} in a row, and opens after {threshold:,}"


def _what_happened(user_id: int, event: Transition) -> str:
    """Begin the sentence: the transition itself."""
    whose, at = f"ser {user_id}'s breaker", moment(event.at)
    if event.kind is Kind.UNRECOGNIZED:
        return f"What happened to u{whose} at {at} can't be told: {_reason(event, 'unknown')}"
    done = _deed(event, at)
    if event.position is None:
        return (
            f"That u{whose} {done} never took effect: another process had changed the breaker first, "
            "and this is kept as superseded"
        )
    return f"U{whose} {done}"


def _deed(event: Transition, at: str) -> str:
    by, because = _by(event), f" ({quoted(event.reason, MESSAGE_WIDTH)})" if event.reason else ""
    match event.kind:
        case Kind.OPENED:
            return _opened(event, at)
        case Kind.HALF_OPENED:
            return f"let a probe through at {at}, since {_reason(event, 'its wait was over')}"
        case Kind.CLOSED:
            return f"closed at {at}, since {_reason(event, 'its probes succeeded')}"
        case Kind.FORCED_OPEN:
            return f"was opened by hand{by} at {at}{because}, not by failures"
        case Kind.POLICY_CHANGED:
            return f"got another policy{by} at {at}{because}: {_policy(event)}"
        case _:
            return f"was {event.kind.label}{by} at {at}{because}"


def _opened(event: Transition, at: str) -> str:
    if event.is_trip:
        return f"opened at {at} after {_failures(event)}"
    error = f" with {_errors(event.causes[-1:])}" if event.causes else ""
    return f"opened again at {at} because a probe failed{error}"


def _reason(event: Transition, otherwise: str) -> str:
    return shortened(event.reason, MESSAGE_WIDTH) if event.reason else otherwise


def _by(event: Transition) -> str:
    return f" by {shortened(event.actor, ERROR_WIDTH)}" if event.actor else ""


def _policy(event: Transition) -> str:
    policy = event.policy
    return (
        f"it opens after {counted(policy.failure_threshold, 'failure')} in a row, waits {policy.timeout_seconds:g} s, "
        f"and closes after {counted(policy.success_threshold, 'success', 'successes')}"
    )


def _failures(opening: Transition) -> str:
    """Say how many failures opened it, within what time, and their errors."""
    causes = opening.causes
    number = max(opening.failure_count, len(causes))
    what = "one failure" if number == 1 else f"{number:,} failures in a row"
    if not causes:
        return f"{what}, which are not kept with it"
    if len(causes) < number:
        what += f", the last {len(causes)} of them"
    if len(causes) > 1:
        what += _within(causes)
    return f"{what}, {_errors(causes)}"


def _within(causes: Sequence[Failure]) -> str:
    length = causes[-1].at - causes[0].at
    return f" within {span(length)}" if length >= _MILLISECOND else " at the same moment"


def _errors(causes: Sequence[Failure]) -> str:
    """Name the errors by number, in the order in which they came up, and quote the last one's message."""
    last = causes[-1]
    message = quoted(last.error_message, MESSAGE_WIDTH) if last.error_message else None
    numbers = Counter(_error(cause) for cause in causes)
    if len(numbers) == 1:
        which = _error(last) if len(causes) == 1 else f"all {_error(last)}"
        remark = message if len(causes) == 1 else message and f"the last: {message}"
    else:
        which = _error_list(numbers)
        remark = f"the last: {_error(last)}{' ' + message if message else ''}"
    return f"{which} ({remark})" if remark else which


def _error_list(numbers: Counter[str]) -> str:
    shown = list(numbers.items()) if len(numbers) <= ERRORS_SHOWN else numbers.most_common(ERRORS_SHOWN - 1)
    texts = [f"{number} {error}" for error, number in shown]
    rest = numbers.total() - sum(number for _, number in shown)
    return listed([*texts, f"{rest} others"] if rest else texts)


def _error(failure: Failure) -> str:
    return (
        "without an error type" if failure.error_type is None else shortened(failure.error_type, ERROR_WIDTH)
    )


def _belongs_to(facts: Facts, event: Transition) -> str:
    """Tell of the opening before the event."""
    origin = facts.origin
    assert origin is not None  # noqa: S101 - asked for only then
    by_hand = "" if origin.kind is not Kind.FORCED_OPEN else f" by hand{_by(origin)}"
    after = f" after {_failures(origin)}" if facts.trip is not None else ""
    earlier = span(max(0, event.at - origin.at))
    return f"it had opened{by_hand} {earlier} before, at {moment(origin.at)} (event {origin.event_id}){after}"


_SINCE_WHAT: Final = {
    None: "its first kept event",
    Kind.CLOSED: "its last recovery",
    Kind.RESET: "its last reset",
    Kind.RELEASED: "its last release",
    Kind.RESUMED: "it was last resumed",
}


def _well(facts: Facts) -> str | None:
    if facts.trip is None:
        return None
    if facts.well_since is None or facts.well_for_us is None:
        return "nothing is kept from before these failures"
    return f"it had been well for {span(facts.well_for_us)}, since {_SINCE_WHAT[facts.well_since.ended_by]}"


def _standing(facts: Facts) -> str | None:
    """Say how it went on, or how it stands."""
    if facts.origin is None:
        return None
    ending = facts.aftermath.ending
    if ending is not None:
        return _ended(facts.origin, ending)
    times = facts.aftermath.reopened
    again = (
        f"it has opened again {counted(times, 'time')} since, after failed probes, and " if times else "it "
    )
    return f"{again}{_now(facts)}"


def _ended(origin: Transition, ending: Transition) -> str:
    later = f"{span(max(0, ending.at - origin.at))} later, at {moment(ending.at)}"
    if ending.kind is Kind.CLOSED:
        return f"it recovered by itself {later}"
    because = f" ({quoted(ending.reason, MESSAGE_WIDTH)})" if ending.reason else ""
    return f"it was {ending.kind.label}{_by(ending)} {later}{because}"


def _now(facts: Facts) -> str:
    state = facts.state
    match state.state:
        case CircuitState.CLOSED:
            return "is closed by now, in a way that this version can't read"
        case CircuitState.HALF_OPEN:
            done, needed = state.success_count, state.policy.success_threshold
            return f"is half-open, with {done:,} of {counted(needed, 'probe')} succeeded"
        case CircuitState.OPEN if facts.remaining_us is None:
            return "stays open until somebody closes it"
        case CircuitState.OPEN if facts.remaining_us > 0:
            return f"refuses calls for another {span(facts.remaining_us)}"
        case _:
            return "lets the next call try, since its wait is over"


def _how_often(facts: Facts, recurrence: Recurrence) -> str | None:
    if recurrence.in_week < OFTEN:
        return None
    up_to = "now" if facts.is_latest else "then"
    return f"it tripped {counted(recurrence.in_week, 'time')} in the 7 days up to {up_to}"
