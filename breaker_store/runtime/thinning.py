"""What a spool near its limit does not take.

There is less room for what tells less: from four fifths of the limit on successes and refusals are left out, from
nineteen twentieths on failures as well, and transitions at a quarter over the limit. A success that its breaker's row
must hear of counts as a failure.
"""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from breaker_store.core.events import Kind
from breaker_store.ports import Batch, GapReason, OutcomeRow
from breaker_store.runtime.tally import Tally, count_gap, numbers
from breaker_store.spool import Spool

logger = logging.getLogger(__name__)

NO_SUCCESSES_FROM: Final = 0.8
NO_FAILURES_FROM: Final = 0.95
NOTHING_FROM: Final = 1.25

_FAILURE: Final = int(Kind.FAILURE)
_NONE: Final[AbstractSet[int]] = frozenset()


class Thinning:
    """Leaves out of batches what a spool does not take, counts it, and says so once a level."""

    def __init__(self, spool: Spool, tally: Tally) -> None:
        self._spool = spool
        self._tally = tally
        self._said = ""

    def thin(self, batch: Batch) -> Batch:
        return thin(batch, self._spool.full_share)

    def count_left_out(self, whole: Batch, kept: Batch) -> AbstractSet[int]:
        """Count what was left out of a batch, and give its numbers."""
        if kept is whole:
            self._said = ""
            return _NONE
        left_out = numbers(whole) - numbers(kept)
        if left_out:
            self._tally.lose(count_gap(_only(whole, left_out), GapReason.SPOOL_FULL))
            self._say(_what_is_left_out(self._spool.full_share))
        return left_out

    def _say(self, what: str) -> None:
        if what != self._said:
            self._said = what
            share = 100 * self._spool.full_share
            logger.error(
                "the spool in %s is %.0f %% full: %s are not kept", self._spool.directory, share, what
            )


def _what_is_left_out(full_share: float) -> str:
    if full_share < NO_FAILURES_FROM:
        return "successes"
    return "successes and failures" if full_share < NOTHING_FROM else "successes, failures and transitions"


def _only(batch: Batch, chosen: AbstractSet[int]) -> Batch:
    return replace(
        batch,
        outcomes=[row for row in batch.outcomes if row[2] in chosen],
        transitions=[each for each in batch.transitions if each.transition.event_id.writer_seq in chosen],
    )


def thin(batch: Batch, full_share: float) -> Batch:
    """Leave out of a batch what a spool of this fullness does not take; the same object if that is nothing."""
    if full_share < NO_SUCCESSES_FROM:
        return batch
    marked = {mark.writer_seq for mark in batch.marks}
    outcomes: list[OutcomeRow] = []
    if full_share < NO_FAILURES_FROM:
        outcomes = [row for row in batch.outcomes if row[6] == _FAILURE or row[2] in marked]
    left = {row[2] for row in outcomes}
    return replace(
        batch,
        outcomes=outcomes,
        transitions=batch.transitions if full_share < NOTHING_FROM else (),
        marks=[mark for mark in batch.marks if mark.writer_seq in left],
    )
