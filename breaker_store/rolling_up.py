"""Rolls outcomes up, and judges the fleet by it, a few seconds after each minute.

Every server does it; whoever comes second finds nothing left to do. Nothing depends on how a run ends: the next one goes on
from what is stored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from breaker_store.core.buckets import Bucket
from breaker_store.errors import LogUnavailableError
from breaker_store.postgres.connecting import UNREACHABLE, Connection, connect, described
from breaker_store.postgres.fleet_judging import judge_bots
from breaker_store.postgres.rollup_marks import ProgressTakenError, delete_marks, hold, mark, next_due
from breaker_store.postgres.rollups import count, ensure_partitions

logger = logging.getLogger(__name__)

LATENESS_SECONDS: Final = 5.0
"""How long after a minute it is counted, so that what is on its way to the database has come."""

RETRY_SECONDS: Final = 5.0
DEFECT_SECONDS: Final = 60.0

_CLOSE_SECONDS: Final = 1.0

# For a day's count.
_COMMAND_SECONDS: Final = 3_600.0
_QUICK_SECONDS: Final = 1.0
_SLOW_SECONDS: Final = 4.0
_MOST_AT_ONCE: Final = 1_440

_NOW: Final = "SELECT clock_timestamp()"
_JUDGED_AT: Final = "SELECT judged_at FROM fleet_health"
_FINISH: Final = "UPDATE rollup_progress SET rolled_up_at = $1"

Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RollUpReport:
    """What a run did.

    Attributes:
        counted: how many minutes, hours and days were counted.
        changed: how many users' rows were new, or differed from what was stored.
        finished: whether all was counted that is over. Else another process is at it, erases a person, or drops a day.

    """

    counted: dict[Bucket, int]
    changed: int
    finished: bool


async def roll_up_once(database_url: str) -> RollUpReport:
    """Count what is new and over, and judge the fleet.

    Raises:
        LogUnavailableError: the database can't be reached, or broke off; what was counted till then is stored.

    """
    try:
        connection = await connect(database_url, writing=True, command_timeout_seconds=_COMMAND_SECONDS)
        try:
            return await roll_up(connection)
        finally:
            connection.terminate()
    except UNREACHABLE as error:
        raise LogUnavailableError(described(error)) from error


async def roll_up(connection: Connection) -> RollUpReport:
    """Do one run on a connection that is outside a transaction, and used by nobody else meanwhile."""
    # What is lost by a crash of the server was lost together with the note that it was done.
    await connection.execute("SET synchronous_commit = off")
    run = _Run(connection, await connection.fetchval(_NOW))
    try:
        await mark(connection)
        await run.count_marked(Bucket.MINUTE)
        # Health is of minutes, and an hour's or a day's count may take long.
        await run.judge()
        await run.count_marked(Bucket.HOUR)
        await run.count_marked(Bucket.DAY)
        await connection.execute(_FINISH, run.now)
    except ProgressTakenError:
        return RollUpReport(run.counted, run.changed, finished=False)
    return RollUpReport(run.counted, run.changed, finished=True)


class _Run:
    """Counts what is marked and over at one time, by the database's clock."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        self.counted = dict.fromkeys(Bucket, 0)
        self.changed = 0
        self._connection = connection
        self.now = now

    async def count_marked(self, bucket: Bucket) -> None:
        """Count roll-ups of one length, oldest first; as many in one transaction as take a few seconds."""
        at_once = 1
        while span := await next_due(self._connection, bucket, self.now, at_once):
            begun = time.monotonic()
            await self._count(bucket, *span)
            spent = time.monotonic() - begun
            if spent < _QUICK_SECONDS:
                at_once = min(at_once * 4, _MOST_AT_ONCE)
            elif spent > _SLOW_SECONDS:
                at_once = max(at_once // 2, 1)

    async def _count(self, bucket: Bucket, begin: datetime, end: datetime) -> None:
        await ensure_partitions(self._connection, begin, end)
        async with self._connection.transaction():
            await hold(self._connection)
            changed = await count(self._connection, bucket, begin, end)
            await delete_marks(self._connection, bucket, begin, end)
        self.changed += changed
        self.counted[bucket] += (end - begin) // bucket.length

    async def judge(self) -> None:
        until = self.now.replace(second=0, microsecond=0)
        async with self._connection.transaction():
            await hold(self._connection)
            judged_at = await self._connection.fetchval(_JUDGED_AT)
            if self.changed or judged_at is None or judged_at < until:
                await judge_bots(self._connection, until)


@asynccontextmanager
async def rolling_up(database_url: str) -> AsyncIterator[None]:
    """Roll up beside the block, a few seconds after each minute. What is under way at the end of the block is given up."""
    task = asyncio.create_task(RollingUp(database_url).run(), name="roll-ups")
    try:
        yield
    finally:
        task.cancel()
        # A database that does not answer gives up by itself.
        await asyncio.wait({task}, timeout=_CLOSE_SECONDS)


class RollingUp:
    """Rolls up until it is cancelled; while the database is away, it goes on trying."""

    def __init__(self, database_url: str, *, pause: Pause = asyncio.sleep) -> None:
        self._database_url = database_url
        self._pause = pause
        self._away = False

    async def run(self) -> None:
        while True:
            await self._pause(await self._roll_up())

    async def _roll_up(self) -> float:
        """Do a run; give how many seconds the next one can wait."""
        try:
            report = await roll_up_once(self._database_url)
        except LogUnavailableError as error:
            if not self._away:
                logger.warning("outcomes can't be rolled up for now: %s", error)
            self._away = True
            return RETRY_SECONDS
        except Exception:
            # A defect of ours; health must not stand still for ever.
            logger.exception("outcomes can't be rolled up")
            return DEFECT_SECONDS
        self._away = False
        return seconds_to_next_minute(time.time()) if report.finished else RETRY_SECONDS


def seconds_to_next_minute(now: float) -> float:
    """Give how long it is until the next minute that ends has to be counted."""
    return 60.0 - (now - LATENESS_SECONDS) % 60.0
