"""The demo's sentences, for the screen and for plain lines alike."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from breaker_store.core.events import CircuitState, Failure, Transition
from breaker_store.demo.observing import Ailing, Heard, Observation
from breaker_store.demo.serving import API_PATH
from breaker_store.runtime.tally import RecorderStats
from breaker_store.settings import Location

NAMED_AT_MOST = 3


def describe_known(breakers: int, ailing: Sequence[Ailing]) -> str:
    """Say what the store knew at the start: `42 breakers known, 3 still open: user 117 for another 23 s, ...`."""
    if not breakers:
        return "no breaker is known yet: this is the first run"
    still_open = [each for each in ailing if each.state.state is CircuitState.OPEN]
    still_open.sort(key=lambda each: each.remaining_seconds, reverse=True)
    known = f"{breakers:,} breakers known"
    if not still_open:
        return f"{known}, none of them open"
    named = [f"user {each.user_id} {_wait(each)}" for each in still_open[:NAMED_AT_MOST]]
    left_out = len(still_open) - len(named)
    return f"{known}, {len(still_open)} still open: {', '.join(named)}" + (
        f", and {left_out} more" if left_out else ""
    )


def _wait(ailing: Ailing) -> str:
    if ailing.state.suspension is not None:
        return "until it is resumed"
    if ailing.state.retry_at is None:
        return "until it is released"
    if ailing.remaining_seconds == 0:
        return "until its next call"
    return f"for another {ailing.remaining_seconds:.0f} s"


def describe_standing(ailing: Ailing) -> str:
    """Say what a breaker that is not closed waits for, in at most 15 characters."""
    state = ailing.state
    if state.state is CircuitState.HALF_OPEN:
        return f"probing, {state.success_count} of {state.policy.success_threshold}"
    if state.suspension is not None:
        return "suspended"
    if state.retry_at is None:
        return "until released"
    if ailing.remaining_seconds == 0:
        return "next call tries"
    return f"{ailing.remaining_seconds:.1f} s left"


def describe_failure(failure: Failure | None) -> str:
    """Say what failed, by the error's own name without its module."""
    if failure is None:
        return "nothing is known"
    name = (failure.error_type or "failure").rpartition(".")[2]
    return f"{name}: {failure.error_message}" if failure.error_message else name


def describe_reason(transition: Transition) -> str:
    """Say why a transition came, with the failure that tipped it, or with who did it."""
    reason = transition.reason or transition.kind.label.replace("_", " ")
    if transition.actor:
        return f"{reason} (by {transition.actor})"
    if transition.causes:
        return f"{reason}; {describe_failure(transition.causes[-1])}"
    return reason


def describe_heard(heard: Heard) -> str:
    change = f"{heard.transition.from_state} -> {heard.transition.to_state}"
    return f"user {heard.user_id}  {change}: {describe_reason(heard.transition)}"


def describe_breakers(seen: Observation) -> str:
    states = (CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN)
    return ", ".join(f"{seen.count(state)} {state.replace('_', '-')}" for state in states)


def describe_calls(seen: Observation) -> str:
    tally = seen.tally
    calls = f"{tally.calls:,} calls in {seen.elapsed_seconds:.0f} s"
    return f"{calls}, {tally.failures:,} failed, {tally.refused:,} refused"


def describe_events(recorder: RecorderStats) -> str:
    lost = recorder.set_aside + recorder.lost
    return f"{recorder.flushed:,} stored, {recorder.queued:,} queued" + (f", {lost:,} LOST" if lost else "")


def describe_summary(seen: Observation) -> str:
    events = describe_events(seen.recorder)
    return f"{describe_breakers(seen)}; {describe_calls(seen)}; events: {events}"


def example_requests(api_url: str, user_id: int | None) -> tuple[str, ...]:
    """Give commands to ask the API with: for everybody, and for one user if there is one to ask about."""
    summary = f"curl {api_url}{API_PATH}/summary"
    return (summary,) if user_id is None else (summary, f"curl {api_url}{API_PATH}/{user_id}/transitions")


def describe_end(location: Location, stored: int, user_id: int) -> str:
    """Say what is kept and how to look at it; a database's address may contain a password and is not repeated."""
    if not stored:
        return "ended before anything happened: no event was stored"
    if location.data_dir is None:
        where = "--database-url ... (the same as here)"
    else:
        where = f"--data-dir {shlex.quote(str(location.data_dir))}"
    return f"{stored:,} events were stored. To look at them: breaker-store history {user_id} {where}"
