"""An explanation for people: the sentence, and the evidence as a table that fits into 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from rich.console import Console
from rich.table import Table
from rich.text import Text

from breaker_store.cli.times import to_milliseconds
from breaker_store.core.fleet_verdict import FleetVerdict
from breaker_store.core.wording import counted, printable, shortened, span
from breaker_store.postgres.explaining_sql import OUTCOMES_LIMIT
from breaker_store.postgres.explanation_items import (
    AroundItem,
    ExplainedEvent,
    ExplanationItem,
    RecurrenceItem,
    SinceItem,
)
from breaker_store.postgres.history import Cause

FAILURES_SHOWN: Final = 10

_MESSAGE_WIDTH: Final = 300
_VERDICTS: Final = {
    FleetVerdict.THIS_BOT: ("this bot", "bold red"),
    FleetVerdict.EVERYBODY: ("everybody", "bold yellow"),
    FleetVerdict.SEVERAL_TROUBLES: ("several troubles", "bold yellow"),
    FleetVerdict.UNCLEAR: ("unclear", "bold"),
}

Row: TypeAlias = tuple[str, Text]


def print_explanation(item: ExplanationItem) -> None:
    console = Console(markup=False, highlight=False)
    # A line for programs that read lines; on a terminal words are kept whole.
    console.print(Text(item.sentence, style="bold"), soft_wrap=not console.is_terminal)
    console.print()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, text in _rows(item):
        table.add_row(name, text)
    console.print(table)


def _rows(item: ExplanationItem) -> Iterator[Row]:
    if item.verdict is not None:
        yield "verdict", Text(*_VERDICTS[item.verdict])
    if item.advice is not None:
        yield "advice", Text(item.advice)
    yield "state now", Text(item.state.replace("_", "-"))
    if item.event is not None:
        yield "event", Text(_event(item.event))
    if item.opened_by is not None:
        if item.event != item.opened_by:
            yield "opened by", Text(_event(item.opened_by))
        yield from _failures(item.opened_by)
        yield "last success", Text(_last_success(item))
        yield "well for", Text(_well(item))
    yield "policy", Text(_policy(item))
    if item.since is not None:
        yield "since then", Text(_since(item.since, kept=item.outcomes_are_kept))
    if item.around is not None:
        yield "others", Text(_around(item.around))
    yield "its trips", Text(_recurrence(item.recurrence))
    if item.verdict is not None:
        yield "rule", Text(item.rule, style="dim")
        yield "limits", Text(item.limits, style="dim")


def _event(event: ExplainedEvent) -> str:
    superseded = ", superseded" if event.superseded else ""
    return f"{event.id}, {event.kind} at {to_milliseconds(event.at)}{superseded}"


def _failures(opening: ExplainedEvent) -> Iterator[Row]:
    not_kept = opening.failure_count - len(opening.failures)
    if opening.failures and not_kept > 0:
        yield "failures", Text(f"{counted(not_kept, 'earlier one')}: not kept with it")
    left_out = len(opening.failures) - FAILURES_SHOWN
    if left_out > 0:
        yield "failures", Text(f"{counted(left_out, 'earlier one')}: see --json")
    for failure in opening.failures[-FAILURES_SHOWN:]:
        yield "failure", Text(_failure(failure), style="red")


def _failure(failure: Cause) -> str:
    parts = [to_milliseconds(failure.at)]
    if failure.operation:
        parts.append(printable(failure.operation))
    if failure.duration_ms is not None:
        parts.append(f"{failure.duration_ms:,.1f} ms")
    if failure.trace_id is not None:
        parts.append(f"trace {failure.trace_id.hex}")
    error = ": ".join(filter(None, (failure.error_type, failure.error_message))) or "no error is known"
    return f"{', '.join(parts)}: {shortened(error, _MESSAGE_WIDTH)} ({failure.id})"


def _last_success(item: ExplanationItem) -> str:
    success = item.last_success
    if success is None:
        searched = f"is among the {OUTCOMES_LIMIT:,} outcomes" if item.last_success_is_cut else "is kept from"
        return f"none {searched} before it opened"
    operation = f", {printable(success.operation)}" if success.operation else ""
    return f"{to_milliseconds(success.at)}{operation} ({success.id})"


def _well(item: ExplanationItem) -> str:
    opening = item.opened_by
    if opening is not None and opening.from_state != "closed":
        return "it was open already"
    if opening is None or item.well_since is None or item.well_for_seconds is None:
        return "nothing is kept from before the failures"
    at_most = "at most " if opening.failure_count > len(opening.failures) else ""
    return f"{at_most}{_span(item.well_for_seconds)}, since {to_milliseconds(item.well_since)}"


def _policy(item: ExplanationItem) -> str:
    policy, whose = item.policy, "the user's own" if item.policy_is_own else "the default"
    return (
        f"opens after {counted(policy['failure_threshold'], 'failure')} in a row, waits "
        f"{policy['timeout_seconds']:g} s, closes after {counted(policy['success_threshold'], 'success', 'successes')} "
        f"({whose})"
    )


def _since(since: SinceItem, *, kept: bool) -> str:
    at_least = "at least " if since.is_lower_bound else ""
    parts = [f"{at_least}{counted(since.refused_calls, 'refused call')}"]
    if since.would_be_refused:
        parts.append(f"{since.would_be_refused:,} that would have been refused")
    parts.append(
        f"{counted(since.probes_succeeded, 'good probe')}, {counted(since.probes_failed, 'failed probe')}"
    )
    if since.reopened:
        parts.append(f"opened again {at_least}{counted(since.reopened, 'time')}")
    parts.append(_ending(since))
    if not kept:
        parts.append("the outcomes of the day on which it opened are not kept any more")
    return "; ".join(parts)


def _ending(since: SinceItem) -> str:
    if since.ended_by is not None and since.recovered_after_seconds is not None:
        by = f" by {printable(since.ended_by.actor)}" if since.ended_by.actor else ""
        after = _span(since.recovered_after_seconds)
        return f"{since.ended_by.kind}{by} at {to_milliseconds(since.ended_by.at)}, after {after} ({since.ended_by.id})"
    if since.may_try_at is not None:
        return f"may try again from {to_milliseconds(since.may_try_at)} on"
    return "not over"


def _around(around: AroundItem) -> str:
    at_least = "at least " if around.is_lower_bound else ""
    errors = ", ".join(
        f"{each.breakers:,} {shortened(each.error_type or 'without an error type', _MESSAGE_WIDTH)}"
        for each in around.by_error
        if each.breakers
    )
    return (
        f"{at_least}{around.opened_count:,} of the {around.breakers:,} breakers opened too, from {to_milliseconds(around.since)} to "
        f"{to_milliseconds(around.until)}, {around.same_error_count:,} with the same error"
        + (f" ({errors})" if errors else "")
        + f"; {around.same_error_before:,} with it in the hour before"
    )


def _recurrence(recurrence: RecurrenceItem) -> str:
    day, week = recurrence.trips_24_hours, recurrence.trips_7_days
    all_of_them = (
        "in all"
        if recurrence.since is None
        else f"since {to_milliseconds(recurrence.since)}, before which none was looked for"
    )
    parts = [
        f"{recurrence.trips:,} {all_of_them}",
        f"{day:,} in the 24 hours and {week:,} in the 7 days up to {to_milliseconds(recurrence.up_to)}",
    ]
    if recurrence.usual_hour_utc is not None:
        parts.append(f"usually about {recurrence.usual_hour_utc:02}:00 UTC")
    if recurrence.mean_seconds_to_recover is not None:
        mean = _span(recurrence.mean_seconds_to_recover)
        parts.append(f"over after {mean} on average of {recurrence.recoveries:,}")
    return "; ".join(parts)


def _span(seconds: float) -> str:
    return span(round(seconds * 1_000_000))
