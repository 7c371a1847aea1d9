"""From the journal to batches: the moment in which events get the database's time and are frozen."""

from __future__ import annotations

from dataclasses import replace

from breaker_store.core.events import Kind, Outcome, Transition, Verdict
from breaker_store.core.policy import Policy
from breaker_store.ports import Batch, Mark, OutcomeRow, Source, UserTransition
from breaker_store.runtime.breaker import CircuitBreaker
from breaker_store.runtime.clock import NANOSECONDS_IN_MICROSECOND as NANOSECONDS
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.journal import Journal, Marking, Refusals

_SUCCESS = int(Kind.SUCCESS)
_REJECTED = int(Kind.REJECTED)
_COUNTED = int(Verdict.COUNTED)


class BatchCutter:
    """Takes what waits in a journal as a batch, on the database's clock.

    Times never run backwards within a writer: where a new measurement of the database's clock would make them, the
    last time is used again, and the numbers keep the order.
    """

    def __init__(self, journal: Journal, clock: Clock, source: Source = Source.LIVE) -> None:
        self._journal = journal
        self._clock = clock
        self._source = source
        self._last_at = 0

    def cut(self, limit: int, correction_us: int) -> Batch:
        """Take up to `limit` entries, of which there must be one, oldest first."""
        journal = self._journal
        pending = journal.pending
        first_seq = seq = journal.taken + 1
        first_at: int | None = None
        shift = self._clock.origin_us + correction_us
        at = self._last_at
        work = _Work()
        for seq in range(first_seq, first_seq + min(limit, len(pending))):
            entry = pending.popleft()
            breaker: CircuitBreaker = entry[0]
            user_id = breaker.user_id or 0
            if isinstance(entry, list):
                at = max(at, entry[2] // NANOSECONDS + shift)
                work.outcomes.append(_refusals_row(entry, at, seq))
                breaker.end_counting_refusals()
            elif len(entry) == 5:
                # One longer loop with nothing called in it: nearly all events come by here.
                _, state, started_ns, ended_ns, operation = entry
                if operation is not None and not isinstance(operation, str):
                    operation = None  # a proxy that has an attribute of every name
                at = max(at, ended_ns // NANOSECONDS + shift)
                duration_us = (ended_ns - started_ns) // NANOSECONDS
                work.outcomes.append(
                    (at, user_id, seq, duration_us, state.generation, state.era, _SUCCESS, _COUNTED,
                     None, None, None, None, operation, None, None)
                )  # fmt: skip
            else:
                at = max(at, entry[1].at + correction_us)
                work.take_event(user_id, entry[1], entry[2], at, correction_us)
            if not breaker.stored:
                work.newcomers[user_id] = breaker.state.policy
                breaker.stored = True
            first_at = first_at or at
        journal.taken = seq
        self._last_at = at
        return Batch(
            writer_id=journal.writer_id,
            batch_no=0,
            first_seq=first_seq,
            last_seq=seq,
            source=self._source,
            previous_digest=None,
            earliest=first_at or at,
            latest=at,
            outcomes=work.outcomes,
            transitions=work.transitions,
            marks=work.marks,
            newcomers=work.newcomers,
        )


class _Work:
    """What is being put into a batch."""

    __slots__ = ("marks", "newcomers", "outcomes", "transitions")

    def __init__(self) -> None:
        self.outcomes: list[OutcomeRow] = []
        self.transitions: list[UserTransition] = []
        self.marks: list[Mark] = []
        self.newcomers: dict[int, Policy] = {}

    def take_event(
        self, user_id: int, event: Outcome | Transition, marking: Marking | None, at: int, correction_us: int
    ) -> None:
        if isinstance(event, Transition):
            shifted = replace(event.shifted(correction_us), at=at)
            self.transitions.append(UserTransition(user_id, shifted))
            return
        self.outcomes.append(outcome_row(user_id, event, at))
        if marking is not None:
            last_failure = marking.last_failure and marking.last_failure.shifted(correction_us)
            seq = event.event_id.writer_seq
            self.marks.append(Mark(user_id, seq, marking.kind, at, event.permit.era, last_failure))


def outcome_row(user_id: int, outcome: Outcome, at: int) -> OutcomeRow:
    permit = outcome.permit
    return (
        at,
        user_id,
        outcome.event_id.writer_seq,
        outcome.duration_us,
        permit.generation,
        permit.era,
        int(outcome.kind),
        int(outcome.verdict),
        permit.probe or None,
        outcome.count,
        outcome.attempt,
        outcome.trace_id,
        outcome.operation,
        outcome.error_type,
        outcome.error_message,
    )


def _refusals_row(refusals: Refusals, at: int, seq: int) -> OutcomeRow:
    breaker, state, first_ns, last_ns, count = refusals
    duration_us = (last_ns - first_ns) // NANOSECONDS
    return (
        at, breaker.user_id or 0, seq, duration_us, state.generation, state.era, _REJECTED, _COUNTED,
        None, count, None, None, None, None, None,
    )  # fmt: skip
