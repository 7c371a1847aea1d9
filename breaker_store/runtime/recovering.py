"""Delivers what an earlier process left in the spool, before anything is decided from the log.

The events go under the id of the writer that numbered them, after the last that the ledger has of it, so that what was
stored before the process ended is not stored again. Its last transaction may still be under way: when the ledger gets
ahead of what was read from it, delivery goes on from there.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import tenacity

from breaker_store.ports import Batch, EventLog
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.cutting import not_before
from breaker_store.runtime.sending import Sender
from breaker_store.runtime.spooling import read_counted
from breaker_store.runtime.tally import Tally
from breaker_store.spool import Spool, SpoolWriter

logger = logging.getLogger(__name__)

BATCH_SIZE: Final = 1_000
PATIENCE_SECONDS: Final = 10.0
EVENTS_BETWEEN_NEWS: Final = 100_000


async def deliver_leftovers(spool: Spool, log: EventLog[Any], tally: Tally, clock: Clock) -> None:
    """Have everything stored that earlier processes left in a spool, oldest first, and remove it there.

    Raises:
        LogUnavailableError: the log was away for longer than `PATIENCE_SECONDS`; what is not stored stays in the spool.

    """
    for left in spool.leftovers():
        before = tally.flushed
        await _Delivery(left, log, tally, spool, clock).run()
        left.remove()
        stored = tally.flushed - before
        if stored:
            logger.warning(
                "%d events that writer %d had left in %s are stored now",
                stored,
                left.writer_id,
                spool.directory,
            )


class _Delivery:
    """What one writer left, on its way into the log."""

    def __init__(
        self, left: SpoolWriter, log: EventLog[Any], tally: Tally, spool: Spool, clock: Clock
    ) -> None:
        self._left = left
        self._log = log
        self._tally = tally
        self._clock = clock
        patience = tenacity.stop_after_delay(PATIENCE_SECONDS)
        self._sender = Sender(log, tally, spool, patience=patience, inherited=True)
        self._news_at = EVENTS_BETWEEN_NEWS

    async def run(self) -> None:
        await self._sender.read_head(self._left.writer_id)
        latest = 0
        while batch := self._read(self._sender.done_seq):
            await self._log.keep_time()
            untold = self._tally.gaps
            await self._sender.deliver(self._tally.tell_gaps(not_before(batch, latest)))
            if self._sender.done_seq < batch.last_seq:
                self._tally.gaps = untold + self._tally.gaps
            latest = max(latest, batch.latest)
            self._tell_how_far()
        if self._tally.gaps:
            await self._sender.deliver(self._tally.gaps_alone(self._left.writer_id, self._sender.done_seq))

    def _read(self, after_seq: int) -> Batch | None:
        now = self._clock.now_us() + self._log.correction_us
        return read_counted(self._left, after_seq, BATCH_SIZE, self._tally, now)

    def _tell_how_far(self) -> None:
        if self._tally.flushed >= self._news_at:
            self._news_at += EVENTS_BETWEEN_NEWS
            logger.info("%d events of earlier processes are stored so far", self._tally.flushed)
