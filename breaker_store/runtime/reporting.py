"""Leaves in the database how this process's recording goes, so that one look shows all processes."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from breaker_store.errors import StoreError
from breaker_store.ports import EventLog, RecorderReport
from breaker_store.runtime.recorder import Recorder

REPORT_INTERVAL_SECONDS: Final = 5.0
GOODBYE_SECONDS: Final = 2.0


class Reporter:
    """Reports a recorder's `stats` every few seconds; while the log is away it says nothing, for others do."""

    def __init__(
        self,
        recorder: Recorder,
        log: EventLog[Any],
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._recorder = recorder
        self._log = log
        self._pause = pause

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await self._report(ended=False)
            await self._pause(REPORT_INTERVAL_SECONDS)

    async def say_goodbye(self) -> None:
        """Report for the last time, if that is quickly done."""
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._report(ended=True)
        except TimeoutError:
            return

    async def _report(self, *, ended: bool) -> None:
        try:
            await self._log.report(self._describe(ended=ended))
        except StoreError:
            return  # the recorder and the follower say why, and the next report says how it went on

    def _describe(self, *, ended: bool) -> RecorderReport:
        recorder = self._recorder
        stats = recorder.stats()
        oldest = stats.oldest_waiting_seconds
        return RecorderReport(
            writer_id=recorder.writer_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=recorder.started_at_us + self._log.correction_us,
            durability=recorder.durability.value,
            queued=stats.queued,
            flushed=stats.flushed,
            spooled=stats.spooled,
            set_aside=stats.set_aside,
            lost=stats.lost,
            lost_why=stats.lost_why,
            oldest_waiting_us=None if oldest is None else round(oldest * 1_000_000),
            last_error=stats.last_error,
            ended=ended,
        )
