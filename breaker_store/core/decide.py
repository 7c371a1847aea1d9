"""What may happen: the events that follow from a command in a state."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, assert_never

from breaker_store.core.commands import (
    Abandon,
    Action,
    Admit,
    CarryOver,
    ChangePolicy,
    Command,
    Erase,
    ForceOpen,
    Release,
    Report,
    Reset,
    Resume,
    Suspend,
)
from breaker_store.core.events import (
    CircuitState,
    Event,
    EventId,
    Failure,
    Kind,
    Outcome,
    Permit,
    ProbeAbandoned,
    ProbeStarted,
    Suspension,
    Transition,
    Verdict,
)
from breaker_store.core.policy import GREATEST_TIMEOUT_SECONDS, MICROSECONDS
from breaker_store.core.state import BreakerState, evolve
from breaker_store.core.wording import counted


def decide(state: BreakerState, command: Command) -> tuple[Event, ...]:
    """Give the events that follow from a command, in order; none if nothing follows.

    A refused `Admit` gives one `rejected` outcome. `Report` and `Abandon` take permits that were given for this
    breaker, however long ago.

    Raises:
        ValueError: the command makes no sense: a permit that an open breaker can't have given, the release of a
            breaker that is not forced open, the resumption of one that is not suspended, or anything else that would
            end a suspension.

    """
    match command:
        case Admit():
            return _admit(state, command)
        case Report():
            return _report(state, command)
        case Abandon(permit):
            return _give_back(state, permit) if _is_current(state, permit) else ()
        case (
            Reset() | ForceOpen() | Release() | Suspend() | Resume() | ChangePolicy() | Erase() | CarryOver()
        ):
            return (_act(state, command),)
        case _:
            assert_never(command)


def end_after(at: int, seconds: float) -> int:
    """Give the end of being forced open for so long.

    Raises:
        ValueError: the time is not above 0, or is more than ten years.

    """
    if not 0 < seconds <= GREATEST_TIMEOUT_SECONDS:
        raise ValueError(
            f"a breaker is forced open for more than 0 and at most {GREATEST_TIMEOUT_SECONDS:,.0f} seconds, "
            f"not for {seconds}"
        )
    return at + max(1, round(seconds * MICROSECONDS))


def permit_of(state_after: BreakerState, events: tuple[Event, ...]) -> Permit | None:
    """Read the answer to an `Admit` from its events and the state after them; None if the call was refused."""
    if not events:
        return Permit(state_after.generation, state_after.era)
    last = events[-1]
    if not isinstance(last, ProbeStarted):
        return None
    return Permit(state_after.generation, state_after.era, last.probe)


def _is_current(state: BreakerState, permit: Permit) -> bool:
    return (permit.generation, permit.era) == (state.generation, state.era)


def _admit(state: BreakerState, command: Admit) -> tuple[Event, ...]:
    match state.state:
        case CircuitState.CLOSED:
            return ()
        case CircuitState.HALF_OPEN:
            return (_start_probe(state, command.at) or _reject(state, command),)
        case CircuitState.OPEN:
            if state.retry_at is None or command.at < state.retry_at:
                return (_reject(state, command),)
            half_opened = _half_open(state, command)
            return half_opened, ProbeStarted(1, command.at)
        case _:
            assert_never(state.state)


def _start_probe(state: BreakerState, now: int) -> ProbeStarted | None:
    # A slot is taken back only when somebody needs it: a slow answer that nobody waits behind is still an answer.
    # More than one is needed when the policy has come to allow fewer probes than are running.
    needed = max(0, len(state.probes) + 1 - state.policy.half_open_max_calls)
    timeout_us = state.policy.timeout_us
    overdue = [probe.number for probe in state.probes if now - probe.started_at >= timeout_us]
    if len(overdue) < needed:
        return None
    return ProbeStarted(state.probes_started + 1, now, displaced=tuple(overdue[:needed]))


def _reject(state: BreakerState, command: Admit) -> Outcome:
    permit = Permit(state.generation, state.era)
    return Outcome(Kind.REJECTED, command.event_id, command.at, permit, count=1)


def _half_open(state: BreakerState, command: Admit) -> Transition:
    return replace(
        _next(state, Kind.HALF_OPENED, command.at, command.event_id, command.era),
        to_state=CircuitState.HALF_OPEN,
        retry_at=None,
        reason=(
            "the time for which it was forced open is over"
            if state.forced
            else f"the wait of {state.policy.timeout_seconds:g} s is over"
        ),
    )


def _report(state: BreakerState, command: Report) -> tuple[Event, ...]:
    outcome = _outcome(state, command)
    if outcome.verdict is not Verdict.COUNTED:
        return (outcome,)
    if not command.counts:
        # Nothing is known of the bot, so the next caller may have the probe's slot.
        return replace(outcome, verdict=Verdict.NOT_COUNTED), *_give_back(state, outcome.permit)
    after = evolve(state, outcome)
    change = _change_after(after, command)
    return (outcome,) if change is None else (outcome, change)


def _give_back(state: BreakerState, permit: Permit) -> tuple[Event, ...]:
    return (ProbeAbandoned(permit.probe),) if state.holds(permit.probe) else ()


def _outcome(state: BreakerState, command: Report) -> Outcome:
    return Outcome(
        kind=command.kind,
        event_id=command.event_id,
        at=command.at,
        permit=command.permit or Permit(state.generation, state.era),
        verdict=_verdict(state, command.permit),
        duration_us=command.duration_us,
        operation=command.operation,
        error_type=command.error_type,
        error_message=command.error_message,
        attempt=command.attempt,
        trace_id=command.trace_id,
    )


def _verdict(state: BreakerState, permit: Permit | None) -> Verdict:
    if permit is None:
        return Verdict.WOULD_BE_REFUSED
    if not _is_current(state, permit):
        return Verdict.NOT_COUNTED
    if state.state is CircuitState.OPEN:
        raise ValueError(f"{permit} can't have been given: the breaker is open in that generation")
    if state.state is CircuitState.HALF_OPEN and not state.holds(permit.probe):
        return Verdict.NOT_COUNTED
    return Verdict.COUNTED


def _change_after(state: BreakerState, command: Report) -> Transition | None:
    """Tell which transition is due once the outcome has been counted."""
    event_id = EventId(command.event_id.writer_id, command.event_id.writer_seq + 1)
    if command.kind is Kind.FAILURE:
        reason = command.opens_at_once or _why_it_opens(state)
        return None if reason is None else _open(state, command, event_id, reason)
    # Only a failure trips: a breaker may stand over its threshold when two processes counted at once.
    if state.state is CircuitState.HALF_OPEN and state.success_count >= state.policy.success_threshold:
        return _close(state, command, event_id)
    return None


def _why_it_opens(state: BreakerState) -> str | None:
    """Give the reason, if a failure that has just been counted opens the breaker."""
    if state.state is CircuitState.HALF_OPEN:
        return "a probe failed"
    if state.failure_count >= state.policy.failure_threshold:
        return f"{state.failure_count} failures in a row"
    return None


def _open(state: BreakerState, command: Report, event_id: EventId, reason: str) -> Transition:
    return replace(
        _next(state, Kind.OPENED, command.at, event_id, command.era),
        to_state=CircuitState.OPEN,
        reason=reason,
        causes=state.failures,
        opened_at=command.at,
        opened_by=event_id,
        retry_at=command.at + state.policy.timeout_us,
    )


def _close(state: BreakerState, command: Report, event_id: EventId) -> Transition:
    return replace(
        _next(state, Kind.CLOSED, command.at, event_id, command.era),
        to_state=CircuitState.CLOSED,
        reason=f"{state.success_count} probes in a row succeeded",
        failure_count=0,
        opened_at=None,
        opened_by=None,
        retry_at=None,
    )


def _act(state: BreakerState, action: Action) -> Transition:
    _refuse_nonsense(state, action)
    match action:
        case Reset() | Release() | Resume():
            return _close_by_hand(state, action)
        case ForceOpen() | Suspend():
            return _open_by_hand(state, action)
        case ChangePolicy():
            return _change_policy(state, action)
        case Erase():
            return _erase(state, action)
        case CarryOver():
            return _carry_over(state, action)
        case _:
            assert_never(action)


def _refuse_nonsense(state: BreakerState, action: Action) -> None:
    if state.suspension is not None and isinstance(action, Reset | ForceOpen | Release):
        raise ValueError("the breaker of a bot that is suspended can only be resumed")
    if isinstance(action, Release) and not state.forced:
        raise ValueError("a breaker that is not forced open can't be released")
    if isinstance(action, Resume) and state.suspension is None:
        raise ValueError("a bot that is not suspended can't be resumed")


def _open_by_hand(state: BreakerState, command: ForceOpen | Suspend) -> Transition:
    # No failure made it: what had been counted stands in the log, and with the trip if there was one.
    opened = replace(
        _next(state, Kind.FORCED_OPEN, command.at, command.event_id, command.era),
        to_state=CircuitState.OPEN,
        reason=command.reason,
        actor=command.actor,
        failure_count=0,
        last_failure=None,
        opened_at=command.at,
        opened_by=command.event_id,
        forced=True,
    )
    if isinstance(command, ForceOpen):
        return replace(opened, retry_at=command.until)
    since = command.at if state.suspension is None else state.suspension.at
    suspension = Suspension(command.actor, command.reason, since)
    return replace(opened, kind=Kind.SUSPENDED, retry_at=None, suspension=suspension)


def _erase(state: BreakerState, command: Erase) -> Transition:
    return replace(
        _next(state, Kind.ERASED, command.at, command.event_id, command.era),
        to_state=CircuitState.CLOSED,
        actor=command.actor,
        failure_count=0,
        last_failure=None,
        opened_at=None,
        opened_by=None,
        retry_at=None,
        erasure_digest=command.erasure_digest,
    )


_CLOSINGS: Final = {Reset: Kind.RESET, Release: Kind.RELEASED, Resume: Kind.RESUMED}


def _close_by_hand(state: BreakerState, command: Reset | Release | Resume) -> Transition:
    return replace(
        _next(state, _CLOSINGS[type(command)], command.at, command.event_id, command.era),
        to_state=CircuitState.CLOSED,
        reason=command.reason,
        actor=command.actor,
        failure_count=0,
        last_failure=None,
        causes=_causes_ended(state),
        opened_at=None,
        opened_by=None,
        retry_at=None,
    )


def _causes_ended(state: BreakerState) -> tuple[Failure, ...]:
    """Keep what a reset wipes out, for whoever asks later what was reset."""
    if state.failures or state.last_failure is None:
        return state.failures
    return (state.last_failure,)


def _change_policy(state: BreakerState, command: ChangePolicy) -> Transition:
    # It begins no count, so it carries what the current one began with, and the outcomes are counted again on top.
    start = state.start
    # A wait is never longer than the timeout in force: so a reader who clamps it finds the same. One that somebody
    # set is not the policy's.
    longest = command.at + command.policy.timeout_us
    retry_at = state.retry_at
    if retry_at is not None and not state.forced:
        retry_at = min(retry_at, longest)
    return replace(
        _next(state, Kind.POLICY_CHANGED, command.at, command.event_id, state.era),
        generation=state.generation,
        policy=command.policy,
        policy_is_own=command.is_own,
        reason=command.reason,
        actor=command.actor,
        failure_count=start.failure_count,
        success_count=start.success_count,
        causes=start.failures,
        retry_at=retry_at,
        forced=state.forced,
        suspension=state.suspension,
    )


def _carry_over(state: BreakerState, command: CarryOver) -> Transition:
    return replace(
        _next(state, Kind.CARRIED_OVER, command.at, command.event_id, command.era),
        reason=f"count of {_count(state)} carried over" + (f": {command.reason}" if command.reason else ""),
        success_count=state.success_count,
        causes=state.failures,
        forced=state.forced,
        suspension=state.suspension,
    )


def _count(state: BreakerState) -> str:
    if state.state is CircuitState.HALF_OPEN:
        return counted(state.success_count, "success", "successes")
    return counted(state.failure_count, "failure")


def _next(state: BreakerState, kind: Kind, at: int, event_id: EventId, era: int) -> Transition:
    """Give a transition that changes nothing yet but begins a new count."""
    return Transition(
        kind=kind,
        event_id=event_id,
        at=at,
        version=state.version + 1,
        generation=state.generation + 1,
        era=era,
        follows=state.last_transition,
        from_state=state.state,
        to_state=state.state,
        policy=state.policy,
        policy_is_own=state.policy_is_own,
        failure_count=state.failure_count,
        last_failure=state.last_failure,
        opened_at=state.opened_at,
        opened_by=state.opened_by,
        retry_at=state.retry_at,
    )
