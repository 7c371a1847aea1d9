"""Brings what breakers did into the log, behind their backs: calls never wait for it.

One flush is in flight at a time, so a writer's events arrive in their order. A flush goes out when the oldest entry has
waited for the interval, and at once when there is a transition among them. While the log is away the same batch is sent
again and again, and the journal, which is bounded, fills up; what gives way there is counted and said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import tenacity

from breaker_store.core.policy import Policy
from breaker_store.errors import EventRefusedError, LedgerError, LogUnavailableError
from breaker_store.ports import Batch, EventLog, Fate
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.cutting import BatchCutter
from breaker_store.runtime.dividing import divide, is_bare
from breaker_store.runtime.journal import DEFAULT_QUEUE_LIMIT, Journal

logger = logging.getLogger(__name__)

FLUSH_INTERVAL_SECONDS: Final = 0.02
BATCH_SIZE: Final = 1_000
LONGEST_PAUSE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class RecorderStats:
    """What the recorder has done since it was started.

    Attributes:
        queued: entries that wait in the journal, not counting the batch that is being sent.
        flushed: events that are stored.
        set_aside: events that the database refused even without their texts.
        given_up: events that found the queue full.
        last_error: what the log last complained of; None if it never did.

    """

    queued: int
    flushed: int
    set_aside: int
    given_up: int
    last_error: str | None


class Recorder:
    """Takes batches from a journal and appends them to a log until they are stored.

    `settle` is awaited with the fates of each batch's transitions, before the next batch is sent.
    """

    def __init__(  # noqa: PLR0913 - it joins these, and is made in one place
        self,
        journal: Journal,
        clock: Clock,
        log: EventLog[Any],
        settle: Callable[[list[Fate]], Awaitable[None]],
        *,
        queue_limit: int = DEFAULT_QUEUE_LIMIT,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._journal = journal
        self._log = log
        self._settle = settle
        self._queue_limit = queue_limit
        self._cutter = BatchCutter(journal, clock)
        self._pause = pause
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._batch_no = 0
        self._digest: bytes | None = None
        self._done_seq = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._writer_id = 0
        self._flushed = self._set_aside = self._given_up = 0
        self._last_error: str | None = None
        self._owed: dict[int, Policy] = {}

    def start(self) -> None:
        """Begin to record, as a new writer, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._journal.attach(self._wake_later, self._wake.set, self._queue_limit)
        self._writer_id = self._journal.writer_id
        self._task = self._loop.create_task(self._run(), name="breaker-store recorder")

    def stats(self) -> RecorderStats:
        given_up = max(self._given_up, self._journal.given_up)
        queued = len(self._journal.pending)
        return RecorderStats(queued, self._flushed, self._set_aside, given_up, self._last_error)

    async def flush(self) -> None:
        """Wait until everything that happened before this call is stored.

        Raises:
            LedgerError: recording has ended: the ledger contradicts this writer, or the store was closed, or this is
                a forked child of the process that opened it.

        """
        self._fail_if_ended()
        target = self._journal.taken + len(self._journal.pending)
        if self._done_seq >= target:
            return
        waiter = self._loop.create_future()
        self._waiters.append((target, waiter))
        self._wake.set()
        await waiter

    async def close(self, drain_seconds: float) -> int:
        """Store what waits, for at most so many seconds, then stop; give the number of events that were not stored."""
        try:
            with suppress(TimeoutError, LedgerError):
                async with asyncio.timeout(drain_seconds):
                    await self.flush()
        finally:
            left = await self._end()
        return left

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
        self._say_what_was_given_up()
        left = self._journal.taken + len(self._journal.pending) - self._done_seq
        self._journal.begin()
        if left:
            logger.error(
                "%d events were not stored: %s", left, self._last_error or "the time to do it ran out"
            )
        return left

    def _wake_later(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_INTERVAL_SECONDS, self._end_interval)

    def _end_interval(self) -> None:
        self._timer = None
        self._wake.set()

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._store_what_waits()
        except Exception as error:
            # A contradiction in the ledger, or a defect of ours: either way nobody else would say it.
            self._last_error = str(error)
            logger.critical("recording has stopped, and nothing is stored from now on", exc_info=True)
            self._say_what_was_given_up()
            self._fail_waiters(LedgerError(str(error)))

    async def _store_what_waits(self) -> None:
        pending = self._journal.pending
        waiting = len(pending)
        while waiting > 0:
            await self._log.keep_time()
            batch = self._cutter.cut(BATCH_SIZE, self._log.correction_us)
            waiting -= batch.event_count
            # Those whose first event was set aside: without a row nothing of theirs could win.
            batch, self._owed = replace(batch, newcomers={**self._owed, **batch.newcomers}), {}
            await self._deliver(batch)
            self._done_seq = batch.last_seq
            self._release_waiters()
            self._say_what_was_given_up()
            # Encoding has no await in it: let the calls of the bots come in between.
            await asyncio.sleep(0)
        if pending:
            self._wake_later()

    async def _deliver(self, batch: Batch) -> None:
        """Store a batch; if the log refuses it for what one event contains, find that event."""
        try:
            fates = await self._append(batch)
        except EventRefusedError as error:
            self._last_error = str(error)
            for part in divide(batch, error):
                await self._deliver(part)
            if batch.event_count == 1 and is_bare(batch):
                self._set_aside += 1
                self._owed |= batch.newcomers
                logger.exception("event %d-%d was refused and is set aside", batch.writer_id, batch.first_seq)
            return
        self._flushed += batch.event_count
        if fates:
            await self._settle_safely(fates)

    async def _settle_safely(self, fates: list[Fate]) -> None:
        try:
            await self._settle(fates)
        except Exception:
            # The batch is stored: one breaker that can't take on what became of it must not stop all others.
            logger.exception("what became of %d transitions can't be taken on", len(fates))

    async def _append(self, batch: Batch) -> list[Fate]:
        """Seal a batch as the next of this writer and send it until the log has it."""
        sealed = self._log.seal(replace(batch, batch_no=self._batch_no + 1, previous_digest=self._digest))
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(LogUnavailableError),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=LONGEST_PAUSE_SECONDS),
            before_sleep=self._note_trouble,
            sleep=self._pause,
            reraise=True,
        )
        fates: list[Fate] = await retrying(self._log.append, sealed)
        self._batch_no += 1
        self._digest = sealed.digest
        return fates

    def _note_trouble(self, attempt: tenacity.RetryCallState) -> None:
        outcome = attempt.outcome
        error = outcome.exception() if outcome is not None else None
        if attempt.attempt_number == 1:
            logger.warning("the event log is away; events wait in memory: %s", error)
        self._last_error = str(error)
        self._say_what_was_given_up()

    def _say_what_was_given_up(self) -> None:
        more = self._journal.given_up - self._given_up
        if more > 0:
            logger.error("%d events were given up: the queue was full", more)
            self._given_up += more

    def _release_waiters(self) -> None:
        for target, waiter in self._waiters:
            if target <= self._done_seq and not waiter.done():
                waiter.set_result(None)
        self._waiters = [pair for pair in self._waiters if not pair[1].done()]

    def _fail_waiters(self, error: LedgerError) -> None:
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiters.clear()

    def _fail_if_ended(self) -> None:
        if self._task is None or self._task.done() or self._journal.writer_id != self._writer_id:
            raise LedgerError(self._last_error or "the recorder does not run")
