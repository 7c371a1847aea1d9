"""Fills a database with a sealed history of 30 days: real breakers, on a clock that is moved by hand, and real batches."""

from __future__ import annotations

import datetime as dt
import random
from contextlib import suppress
from dataclasses import replace
from typing import Final

from breaker_store.postgres.codec import PostgresBatch, microseconds
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import Clock, ManualClock
from breaker_store.runtime.cutting import BatchCutter
from breaker_store.runtime.registry import CircuitBreakerRegistry
from tests.benchmarks.feeding import BATCH_SIZE, fail, send_message
from tests.benchmarks.filling import DAYS, find_or_make, tidy
from tests.runtime.driving import Keeper

WRITERS: Final = 4
CALLS_A_TURN: Final = 10_000
SICK_EVERY: Final = 100


async def find_or_fill_sealed(server_url: str, events: int, breakers: int) -> str:
    """Give the address of a database with about so many events, sealed by four writers in batches of a thousand.

    Two calls in a hundred fail, and four in five of one user in a hundred.
    """

    async def fill(database_url: str, connection: Connection) -> None:
        log = PostgresEventLog(database_url, Clock())
        writers = [_Writer(log, number, events, breakers) for number in range(WRITERS)]
        try:
            for _ in range(0, events, WRITERS * CALLS_A_TURN):
                for writer in writers:
                    await writer.take_turn()
        finally:
            await log.close()
        await tidy(connection)

    return await find_or_make(server_url, f"sealed_{events}_{breakers}", fill)


class _Writer:
    def __init__(self, log: PostgresEventLog, number: int, events: int, breakers: int) -> None:
        begin = dt.datetime.combine(
            dt.datetime.now(dt.UTC).date() - dt.timedelta(days=DAYS), dt.time(), dt.UTC
        )
        self._log = log
        self._clock = ManualClock(microseconds(begin))
        self._pause_seconds = DAYS * 86_400 * WRITERS / events
        self._registry = CircuitBreakerRegistry(clock=self._clock)
        journal = self._registry.surroundings.journal
        journal.attach(Keeper(), 10 * CALLS_A_TURN)
        self._cutter = BatchCutter(journal, self._clock)
        self._journal = journal
        self._users = range(number, breakers, WRITERS)
        self._last: PostgresBatch | None = None

    async def take_turn(self) -> None:
        for user_id in random.choices(self._users, k=CALLS_A_TURN):
            self._clock.advance(self._pause_seconds)
            failing = random.random() < (0.8 if user_id % SICK_EVERY == 0 else 0.02)
            with suppress(Exception):
                await self._registry.get_breaker(user_id).call(fail if failing else send_message)
        while self._journal.pending:
            batch = self._cutter.cut(BATCH_SIZE, 0)
            numbered = replace(
                batch,
                batch_no=1 if self._last is None else self._last.batch.batch_no + 1,
                previous_digest=self._last and self._last.digest,
            )
            self._last = self._log.seal(numbered)
            await self._log.append(self._last)
