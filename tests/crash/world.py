"""A small world with one event log, whose time passes only while everybody waits, and whose ways can be blocked."""

from __future__ import annotations

import asyncio
import selectors
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from breaker_store import LedgerError, LogUnavailableError, Policy
from breaker_store.memory import MemoryBatch, MemoryEventLog
from breaker_store.ports import Batch, Fate, LedgerHead, RecorderReport, StoredBreaker, StoredTransition
from breaker_store.postgres.loading import Snapshot
from breaker_store.runtime.clock import NANOSECONDS_IN_MICROSECOND, Clock

PATIENCE_SECONDS = 30.0
"""After this time without an answer a question has failed."""


class NobodyWillWakeError(Exception):
    """Everybody waits, and for nothing that will come."""


class _PassingTime(selectors.DefaultSelector):
    """Lets time pass where a loop would sleep."""

    def __init__(self, now: float) -> None:
        super().__init__()
        self.now = now

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise NobodyWillWakeError
        self.now += max(timeout, 0)
        return super().select(0)


class WorldLoop(asyncio.SelectorEventLoop):
    """An event loop that never sleeps: its clock goes on instead."""

    def __init__(self, now: float) -> None:
        self._passing = _PassingTime(now)
        super().__init__(self._passing)

    def time(self) -> float:
        return self._passing.now


@dataclass
class Weather:
    """What is between the processes and the log.

    Attributes:
        is_away: every question fails.
        answers_to_lose: so many of the next batches are stored, and the sender hears of an error.
        is_frozen: questions are not answered.
        under_way: batches that were sent and froze, and may arrive.

    """

    is_away: bool = False
    answers_to_lose: int = 0
    is_frozen: bool = False
    under_way: list[MemoryBatch] = field(default_factory=list)

    @property
    def is_clear(self) -> bool:
        return not (self.is_away or self.is_frozen)


class World:
    """The log, the clock and the weather, which outlive processes."""

    def __init__(self) -> None:
        self.weather = Weather()
        self._loop = WorldLoop(now=1_000.0)
        self.clock = Clock(
            lambda: round(self._loop.time() * 1e6) * NANOSECONDS_IN_MICROSECOND, 1_700_000_000_000_000
        )
        self.log = MemoryEventLog(self.clock)

    def run(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)

    def create_task(self, coroutine: Any) -> asyncio.Task[Any]:
        return self._loop.create_task(coroutine)

    def end_all_tasks(self) -> None:
        """Have nobody go on, and nobody hear of it, as when a process is killed."""
        now = self._loop.time()
        self.close()
        self._loop = WorldLoop(now)

    def close(self) -> None:
        self._loop.set_exception_handler(lambda *_: None)
        self._loop.close()

    async def let_late_batches_arrive(self) -> None:
        under_way, self.weather.under_way = self.weather.under_way, []
        for sealed in under_way:
            with suppress(LedgerError):  # another is stored under its number: the server refuses it
                await self.log.append(sealed)


class WeatheredLog:
    """A process's way to the log."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._log = world.log
        self._weather = world.weather

    correction_us = 0

    async def open(self) -> None:
        await self._reach()

    async def close(self) -> None:
        """Do nothing."""

    async def keep_time(self) -> None:
        """Do nothing: there is one clock."""

    def seal(self, batch: Batch) -> MemoryBatch:
        return self._log.seal(batch)

    async def append(self, sealed: MemoryBatch) -> list[Fate]:
        if self._weather.is_frozen and not self._weather.is_away:
            self._weather.under_way.append(sealed)
        await self._reach()
        fates = await self._log.append(sealed)
        if self._weather.answers_to_lose:
            self._weather.answers_to_lose -= 1
            raise LogUnavailableError("the answer was lost")
        return fates

    async def ledger_head(self, writer_id: int) -> LedgerHead | None:
        await self._reach()
        return await self._log.ledger_head(writer_id)

    async def report(self, report: RecorderReport) -> None:
        await self._reach()
        await self._log.report(report)

    async def read_breaker(self, user_id: int, policy: Policy) -> StoredBreaker | None:
        await self._reach()
        return await self._log.read_breaker(user_id, policy)

    async def read_all(self, policy: Policy) -> Snapshot:
        await self._reach()
        breakers = [await self._log.read_breaker(user_id, policy) for user_id in self._log.events]
        chain = await self._log.transitions_after(0, 10**9)
        return Snapshot([], [], [each for each in breakers if each is not None], len(chain))

    async def transitions_after(self, position: int, limit: int) -> list[StoredTransition]:
        await self._reach()
        return await self._log.transitions_after(position, limit)

    async def _reach(self) -> None:
        await asyncio.sleep(0.001)
        if self._weather.is_away:
            raise LogUnavailableError("the log is away")
        if self._weather.is_frozen:
            await asyncio.sleep(PATIENCE_SECONDS)
            raise LogUnavailableError("the log says nothing")
