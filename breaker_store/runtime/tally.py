"""What has become of events: stored, put aside, or lost and why. Nothing is dropped without being counted here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from breaker_store.ports import Batch, Gap, GapReason, Source


@dataclass(frozen=True, slots=True)
class RecorderStats:
    """What the recorder has done since it was started.

    Attributes:
        queued: events that wait in memory.
        flushed: events that are stored.
        spooled: events that wait on disk alone.
        set_aside: events that can't be stored, or read from a damaged spool, and are kept in files of their own.
        lost: events that are nowhere: 0, or `lost_why` says what was the matter.
        oldest_waiting_seconds: the age of the oldest event that is not stored; None if none waits.
        last_error: what the log or the spool last complained of; None if they never did.

    """

    queued: int
    flushed: int
    spooled: int
    set_aside: int
    lost: int
    lost_why: str | None
    oldest_waiting_seconds: float | None
    last_error: str | None


@dataclass(slots=True)
class Tally:
    """What has become of events so far.

    Attributes:
        flushed: events that are stored.
        set_aside: events that are kept in files, for a person to look at.
        lost: events that are nowhere, by the reason.
        gaps: what is not in the log and has not been told it yet.
        last_error: what the log or the spool last complained of.

    """

    flushed: int = 0
    set_aside: int = 0
    lost: Counter[GapReason] = field(default_factory=Counter)
    gaps: list[Gap] = field(default_factory=list)
    last_error: str | None = None

    def lose(self, gap: Gap) -> None:
        self.lost[gap.reason] += gap.event_count
        self.tell(gap)

    def tell(self, gap: Gap) -> None:
        """Have the log told of a gap, with the next events; what is missing for one reason in a row is one gap."""
        if self.gaps and self.gaps[-1].reason is gap.reason:
            gap = _joined(self.gaps.pop(), gap)
        self.gaps.append(gap)

    @property
    def lost_why(self) -> str | None:
        """Say for which reasons events were lost; None if none were."""
        return "; ".join(reason.in_words for reason, count in self.lost.items() if count) or None

    def tell_gaps(self, batch: Batch) -> Batch:
        """Let the gaps that nobody was told of yet go with a batch."""
        if not self.gaps:
            return batch
        gaps, self.gaps = self.gaps, []
        return replace(batch, gaps=(*batch.gaps, *gaps))

    def gaps_alone(self, writer_id: int, done_seq: int) -> Batch:
        """Give a batch without events for the gaps, of which there must be one, that nobody was told of yet."""
        earliest = min(gap.first_at for gap in self.gaps)
        latest = max(gap.last_at for gap in self.gaps)
        none = Batch(writer_id, 0, done_seq + 1, done_seq, Source.LIVE, None, earliest, latest, ())
        return self.tell_gaps(none)


def _joined(one: Gap, other: Gap) -> Gap:
    counts = (mine + theirs for mine, theirs in zip(one[3:], other[3:], strict=True))
    return Gap(one.reason, min(one.first_at, other.first_at), max(one.last_at, other.last_at), *counts)


def numbers(batch: Batch) -> set[int]:
    """Give the numbers of a batch's events."""
    return {row[2] for row in batch.outcomes} | {
        each.transition.event_id.writer_seq for each in batch.transitions
    }


def count_gap(batch: Batch, reason: GapReason) -> Gap:
    """Say what is missing if a batch is not stored; refusals that were counted together are that many."""
    kinds: Counter[int] = Counter()
    for row in batch.outcomes:
        kinds[row[6]] += row[9] or 1
    return Gap(
        reason,
        batch.earliest,
        batch.latest,
        successes=kinds[1],
        failures=kinds[2],
        refusals=kinds[3],
        transitions=len(batch.transitions),
    )
