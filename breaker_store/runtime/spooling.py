"""The journal's half on disk: what waits is written behind each other into the spool, and read back in order.

Two things are done with it. Under `journaled`, events are copied as they happen and go on waiting in memory. While the
log is away they are moved: what is in the spool needs no memory. Both write the same records, so a new process
delivers them without knowing why they are there.

What a spool near its limit does not take is left out (see `thinning`) and counted in a gap, which is written with the
events after it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from breaker_store.errors import EventRefusedError, SpoolError
from breaker_store.ports import Batch, Gap, GapReason
from breaker_store.runtime.clock import NANOSECONDS_IN_MICROSECOND as NANOSECONDS
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.cutting import BatchCutter
from breaker_store.runtime.dividing import between, divide, is_bare
from breaker_store.runtime.journal import Journal
from breaker_store.runtime.tally import Tally, count_gap
from breaker_store.runtime.thinning import NO_SUCCESSES_FROM, Thinning
from breaker_store.spool import Spool, SpoolWriter

logger = logging.getLogger(__name__)

EMPTIED_FROM_BYTES: Final = 65_536
EMPTIED_FROM_SHARE: Final = 0.05
"""From which size on, in bytes or of the limit, a file is emptied when all in it has been stored from memory."""

GAPS_INTERVAL_US: Final = 1_000_000

RETRY_AFTER_NS: Final = 100_000_000
"""For how long a disk that refused is left alone."""

_NONE: AbstractSet[int] = frozenset()


class Spooling:
    """Copies and moves a journal's entries to the spool.

    `has_backlog` tells whether there are events on disk alone.

    Attributes:
        spool: the folder, with its limit.
        written_seq: all events up to this one that are not stored yet are in the file.
        event_count: how many wait on disk alone.
        oldest_at: of events on disk alone none is from before, as far as is known; on the database's clock.

    """

    def __init__(  # noqa: PLR0913, PLR0917 - it joins these, and is made in one place
        self,
        spool: Spool,
        journal: Journal,
        clock: Clock,
        cutter: BatchCutter,
        correction_us: Callable[[], int],
        has_backlog: Callable[[], bool],
        tally: Tally,
    ) -> None:
        self.spool = spool
        self._journal = journal
        self._clock = clock
        self._cutter = cutter
        self._correction_us = correction_us
        self._has_backlog = has_backlog
        self._tally = tally
        self._writer: SpoolWriter = spool.begin(journal.writer_id, clock.now_us())
        self._leave_alone_until_ns = 0
        self._thinning = Thinning(spool, tally)
        self._gaps_due_at = 0
        self._is_full = spool.full_share >= NO_SUCCESSES_FROM
        self._look_every_bytes = spool.limit_bytes // 200
        self._looked_size = 0
        self._copied_at = self._read_seq = 0
        self.written_seq = self.event_count = self.oldest_at = 0

    def write_through(self) -> AbstractSet[int]:
        """Copy to disk what waits and is not there yet; nearly always this is the success that has just been added.

        Gives the numbers of those that found no room there and are not kept at all.
        """
        journal = self._journal
        pending = journal.pending
        taken = journal.taken
        seq = taken + len(pending)
        unwritten = seq - (max(taken, self.written_seq))
        if unwritten <= 0 or (self._leave_alone_until_ns and self._is_left_alone()):
            return _NONE
        if self._is_full or abs(self._writer.size - self._looked_size) >= self._look_every_bytes:
            self._look_how_full()
        if self._is_full:
            # Copies give way to what is on disk alone; memory still has them.
            return self.move_all() if self._has_backlog() else _NONE
        entry = pending[-1]
        if unwritten == 1 and len(entry) == 5 and isinstance(entry, tuple) and entry[0].stored:
            breaker, state, started_ns, ended_ns, name = entry
            at = ended_ns // NANOSECONDS + self._clock.origin_us + self._correction_us()
            if at < self._copied_at or at < self._cutter.last_at:
                at = max(self._copied_at, self._cutter.last_at)
            try:
                self._writer.write_success(
                    seq, breaker.user_id or 0, at,
                    (ended_ns - started_ns) // NANOSECONDS, state.generation, state.era,
                    name if isinstance(name, str) else None,
                )  # fmt: skip
            except SpoolError as error:
                self._note_trouble(error)
                return _NONE
            except EventRefusedError:
                self._copy(unwritten)
                return _NONE
            self.written_seq = seq
            self._copied_at = at
            self._leave_alone_until_ns = 0
        else:
            self._copy(unwritten)
        return _NONE

    def _look_how_full(self) -> None:
        """Look how full the spool is; to do so for each event would cost as much as a tenth of its writing."""
        self._looked_size = self._writer.size
        self._is_full = self.spool.full_share >= NO_SUCCESSES_FROM

    def _copy(self, count: int) -> None:
        pending = self._journal.pending
        start = len(pending) - count
        for place in range(start, len(pending)):
            entry = pending[place]
            if isinstance(entry, list):
                entry[0].end_counting_refusals()
        batch = self._cutter.copy(start, count, self._correction_us(), self._copied_at)
        if self._write(batch):
            self.written_seq = batch.last_seq
            self._copied_at = batch.latest

    def move(self, limit: int) -> AbstractSet[int]:
        """Move up to `limit` of the oldest entries to disk; give the numbers of those that found no room there.

        If the disk refuses they stay where they are.
        """
        count = min(limit, len(self._journal.pending))
        count -= self._drop_copied(count)
        if count == 0 or self._is_left_alone():
            return _NONE
        count = self._cutter.affordable(count)
        whole = self._cutter.copy(0, count, self._correction_us(), self._copied_at)
        kept = self._thinning.thin(whole)
        if not self._write_with_gaps(kept):
            return _NONE
        self._leave_memory(count, kept.event_count, whole.latest)
        self.written_seq = self._journal.taken
        return self._thinning.count_left_out(whole, kept)

    def _write_with_gaps(self, batch: Batch) -> bool:
        """Write a batch and the gaps before it; gaps alone, while nothing is kept, once a second."""
        if not batch.event_count and not batch.newcomers and self._clock.now_us() < self._gaps_due_at:
            return True
        self._gaps_due_at = self._clock.now_us() + GAPS_INTERVAL_US
        with_gaps = self._tally.tell_gaps(batch)
        if self._write(with_gaps):
            return True
        self._tally.gaps.extend(with_gaps.gaps)
        return False

    def _drop_copied(self, limit: int) -> int:
        """Take the oldest entries, of which there are copies on disk, out of memory; tell how many."""
        count = min(max(self.written_seq - self._journal.taken, 0), limit)
        self._leave_memory(count, count, self._copied_at)
        return count

    def _leave_memory(self, count: int, kept_count: int, latest: int) -> None:
        """Take the oldest entries out of memory; so many of them are on disk."""
        if not count:
            return
        if not self.event_count:
            self.oldest_at = self._cutter.copy(0, 1, self._correction_us()).earliest
        self._cutter.drop(count, latest)
        self.event_count += kept_count

    def move_all(self) -> AbstractSet[int]:
        """Move everything to disk, unless the disk refuses; give the numbers of those that found no room there."""
        left_out: AbstractSet[int] = _NONE
        waiting = 0
        while waiting != (waiting := len(self._journal.pending)):
            left_out |= self.move(waiting)
        return left_out

    def keep(self, batch: Batch) -> bool:
        """Write a batch that was taken from memory, and is not known to be stored, unless it is on disk already."""
        if batch.last_seq > self.written_seq:
            if not self._write(between(batch, self.written_seq + 1, batch.last_seq)):
                return False
            self.written_seq = batch.last_seq
        return True

    def read(self, after_seq: int, limit: int) -> Batch | None:
        """Give the events that follow a number, oldest first; None if there are none on disk.

        From now on what is on disk is there alone: it would come from memory once more.
        """
        self._drop_copied(len(self._journal.pending))
        now = self._clock.now_us() + self._correction_us()
        batch = read_counted(self._writer, after_seq, limit, self._tally, now)
        if batch is None:
            self._read_seq, self.event_count = self.written_seq, 0
        else:
            self._read_seq = batch.last_seq
            self.event_count = max(self.event_count - batch.event_count, 0)
            self.oldest_at = max(self.oldest_at, batch.latest)
        return batch

    def keep_gaps(self, done_seq: int) -> bool:
        """Write down the gaps, if there are any, that the log was not told of: the next start tells it."""
        if not self._tally.gaps:
            return False
        return self._write(self._tally.gaps_alone(self._journal.writer_id, done_seq))

    def forget(self, through_seq: int) -> None:
        """Free the room of what is stored; a little of it may stay, since to empty a file takes longer than to write it."""
        is_little = self._writer.size < EMPTIED_FROM_BYTES and self.spool.full_share < EMPTIED_FROM_SHARE
        if is_little and through_seq > self._read_seq:
            return
        try:
            self._writer.forget(through_seq)
        except SpoolError as error:
            self._note_trouble(error)

    def remove(self) -> None:
        """Take this writer's files away: everything is stored."""
        try:
            self._writer.remove()
        except SpoolError as error:
            self._note_trouble(error)

    def _is_left_alone(self) -> bool:
        return self._leave_alone_until_ns > 0 and self._clock.monotonic_ns() < self._leave_alone_until_ns

    def _write(self, batch: Batch) -> bool:
        if batch.first_seq <= self._writer.last_seq:  # part of it got there before the disk refused
            batch = between(batch, self._writer.last_seq + 1, batch.last_seq)
        try:
            self._writer.write(batch)
        except SpoolError as error:
            self._note_trouble(error)
            return False
        except EventRefusedError as error:
            return self._write_parts(batch, error)
        self._leave_alone_until_ns = 0
        return True

    def _write_parts(self, batch: Batch, error: EventRefusedError) -> bool:
        """Find the event that can't be written; if it can't even be without its texts, it is lost."""
        self._tally.gaps.extend(batch.gaps)
        batch = replace(batch, gaps=())
        if batch.event_count == 1 and is_bare(batch):
            logger.critical(
                "event %d-%d can't be spooled and is lost: %s", batch.writer_id, batch.first_seq, error
            )
            self._tally.lose(count_gap(batch, GapReason.REFUSED))
            return True
        return all(self._write(part) for part in divide(batch, error))

    def _note_trouble(self, error: SpoolError) -> None:
        if self._leave_alone_until_ns == 0:
            logger.error("events can't be spooled and wait in memory: %s", error)
        self._tally.last_error = str(error)
        self._leave_alone_until_ns = self._clock.monotonic_ns() + RETRY_AFTER_NS


def read_counted(writer: SpoolWriter, after_seq: int, limit: int, tally: Tally, now: int) -> Batch | None:
    """Read on in a writer's files; what is damaged in them is counted, and told with the events after it."""
    known = len(writer.damaged)
    batch = writer.read(after_seq, limit)
    for damage in writer.damaged[known:]:
        tally.set_aside += damage.events
        at = now if batch is None else batch.earliest
        tally.tell(Gap(GapReason.DAMAGED, at, at, unknown=damage.events))
    return batch
