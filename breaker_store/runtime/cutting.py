"""From the journal to batches: the moment in which events get the database's time and are frozen."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from uuid import UUID

from breaker_store.core.events import Kind, Outcome, Transition, Verdict
from breaker_store.core.policy import Policy
from breaker_store.core.state import BreakerState
from breaker_store.ports import Batch, Mark, OutcomeRow, Source, UserTransition
from breaker_store.runtime.breaker import CircuitBreaker
from breaker_store.runtime.clock import NANOSECONDS_IN_MICROSECOND as NANOSECONDS
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.journal import (
    LONGEST_REFUSALS_NS,
    Entry,
    Journal,
    Marking,
    Refusals,
    TracedSuccess,
)
from breaker_store.settings import Durability

_SUCCESS = int(Kind.SUCCESS)
_REJECTED = int(Kind.REJECTED)
_COUNTED = int(Verdict.COUNTED)

_AFFORDABLE_US = 4_000
_COST_US, _TRACED_COST_US, _OUTCOME_COST_US, _TRANSITION_COST_US = 2, 5, 15, 100


class BatchCutter:
    """Takes what waits in a journal as a batch, on the database's clock.

    Times never run backwards within a writer: where a new measurement of the database's clock would make them, the
    last time is used again, and the numbers keep the order.

    Attributes:
        last_at: the time of the last event that was taken.

    """

    def __init__(self, journal: Journal, clock: Clock, source: Source = Source.LIVE) -> None:
        self._journal = journal
        self._clock = clock
        self._source = source
        self.last_at = 0

    def cut(self, limit: int, correction_us: int) -> Batch:
        """Take up to `limit` entries, of which there must be one, oldest first; fewer if they are dear to encode."""
        batch = self.copy(0, self.affordable(limit), correction_us)
        self.drop(batch.last_seq - batch.first_seq + 1, batch.latest)
        return batch

    def oldest_at(self) -> int:
        """Tell when the oldest entry, of which there must be one, happened, on the registry's clock."""
        entry = self._journal.pending[0]
        if isinstance(entry, list):
            return self._clock.at_us(entry[2])
        return entry[1].at if len(entry) == 3 else self._clock.at_us(entry[3])

    def affordable(self, limit: int) -> int:
        """Tell how many of the oldest entries, up to `limit`, can be encoded without holding up the event loop."""
        cost_us = 0
        for count, entry in enumerate(islice(self._journal.pending, limit), 1):
            cost_us += _COST_US if len(entry) == 5 else _cost_us(entry)
            if cost_us >= _AFFORDABLE_US:
                return count
        return min(limit, len(self._journal.pending))

    def drop(self, count: int, latest: int = 0) -> None:
        """Take the oldest entries out: they have been copied. What comes after them is no earlier than `latest`."""
        popleft = self._journal.pending.popleft
        for _ in range(count):
            entry = popleft()
            breaker: CircuitBreaker = entry[0]
            breaker.stored = True
            if isinstance(entry, list):
                breaker.end_counting_refusals()
        self._journal.taken += count
        self.last_at = max(self.last_at, latest)

    def copy(self, start: int, count: int, correction_us: int, not_before_at: int = 0) -> Batch:
        """Give so many entries, at least one, from a place of the queue on, and leave them there.

        An entry of refusals is not the same any more if more are counted in it afterwards: end that counting first.
        """
        journal = self._journal
        first_seq = seq = journal.taken + start + 1
        first_at: int | None = None
        shift = self._clock.origin_us + correction_us
        at = max(self.last_at, not_before_at)
        work = _Work(joins_refusals=journal.durability is not Durability.BEHIND)
        for seq, entry in enumerate(_slice(journal.pending, start, count), first_seq):
            breaker: CircuitBreaker = entry[0]
            user_id = breaker.user_id or 0
            if isinstance(entry, list):
                at = max(at, entry[2] // NANOSECONDS + shift)
                work.take_refusals(entry, at, seq)
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
            elif len(entry) == 6:
                at = max(at, entry[3] // NANOSECONDS + shift)
                work.outcomes.append(_traced_row(entry, at, user_id, seq))
            else:
                at = max(at, entry[1].at + correction_us)
                work.take_event(user_id, entry[1], entry[2], at, correction_us)
            if not breaker.stored:
                work.newcomers.setdefault(user_id, breaker.state.policy)
            first_at = first_at or at
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


def _cost_us(entry: Entry) -> int:
    """Tell about what it takes to cut and to encode an entry that is no plain success: documents take their time."""
    if len(entry) == 6:
        return _TRACED_COST_US
    return _TRANSITION_COST_US if isinstance(entry[1], Transition) else _OUTCOME_COST_US


def _slice(pending: deque[Entry], start: int, count: int) -> Iterable[Entry]:
    """Give a part of a queue, quickly at its ends."""
    if start == 0:
        return islice(pending, count)
    return [pending[place] for place in range(start, start + count)]


class _Work:
    """What is being put into a batch."""

    __slots__ = ("_joins_refusals", "_refusals", "marks", "newcomers", "outcomes", "transitions")

    def __init__(self, *, joins_refusals: bool) -> None:
        self._joins_refusals = joins_refusals
        self.outcomes: list[OutcomeRow] = []
        self.transitions: list[UserTransition] = []
        self.marks: list[Mark] = []
        self.newcomers: dict[int, Policy] = {}
        self._refusals: dict[tuple[int, int, int], int] = {}

    def take_refusals(self, refusals: Refusals, at: int, seq: int) -> None:
        """Take refusals; where each is an entry of its own, those of one breaker are one event all the same."""
        breaker, state, first_ns, last_ns, count = refusals
        user_id = breaker.user_id or 0
        round_ = (user_id, state.generation, state.era)
        place = self._refusals.setdefault(round_, len(self.outcomes))
        duration_us = (last_ns - first_ns) // NANOSECONDS
        if self._joins_refusals and place < len(self.outcomes):
            earlier = self.outcomes[place]
            together_us = at - earlier[0] + duration_us
            if together_us * NANOSECONDS < LONGEST_REFUSALS_NS:
                count += earlier[9] or 0
                self.outcomes[place] = _refusals_row(
                    earlier[0], user_id, earlier[2], together_us, state, count
                )
                return
            self._refusals[round_] = len(self.outcomes)
        self.outcomes.append(_refusals_row(at, user_id, seq, duration_us, state, count))

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


def not_before(batch: Batch, earliest: int) -> Batch:
    """Keep a writer's times from running backwards: events were copied to disk before the clock was last measured."""
    if batch.earliest >= earliest:
        return batch
    return replace(
        batch,
        earliest=max(batch.earliest, earliest),
        latest=max(batch.latest, earliest),
        outcomes=[(max(row[0], earliest), *row[1:]) for row in batch.outcomes],
        transitions=[
            each._replace(transition=replace(each.transition, at=max(each.transition.at, earliest)))
            for each in batch.transitions
        ],
        marks=[mark._replace(at=max(mark.at, earliest)) for mark in batch.marks],
    )


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


def _traced_row(entry: TracedSuccess, at: int, user_id: int, seq: int) -> OutcomeRow:
    _, state, started_ns, ended_ns, operation, trace_id = entry
    return (
        at, user_id, seq, (ended_ns - started_ns) // NANOSECONDS, state.generation, state.era, _SUCCESS, _COUNTED,
        None, None, None, UUID(int=trace_id), operation if isinstance(operation, str) else None, None, None,
    )  # fmt: skip


def _refusals_row(  # noqa: PLR0913, PLR0917 - what tells one row from another
    at: int, user_id: int, seq: int, duration_us: int, state: BreakerState, count: int
) -> OutcomeRow:
    return (
        at, user_id, seq, duration_us, state.generation, state.era, _REJECTED, _COUNTED,
        None, count, None, None, None, None, None,
    )  # fmt: skip
