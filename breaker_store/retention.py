"""The maintenance of the log: partitions are made ahead, and what the policies let go is dropped.

A run rolls up first, so that nothing goes that was not counted. What a breaker's state still needs from a day that is to
go, such as the three failures of a bot that has been idle since, is carried over by an event. Each step is a
transaction of its own, and is found out anew by the next run: so a run may be killed at any moment.

One process of many does it. Nothing wrong would come of two at once: what drops a day looks at everything itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import groupby
from typing import Final

from breaker_store import control
from breaker_store.core.retention import Kept
from breaker_store.errors import LogUnavailableError, StoreError
from breaker_store.postgres.connecting import UNREACHABLE, Connection, connect, described
from breaker_store.postgres.partitions import OutcomePartitions
from breaker_store.postgres.retention import (
    Pause,
    Span,
    drop,
    list_due,
    users_owing,
    why_uncounted,
)
from breaker_store.rolling_up import roll_up_once

logger = logging.getLogger(__name__)

EVERY_SECONDS: Final = 3_600.0
DAYS_AHEAD: Final = 7

_TIMEOUT_SECONDS: Final = 600.0
_ROLLUP_ATTEMPTS: Final = 60
_ROLLUP_PAUSE_SECONDS: Final = 1.0

_ALONE: Final = "SELECT pg_try_advisory_lock(1651665779, 7)"
_NOT_ALONE: Final = "SELECT pg_advisory_unlock(1651665779, 7)"
_NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_MAKE_ROLLUP_PARTITIONS: Final = """
SELECT ensure_rollup_partitions(today - 1, today + $1::integer)
FROM (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date) AS now (today)
"""


class MaintenanceBusyError(StoreError):
    """Another process is at it."""

    def __str__(self) -> str:
        return "another process is maintaining this database: one does it at a time"


@dataclass(slots=True)
class Report:
    """What a run did.

    Attributes:
        partitions_made: of outcomes and roll-ups, ahead of their days.
        carried_over: the users whose breaker's count was.
        dropped: what is gone.
        kept: what the policies let go, and why it stays nevertheless, for now.

    """

    partitions_made: int = 0
    carried_over: list[int] = field(default_factory=list)
    dropped: list[Span] = field(default_factory=list)
    kept: list[tuple[Span, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do now, with what is rolled up.

    Attributes:
        due: what the policies let go.
        to_carry_over: the users whose breaker's count needs it.
        uncounted: days that must be rolled up first, and why.

    """

    due: list[Span]
    to_carry_over: list[int]
    uncounted: list[tuple[Span, str]]


async def plan(database_url: str) -> Plan:
    """Tell what `maintain` would drop now; change nothing.

    Raises:
        LogUnavailableError: the database can't be reached.

    """
    async with _connected(database_url) as connection:
        due = await list_due(connection)
        outcomes = [span for span in due if span.kind is Kept.OUTCOMES]
        reasons = [(span, await why_uncounted(connection, span)) for span in outcomes]
        owing = await users_owing(connection, outcomes[-1]) if outcomes else []
    return Plan(due, owing, [(span, why) for span, why in reasons if why is not None])


async def maintain(database_url: str, actor: str | None, *, pause: Pause = asyncio.sleep) -> Report:
    """Do once what has to be done, as the application's role.

    Raises:
        MaintenanceBusyError: another process does it.
        LogUnavailableError: the database can't be reached.

    """
    async with _connected(database_url) as connection:
        if not await connection.fetchval(_ALONE):
            raise MaintenanceBusyError
        await _roll_up(database_url, pause)
        run = _Run(database_url, connection, actor)
        await run.make_partitions()
        for kind, spans in groupby(await list_due(connection), key=lambda span: span.kind):
            await run.drop_oldest_first(kind, list(spans))
        # The server would notice a little later that this process is gone, and the next one find it taken.
        await connection.execute(_NOT_ALONE)
    return run.report


async def _roll_up(database_url: str, pause: Pause) -> None:
    """Roll up; if somebody else is at it, wait a while for them, since what is not counted can't go."""
    for _ in range(_ROLLUP_ATTEMPTS):
        if (await roll_up_once(database_url)).finished:
            return
        await pause(_ROLLUP_PAUSE_SECONDS)


class _Run:
    def __init__(self, database_url: str, connection: Connection, actor: str | None) -> None:
        self._database_url = database_url
        self._connection = connection
        self._actor = actor
        self.report = Report()

    async def make_partitions(self) -> None:
        now = await self._connection.fetchval(_NOW)
        made = await OutcomePartitions(DAYS_AHEAD).keep_ahead(self._connection, now)
        made += await self._connection.fetchval(_MAKE_ROLLUP_PARTITIONS, DAYS_AHEAD)
        self.report.partitions_made = made

    async def drop_oldest_first(self, kind: Kept, spans: list[Span]) -> None:
        """Drop one after the other; of outcomes none before those that are older."""
        for span in spans:
            why = await self._drop(span)
            if why is None:
                self.report.dropped.append(span)
                logger.info("dropped the %s", span)
                continue
            self.report.kept.append((span, why))
            if kind is Kept.OUTCOMES:
                return

    async def _drop(self, span: Span) -> str | None:
        if span.kind is Kept.OUTCOMES:
            # Before anybody's count is carried over for a day that stays.
            why = await why_uncounted(self._connection, span)
            if why is not None:
                return why
            await self._carry_over(span)
        return await drop(self._connection, span, self._actor)

    async def _carry_over(self, span: Span) -> None:
        before: date = span.last_day + timedelta(days=1)
        for user_id in await users_owing(self._connection, span):
            if await control.carry_over(self._database_url, user_id, before=before):
                self.report.carried_over.append(user_id)


@asynccontextmanager
async def maintaining(database_url: str) -> AsyncIterator[None]:
    """Maintain beside the block, once an hour, unless another process does."""
    task = asyncio.create_task(_maintain_again(database_url), name="maintenance")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _maintain_again(database_url: str) -> None:
    while True:
        try:
            report = await maintain(database_url, "breaker-store serve")
            for span, why in report.kept:
                logger.warning("the %s stay for now: %s", span, why)
        except MaintenanceBusyError:
            pass  # what there was to do is being done
        except StoreError as error:
            logger.warning("the log can't be maintained for now: %s", error)
        except Exception:
            # A defect of ours; who serves must go on.
            logger.exception("the log can't be maintained")
        await asyncio.sleep(EVERY_SECONDS)


@asynccontextmanager
async def _connected(database_url: str) -> AsyncIterator[Connection]:
    connection = await connect(database_url, writing=True, command_timeout_seconds=_TIMEOUT_SECONDS)
    try:
        yield connection
    except UNREACHABLE as error:
        raise LogUnavailableError(described(error)) from error
    finally:
        connection.terminate()
