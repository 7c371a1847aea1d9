"""Brings what breakers did into the log, behind their backs: a call waits for it only if its user asked for that.

One batch is on its way at a time, so a writer's events arrive in their order. A batch goes out when the oldest entry
has waited for the interval, and at once when there is a transition among them. As soon as one has been on its way for
longer than `PATIENCE_SECONDS`, what waits is moved to the spool, every interval, until the log has caught up with it:
memory holds an interval's events and one batch. Without a spool they wait in memory, which is bounded; what gives way
there is counted, said, and told to the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

from breaker_store.errors import LedgerError, NotCommittedError
from breaker_store.ports import Batch, EventLog, Gap, GapReason
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.cutting import BatchCutter, not_before
from breaker_store.runtime.dividing import between, without
from breaker_store.runtime.journal import DEFAULT_QUEUE_LIMIT, Journal
from breaker_store.runtime.pacing import Pacing
from breaker_store.runtime.sending import LONGEST_PAUSE_SECONDS, Sender, Settle
from breaker_store.runtime.spooling import Spooling
from breaker_store.runtime.tally import RecorderStats, Tally, numbers
from breaker_store.runtime.waiting import Waiters
from breaker_store.settings import Durability
from breaker_store.spool import Spool

logger = logging.getLogger(__name__)

FLUSH_INTERVAL_SECONDS: Final = 0.02
PATIENCE_SECONDS: Final = 0.2
BATCH_SIZE: Final = 2_000
SPOOLED_AT_ONCE: Final = 500
"""How many events are written or read in one go: a millisecond or two of the event loop's time."""

StoredListener: TypeAlias = Callable[[Batch, float], object]
"""Called with the events of a flush, which are stored now, and with the seconds that it took."""


class Recorder:
    """Takes what waits in a journal and has it stored in a log, by way of a spool while the log is away.

    `settle` is awaited with the fates of each batch's transitions, before the next batch is sent, and `on_forgotten` when
    the log turns out to be an older copy of itself.

    Attributes:
        durability: the store's.
        tally: what has become of events so far, for `stats`.
        started_at_us: when it was started, on the registry's clock; 0 before.

    """

    def __init__(  # noqa: PLR0913 - it joins these, and is made in one place
        self,
        journal: Journal,
        clock: Clock,
        log: EventLog[Any],
        settle: Settle,
        *,
        on_forgotten: Callable[[], Awaitable[None]] | None = None,
        spool: Spool | None = None,
        durability: Durability = Durability.BEHIND,
        queue_limit: int = DEFAULT_QUEUE_LIMIT,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._log = log
        self._spool = spool
        self.durability = durability
        self._queue_limit = queue_limit
        self._pause = pause
        self.tally = Tally()
        self._cutter = BatchCutter(journal, clock)
        self._sender = Sender(log, self.tally, spool, settle=settle, on_forgotten=on_forgotten, pause=pause)
        self._spooling: Spooling | None = None
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._done_seq = 0
        self._waiters = Waiters()
        self._writer_id = self.started_at_us = 0
        self._sending: Batch | None = None
        self._busy_since: float | None = None
        self._latest_at = 0
        self._pacing = Pacing(pause)
        self._stored_listeners: list[StoredListener] = []

    def start(self) -> None:
        """Begin to record, as a new writer, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._journal.attach(self, self._queue_limit, self.durability)
        self._writer_id = self._journal.writer_id
        self.started_at_us = self._clock.now_us()
        if self._spool is not None:
            self._spooling = Spooling(
                self._spool,
                self._journal,
                self._clock,
                self._cutter,
                lambda: self._log.correction_us,
                self._has_backlog,
                self.tally,
            )
        self._task = self._loop.create_task(self._run(), name="breaker-store recorder")

    @property
    def writer_id(self) -> int:
        """Tell under which id this recorder's events are stored; 0 before the start."""
        return self._writer_id

    @property
    def has_spool(self) -> bool:
        return self._spooling is not None

    def subscribe(self, listener: StoredListener) -> Callable[[], None]:
        """Have a listener called after each flush that stored something; returns how to stop it.

        It is called on the event loop and off the calls' way, with 2,000 events at most. What an earlier process left is
        not among them. One that raises is logged.
        """
        self._stored_listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._stored_listeners:
                self._stored_listeners.remove(listener)

        return unsubscribe

    def stats(self) -> RecorderStats:
        self._count_what_gave_way()
        on_their_way = 0 if self._sending is None else self._sending.event_count
        return RecorderStats(
            queued=len(self._journal.pending) + on_their_way,
            flushed=self.tally.flushed,
            spooled=self._spooling.event_count if self._spooling is not None else 0,
            set_aside=self.tally.set_aside,
            lost=self.tally.lost.total(),
            lost_why=self.tally.lost_why,
            oldest_waiting_seconds=self._oldest_waiting_seconds(),
            last_error=self.tally.last_error,
        )

    async def flush(self) -> None:
        """Wait until everything that happened before this call is stored.

        Raises:
            LedgerError: recording has ended: the store was closed, or this is a forked child of the process that
                opened it.

        """
        await self._wait(for_commit=False)

    async def committed(self) -> None:
        """Wait until what waits is stored, and share its commit with all who wait.

        Raises:
            NotCommittedError: recording has ended, or ends before.

        """
        try:
            await self._wait(for_commit=True)
        except LedgerError as error:
            raise NotCommittedError(str(error)) from error

    async def _wait(self, *, for_commit: bool) -> None:
        self._fail_if_ended()
        target = self._journal.last_seq
        if self._done_seq < target:
            self._wake.set()
            await self._waiters.wait(target, for_commit=for_commit)

    async def close(self, drain_seconds: float) -> int:
        """Store what waits, for at most so many seconds, spool the rest, and stop; give how many were not stored.

        What happens after this call is not kept, and counted as lost.
        """
        self._count_what_gave_way()
        if self._journal.writer_id == self._writer_id:
            self._journal.stop()
        try:
            with suppress(TimeoutError, LedgerError):
                async with asyncio.timeout(drain_seconds):
                    await self.flush()
                    await self._tell_gaps_at_last()
        finally:
            left = await self._end()
        return left

    async def _tell_gaps_at_last(self) -> None:
        if self.tally.gaps:
            self._idle.clear()
            self._wake.set()
        await self._idle.wait()

    def wake_later(self) -> None:
        if self._timer is None and not self._loop.is_closed():
            self._timer = self._loop.call_later(FLUSH_INTERVAL_SECONDS, self._end_interval)

    def hurry(self) -> None:
        if not self._loop.is_closed():  # it was, with the store still open: threads may call all the same
            self._wake.set()

    def write_through(self) -> None:
        if self._spooling is not None:
            sending = self._sending
            if sending is not None and sending.last_seq > self._spooling.written_seq:
                # What was taken before it was written comes first: what is written now may rest upon it.
                self._spooling.keep(sending)
            left_out = self._spooling.write_through()
            if left_out:
                self._journal.kept_last = self._journal.last_seq not in left_out
                self._waiters.disappoint(left_out)

    def leave_to_parent(self) -> None:
        if self._spool is not None:
            self._spool.leave_to_parent()
        self._spooling = None

    async def _end(self) -> int:
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
        finally:
            left = self._leave_journal()
        return left

    def _leave_journal(self) -> int:
        if self._journal.writer_id != self._writer_id:
            return 0  # a forked child has begun anew; what waited is its parent's
        left = self._journal.last_seq - self._done_seq
        lost = self._spool_the_rest(left) + self._journal.missed.total()
        if lost:
            self.tally.lost[GapReason.ENDED] += lost
            why = self.tally.last_error or (
                "the time to do it ran out" if left else "they came while the store was being closed"
            )
            logger.error("%d events were not stored and are lost: %s", lost, why)
        self._waiters.fail("the store was closed before this was stored")
        self._journal.begin()
        self._sending = None
        return left

    def _spool_the_rest(self, left: int) -> int:
        """Write to disk all that is not known to be stored; tell how many events are nowhere then."""
        sending, spooling = self._sending, self._spooling
        on_their_way = 0 if sending is None else sending.event_count
        if spooling is None:
            return left
        if sending is not None and spooling.keep(sending):
            spooling.event_count += on_their_way
            on_their_way = 0
        if on_their_way == 0:
            spooling.move_all()
        has_kept_gaps = spooling.keep_gaps(self._journal.last_seq)
        if left == 0 and not has_kept_gaps:
            spooling.remove()
        if spooling.event_count:
            logger.warning(
                "%d events were not stored and are kept in %s: the next start stores them",
                spooling.event_count,
                spooling.spool.directory,
            )
        return on_their_way + len(self._journal.pending)

    def _end_interval(self) -> None:
        self._timer = None
        self._wake.set()
        if self._spooling is not None and self._should_spool():
            self._spool_some(self._spooling)
        elif self._busy_since is not None:
            self.wake_later()

    def _should_spool(self) -> bool:
        """Tell whether events go to the spool now: those before them are there, or on their way for too long."""
        if self._task is None or self._task.done():
            return True
        if self._busy_since is None:
            return False
        if self._has_backlog() or self._loop.time() - self._busy_since > PATIENCE_SECONDS:
            return True
        # Each batch may be quick enough, and yet more arrives than goes out.
        return len(self._journal.pending) > BATCH_SIZE and self._queue_age_us() > PATIENCE_SECONDS * 1_000_000

    def _has_backlog(self) -> bool:
        until = self._done_seq if self._sending is None else self._sending.last_seq
        return until < self._journal.taken

    def _spool_some(self, spooling: Spooling) -> None:
        if self._sending is None or spooling.keep(self._sending):
            self._waiters.disappoint(spooling.move(SPOOLED_AT_ONCE))
        if len(self._journal.pending) >= SPOOLED_AT_ONCE:
            self._timer = self._loop.call_later(0, self._end_interval)
        elif self._journal.pending or self._busy_since is not None:
            self.wake_later()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._idle.clear()
            try:
                await self._store_what_waits()
            except Exception as error:
                # A defect of ours: nobody else would say it. Meanwhile events wait, on disk if there is a spool.
                self.tally.last_error = f"{type(error).__name__}: {error}"
                logger.critical("storing events has failed unexpectedly, and is tried again", exc_info=True)
                await self._pause_busily()
            else:
                self._idle.set()

    async def _pause_busily(self) -> None:
        self._busy_since = self._loop.time()
        self.wake_later()
        await self._pause(LONGEST_PAUSE_SECONDS)
        self._wake.set()

    async def _store_what_waits(self) -> None:
        target = self._journal.last_seq
        try:
            while self._done_seq < target:
                self._busy_since = self._loop.time()
                await self._store_batch()
                # Encoding has no await in it: let the calls of the bots come in between.
                await asyncio.sleep(0)
            if self.tally.gaps and self._done_seq == self._journal.last_seq:
                await self._tell_gaps()
        finally:
            self._busy_since = None
        if self._journal.pending:
            self.wake_later()

    async def _tell_gaps(self) -> None:
        alone = self.tally.gaps_alone(self._writer_id, self._done_seq)
        try:
            await self._sender.deliver(alone)
        except BaseException:
            self.tally.gaps.extend(alone.gaps)
            raise

    async def _store_batch(self) -> None:
        if self._spooling is not None:
            self.wake_later()  # to look whether it takes too long
        await self._log.keep_time()
        batch = self._next_batch()
        if batch is not None:
            await self._deliver(batch)

    def _next_batch(self) -> Batch | None:
        """Take the next events, from the spool if they are there alone; None if there are none after all."""
        if self._sending is not None and self._sending.last_seq > self._sender.done_seq:
            # Something unexpected kept it from being stored.
            return between(self._sending, self._sender.done_seq + 1, self._sending.last_seq)
        self._sending = None
        self._count_what_gave_way()
        if self._spooling is not None and self._done_seq < self._journal.taken:
            batch = self._spooling.read(self._done_seq, BATCH_SIZE)
            if batch is None:
                self._waiters.pass_over(self._done_seq, self._journal.taken, ())
                self._finish(self._journal.taken)
                return None
            if batch.last_seq - self._done_seq > batch.event_count:
                self._waiters.pass_over(self._done_seq, batch.last_seq, numbers(batch))
            return self.tally.tell_gaps(not_before(batch, self._latest_at))
        return self.tally.tell_gaps(self._cutter.cut(BATCH_SIZE, self._log.correction_us))

    async def _deliver(self, batch: Batch) -> None:
        self._sending = batch
        began = self._loop.time()
        not_stored = await self._sender.deliver(batch)
        seconds = self._loop.time() - began
        self._waiters.disappoint(not_stored)
        self._sending = None
        self._latest_at = max(self._latest_at, batch.latest)
        self._finish(batch.last_seq)
        self._tell_stored(without(batch, not_stored) if not_stored else batch, seconds)
        if self._spooling is not None and self._has_backlog():
            waiting = self._spooling.event_count + len(self._journal.pending)
            await self._pacing.leave_room(seconds, batch.event_count, waiting)

    def _tell_stored(self, batch: Batch, seconds: float) -> None:
        if not batch.event_count:
            return
        for listener in tuple(self._stored_listeners):
            try:
                listener(batch, seconds)
            except Exception:
                logger.exception("listener %r failed on what was stored", listener)

    def _finish(self, seq: int) -> None:
        self._done_seq = max(self._done_seq, seq)
        self._waiters.release(self._done_seq)
        if self._spooling is not None:
            if self._done_seq >= self._journal.taken:
                self._spooling.event_count = 0  # what was damaged does not wait any more
            self._spooling.forget(self._done_seq)

    def _count_what_gave_way(self) -> None:
        missed = self._journal.missed
        if missed:
            now = self._clock.now_us() + self._log.correction_us
            reason = GapReason.ENDED if self._journal.is_stopped else GapReason.QUEUE_FULL
            logger.error("%d events are lost: %s", missed.total(), reason.in_words)
            self.tally.lose(Gap(reason, self._latest_at or now, now, **missed))
            missed.clear()

    def _oldest_waiting_seconds(self) -> float | None:
        now = self._clock.now_us()
        if self._sending is not None:
            at = self._sending.earliest - self._log.correction_us
        elif self._spooling is not None and self._spooling.event_count:
            at = self._spooling.oldest_at - self._log.correction_us
        elif self._journal.pending:
            return self._queue_age_us() / 1_000_000
        else:
            return None
        return max(now - at, 0) / 1_000_000

    def _queue_age_us(self) -> int:
        return max(self._clock.now_us() - self._cutter.oldest_at(), 0)

    def _fail_if_ended(self) -> None:
        if self._task is None or self._task.done() or self._journal.writer_id != self._writer_id:
            raise LedgerError(self.tally.last_error or "the recorder does not run")
        if not self._loop.is_running():
            raise LedgerError("the event loop of the recorder does not run")
