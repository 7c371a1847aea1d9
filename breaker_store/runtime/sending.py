"""Sends the batches of one writer, one after the other, each as the same bytes until the log has it.

What stands against a batch is one of three: the log is away, then it is sent again; an event in it can't be stored,
then that event is found and put aside; or the ledger says something else than this writer knows, and then the ledger's
own last entry tells what has happened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import tenacity

from breaker_store.core.policy import Policy
from breaker_store.errors import EventRefusedError, LedgerError, LogUnavailableError, SpoolError
from breaker_store.ports import Batch, EventLog, Fate, Gap, GapReason, LedgerHead
from breaker_store.runtime.dividing import divide, is_bare
from breaker_store.runtime.tally import Tally, count_gap, numbers
from breaker_store.spool import Spool

logger = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS: Final = 5.0

Settle = Callable[[list[Fate]], Awaitable[None]]


class Sender:
    """Sends the batches of one writer and keeps its place in the ledger.

    `settle` is awaited with the fates of each batch's transitions, before the next batch is sent; `on_forgotten` when the
    log turns out to be an older copy of itself. `patience` says when
    a log that is away is given up: never, where events can wait. An `inherited` writer is one whose process is dead: its
    last transaction may have been under way, so that the ledger gets ahead of what was read from it.

    Attributes:
        done_seq: all events up to this one have been dealt with.

    """

    def __init__(  # noqa: PLR0913 - what differs between a live writer and an inherited one
        self,
        log: EventLog[Any],
        tally: Tally,
        spool: Spool | None,
        *,
        settle: Settle | None = None,
        on_forgotten: Callable[[], Awaitable[None]] | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patience: tenacity.stop.stop_base = tenacity.stop_never,
        inherited: bool = False,
    ) -> None:
        self._log = log
        self._tally = tally
        self._spool = spool
        self._settle = settle
        self._on_forgotten = on_forgotten
        self._inherited = inherited
        self._batch_no = 0
        self._digest: bytes | None = None
        self.done_seq = 0
        self._owed: dict[int, Policy] = {}
        self._retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(LogUnavailableError),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=LONGEST_PAUSE_SECONDS),
            stop=patience,
            before_sleep=self._note_trouble,
            sleep=pause,
            reraise=True,
        )

    async def deliver(self, batch: Batch) -> set[int]:
        """Have a batch stored; give the numbers of those of its events that are not, and never will be."""
        if self._owed:
            # Those whose first event was set aside: without a row nothing of theirs could win.
            batch, self._owed = replace(batch, newcomers={**self._owed, **batch.newcomers}), {}
        return await self._deliver(batch)

    async def read_head(self, writer_id: int) -> LedgerHead | None:
        """Ask what the ledger has last of a writer, and go on from there."""
        head: LedgerHead | None = await self._persist(self._log.ledger_head, writer_id)
        self._batch_no, self._digest = (0, None) if head is None else (head.batch_no, head.digest)
        self.done_seq = 0 if head is None else head.last_seq
        return head

    async def _deliver(self, batch: Batch, *, again: bool = False) -> set[int]:
        try:
            fates = await self._append(batch)
        except EventRefusedError as error:
            return await self._divide(batch, error)
        except LedgerError as error:
            return await self._explain(batch, error, again=again)
        self._tally.flushed += batch.event_count
        if fates and self._settle is not None:
            await self._settle_safely(self._settle, fates)
        return set()

    async def _append(self, batch: Batch) -> list[Fate]:
        """Seal a batch as the next of this writer and send it until the log has it."""
        sealed = self._log.seal(replace(batch, batch_no=self._batch_no + 1, previous_digest=self._digest))
        fates: list[Fate] = await self._persist(self._log.append, sealed)
        self._batch_no += 1
        self._digest = sealed.digest
        self.done_seq = batch.last_seq
        return fates

    async def _divide(self, batch: Batch, error: EventRefusedError) -> set[int]:
        """Find the event for which the log refuses a batch; what is left of it is put aside."""
        self._tally.last_error = str(error)
        if batch.event_count == 0:
            logger.critical("the log can't be told of what it misses (%s): %s", error, batch.gaps)
            return set()
        self._tally.gaps.extend(batch.gaps)
        batch = replace(batch, gaps=())
        missing: set[int] = set()
        for part in divide(batch, error):
            missing |= await self._deliver(part)
        if batch.event_count == 1 and is_bare(batch):
            missing |= self._put_aside(batch, GapReason.REFUSED, str(error))
        return missing

    async def _explain(self, batch: Batch, error: LedgerError, *, again: bool) -> set[int]:
        """Find out why the ledger refuses a batch, and go on from what it has."""
        self._tally.last_error = str(error)
        believed = (self._batch_no, self._digest)
        sent_until = self.done_seq
        head = await self.read_head(batch.writer_id)
        if head is not None and head.batch_no > believed[0]:
            if self._inherited and self.done_seq > sent_until:
                return set()  # what landed late is behind `done_seq`: the rest is read again
            logger.critical("the ledger has other contents under this writer's next number: %s", error)
            return self._put_aside(batch, GapReason.CONTRADICTED, str(error))
        if again or believed == (self._batch_no, self._digest):
            return self._put_aside(batch, GapReason.CONTRADICTED, str(error))
        if self.done_seq < sent_until:
            self._count_forgotten(batch, sent_until - self.done_seq, error)
            if self._on_forgotten is not None:
                await self._persist(_without_question(self._on_forgotten), None)
            batch = _with_all_newcomers(batch)
        return await self._deliver(batch, again=True)

    def _count_forgotten(self, batch: Batch, count: int, error: LedgerError) -> None:
        logger.critical(
            "the database has forgotten %d events that it had stored (restored, or failed over to an older copy): %s",
            count,
            error,
        )
        self._tally.lose(Gap(GapReason.FORGOTTEN, batch.earliest, batch.earliest, unknown=count))

    def _put_aside(self, batch: Batch, reason: GapReason, why: str) -> set[int]:
        """Keep a batch that can't be stored where a person can look at it, or count it as lost."""
        self._owed |= batch.newcomers
        self._tally.gaps.extend(batch.gaps)
        gap = count_gap(batch, reason)
        kept_in = self._keep(batch, why)
        if kept_in is None:
            self._tally.lose(gap)
        else:
            self._tally.set_aside += batch.event_count
            self._tally.tell(gap)
        logger.error(
            "events %d-%d to %d can't be stored and are %s: %s",
            batch.writer_id, batch.first_seq, batch.last_seq,
            "lost" if kept_in is None else f"kept in {kept_in}", why,
        )  # fmt: skip
        self.done_seq = max(self.done_seq, batch.last_seq)
        return numbers(batch)

    def _keep(self, batch: Batch, why: str) -> Path | None:
        """Write a batch to a file of its own; None if that can't be done."""
        if self._spool is None:
            return None
        try:
            return self._spool.set_aside(batch, why)
        except SpoolError as error:
            self._tally.last_error = str(error)
            return None

    async def _settle_safely(self, settle: Settle, fates: list[Fate]) -> None:
        try:
            await settle(fates)
        except Exception:
            # The batch is stored: one breaker that can't take on what became of it must not stop all others.
            logger.exception("what became of %d transitions can't be taken on", len(fates))

    async def _persist(self, ask: Callable[[Any], Awaitable[Any]], question: object) -> Any:
        """Ask the log until it answers. The first time without a retrier, which costs as much as a small answer."""
        try:
            return await ask(question)
        except LogUnavailableError as error:
            place = "in memory" if self._spool is None else f"in {self._spool.directory}"
            logger.warning("the event log is away; events wait %s: %s", place, error)
            self._tally.last_error = str(error)
        answer: Any = await self._retrying(ask, question)
        logger.warning("the event log is back; what waits is being stored")
        return answer

    def _note_trouble(self, attempt: tenacity.RetryCallState) -> None:
        outcome = attempt.outcome
        self._tally.last_error = str(outcome.exception() if outcome is not None else None)


def _with_all_newcomers(batch: Batch) -> Batch:
    """Name every breaker that needs its row, for the log may have forgotten it; it passes over those that it has."""
    policies = dict.fromkeys((mark.user_id for mark in batch.marks), Policy())
    policies |= {user_id: transition.policy for user_id, transition in batch.transitions}
    return replace(batch, newcomers={**policies, **batch.newcomers})


def _without_question(ask: Callable[[], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    return lambda _question: ask()
