"""One plain sentence of the facts of a transition, clause by clause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from breaker_store.core.events import TROUBLES, CircuitState, Failure, Kind, Transition
from breaker_store.core.facts import Facts
from breaker_store.core.fleet_verdict import ERROR_WIDTH, Judgement
from breaker_store.core.recurrence import Recurrence
from breaker_store.core.standing import how_it_goes_on, rules
from breaker_store.core.wording import counted, listed, moment, quoted, shortened, span

MESSAGE_WIDTH: Final = 120
ERRORS_SHOWN: Final = 3
OFTEN: Final = 3
"""From how many trips in a week on the sentence says so."""

_MILLISECOND: Final = 1_000


def compose(facts: Facts, recurrence: Recurrence, judgement: Judgement | None) -> str:
    """Write the sentence: printable, on one line."""
    return f"{'; '.join(filter(None, _clauses(facts, recurrence, judgement)))}."


def _clauses(facts: Facts, recurrence: Recurrence, judgement: Judgement | None) -> Iterator[str | None]:
    event = facts.event
    if event is None:
        yield from _never_blocked(facts)
        return
    yield _what_happened(facts, event)
    if event.position is None:
        yield "this never took effect: another process had changed the breaker first, so it is kept as superseded"
        return
    yield from _past(facts, event)
    if event.kind in TROUBLES | {Kind.HALF_OPENED}:
        yield _standing(facts)
    elif facts.remark:
        yield f"what came of it: {facts.remark}"
    if event.kind is Kind.OPENED:
        yield _how_often(facts, recurrence)
        if judgement is not None:
            yield f"{judgement.finding}: {judgement.advice}"


def _past(facts: Facts, event: Transition) -> Iterator[str | None]:
    """Tell what was before the event."""
    if event.kind is Kind.OPENED:
        if facts.trip not in {None, event}:
            yield _belongs_to(facts, event)
        yield f"it {facts.remark}" if facts.remark else None
        yield _well(facts)
    elif facts.origin not in {None, event}:
        yield _belongs_to(facts, event)
    elif event.kind is Kind.RESET:
        yield "it was not open then"


def _never_blocked(facts: Facts) -> Iterator[str]:
    state = facts.state
    if state.state is not CircuitState.CLOSED:
        yield f"User {facts.user_id}'s breaker is {state.state.replace('_', '-')}, but what opened it can't be read"
        return
    yield f"User {facts.user_id}'s breaker is closed, and has never been open"
    if state.failure_count:
        threshold = state.policy.failure_threshold
        yield f"it has seen {counted(state.failure_count, 'failure')} in a row, and opens after {threshold:,}"


def _what_happened(facts: Facts, event: Transition) -> str:
    """Begin the sentence: the transition itself."""
    user_id, at = facts.user_id, moment(event.at)
    match event.kind:
        case Kind.UNRECOGNIZED:
            return f"What happened to user {user_id}'s breaker at {at} can't be told: {_reason(event, 'unknown')}"
        case Kind.SUSPENDED:
            ago = span(max(0, facts.now - event.at))
            return f"User {user_id}'s bot was suspended{_by(event)} {ago} ago, at {at}{_because(event)}"
        case Kind.RESUMED:
            return f"User {user_id}'s bot was resumed{_by(event)} at {at}{_because(event)}"
        case Kind.CARRIED_OVER:
            return f"User {user_id}'s breaker went on as it was at {at}: {_reason(event, 'its count was carried over')}"
        case _:
            return f"User {user_id}'s breaker {_deed(event, at)}"


def _deed(event: Transition, at: str) -> str:
    by, because = _by(event), _because(event)
    match event.kind:
        case Kind.OPENED:
            return _opened(event, at)
        case Kind.HALF_OPENED:
            return f"let a probe through at {at}, since {_reason(event, 'its wait was over')}"
        case Kind.CLOSED:
            return f"closed at {at}, since {_reason(event, 'its probes succeeded')}"
        case Kind.FORCED_OPEN:
            until = f" until {moment(event.retry_at)}" if event.retry_at is not None else ""
            return f"was opened by hand{by} at {at}{until}{because}, not by failures"
        case Kind.POLICY_CHANGED:
            return f"got another policy{_by(event, 'from')} at {at}{because}: {_policy(event)}"
        case _:
            return f"was {event.kind.label}{by} at {at}{because}"


def _opened(event: Transition, at: str) -> str:
    if event.is_trip:
        return f"opened at {at}{_after_what(event)}"
    if event.opened_at_once:
        return f"opened again at {at} because a probe met {_permanent_error(event)}"
    error = f" with {_errors(event.causes[-1:])}" if event.causes else ""
    return f"opened again at {at} because a probe failed{error}"


def _after_what(opening: Transition) -> str:
    """Say which failures opened it."""
    number = max(opening.failure_count, len(opening.causes))
    if not opening.opened_at_once:
        return f" after {_failures(opening.causes, number)}"
    before = f", after {_failures(opening.causes[:-1], number - 1)}" if number > 1 else ""
    return f" at once, on {_permanent_error(opening)}{before}"


def _permanent_error(opening: Transition) -> str:
    error = f": {_errors(opening.causes[-1:])}" if opening.causes else ", which is not kept with it"
    return f"a permanent error{error}"


def _reason(event: Transition, otherwise: str) -> str:
    return shortened(event.reason, MESSAGE_WIDTH) if event.reason else otherwise


def _because(event: Transition) -> str:
    return f" ({quoted(event.reason, MESSAGE_WIDTH)})" if event.reason else ""


def _by(event: Transition, word: str = "by") -> str:
    return f" {word} {shortened(event.actor, ERROR_WIDTH)}" if event.actor else ""


def _policy(event: Transition) -> str:
    back = "" if event.policy_is_own else "the default again, by which "
    return f"{back}it {rules(event.policy)}"


def _failures(causes: Sequence[Failure], number: int) -> str:
    """Say how many failures there were, within what time, and the errors of those that are kept."""
    if number == 0:
        return "failures that are not kept with it"
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
    opened = f"{_OPENED[origin.kind]}{_by(origin)}"
    after = _after_what(origin) if facts.trip is not None else ""
    earlier = span(max(0, event.at - origin.at))
    return f"it had {opened} {earlier} before, at {moment(origin.at)} (event {origin.event_id}){after}"


_OPENED: Final = {
    Kind.OPENED: "opened",
    Kind.FORCED_OPEN: "been opened by hand",
    Kind.SUSPENDED: "been suspended",
}
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
    at_most = "at most " if facts.failures_are_cut else ""
    since = _SINCE_WHAT[facts.well_since.ended_by]
    return f"it had been well for {at_most}{span(facts.well_for_us)}, since {since}"


def _standing(facts: Facts) -> str | None:
    """Say how it went on, or how it stands."""
    if facts.origin is None:
        return None
    ending = facts.aftermath.ending
    if ending is not None:
        return _ended(facts.origin, ending)
    times = facts.aftermath.reopened
    if times == 0:
        return f"it {_now(facts)}"
    often = "once" if times == 1 else counted(times, "time")
    if facts.aftermath.reopened_is_lower_bound:
        often = f"at least {often}"
    return f"it has opened again {often} since, after failed probes, and {_now(facts)}"


def _ended(origin: Transition, ending: Transition) -> str:
    later = f"{span(max(0, ending.at - origin.at))} later, at {moment(ending.at)}"
    if ending.kind is Kind.CLOSED:
        return f"it recovered by itself {later}"
    return f"it was {ending.kind.label}{_by(ending)} {later}{_because(ending)}"


def _now(facts: Facts) -> str:
    if facts.state.state is CircuitState.CLOSED:
        return "is closed by now, in a way that this version can't read"
    return how_it_goes_on(facts.state, facts.remaining_us)


def _how_often(facts: Facts, recurrence: Recurrence) -> str | None:
    if recurrence.in_week < OFTEN:
        return None
    up_to = "now" if facts.is_latest else "then"
    at_least = "at least " if recurrence.week_is_cut else ""
    return f"it tripped {at_least}{counted(recurrence.in_week, 'time')} in the 7 days up to {up_to}"
