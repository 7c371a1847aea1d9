"""Finding the event that a log refuses: a batch is divided until it stands alone, then it is sent without its texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from breaker_store.core.events import Failure, Transition
from breaker_store.errors import EventRefusedError
from breaker_store.ports import Batch

_TEXT_COLUMNS: Final = 3
_REFUSED: Final = "(the database refused this event's texts:"


def divide(batch: Batch, error: EventRefusedError) -> Iterator[Batch]:
    """Divide a refused batch: by half, or a single outcome into one without its texts; nothing if there is no other."""
    if batch.event_count > 1:
        middle = (batch.first_seq + batch.last_seq) // 2
        yield from filter(
            _has_events, (between(batch, 0, middle), between(batch, middle + 1, batch.last_seq))
        )
    elif not is_bare(batch):
        yield _bare(batch, f"{_REFUSED} {error})")


def _bare(batch: Batch, note: str) -> Batch:
    """Leave out the texts of a single event: what they tell of is counted all the same."""
    return replace(
        batch,
        outcomes=[(*row[:-_TEXT_COLUMNS], None, None, note) for row in batch.outcomes],
        transitions=[
            each._replace(transition=_bare_transition(each.transition, note)) for each in batch.transitions
        ],
        marks=[mark._replace(last_failure=_bare_failure(mark.last_failure)) for mark in batch.marks],
    )


def _bare_transition(transition: Transition, note: str) -> Transition:
    causes = tuple(
        replace(cause, error_type=None, error_message=None, operation=None) for cause in transition.causes
    )
    last_failure = _bare_failure(transition.last_failure)
    suspension = transition.suspension and replace(transition.suspension, actor=None, reason=None)
    return replace(
        transition, reason=note, actor=None, causes=causes, last_failure=last_failure, suspension=suspension
    )


def _bare_failure(failure: Failure | None) -> Failure | None:
    return failure and replace(failure, error_type=None, error_message=None, operation=None)


def is_bare(batch: Batch) -> bool:
    """Tell whether a single event has lost its texts already."""
    notes = [row[-1] for row in batch.outcomes] + [each.transition.reason for each in batch.transitions]
    return (notes[0] or "").startswith(_REFUSED)


def _has_events(batch: Batch) -> bool:
    return batch.event_count > 0


def between(batch: Batch, first: int, last: int) -> Batch:
    """Give the events from one number to another; there may be none."""
    outcomes = [row for row in batch.outcomes if first <= row[2] <= last]
    transitions = [each for each in batch.transitions if first <= each.transition.event_id.writer_seq <= last]
    numbers = [row[2] for row in outcomes] + [each.transition.event_id.writer_seq for each in transitions]
    times = [row[0] for row in outcomes] + [each.transition.at for each in transitions]
    return replace(
        batch,
        first_seq=min(numbers, default=0),
        last_seq=max(numbers, default=0),
        earliest=min(times, default=0),
        latest=max(times, default=0),
        outcomes=outcomes,
        transitions=transitions,
        marks=[mark for mark in batch.marks if first <= mark.writer_seq <= last],
    )
