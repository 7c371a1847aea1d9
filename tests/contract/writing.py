"""A process that uses breakers over a log, and sends what happened when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerRegistry, CircuitState, Policy
from breaker_store.core.state import BreakerState
from breaker_store.ports import Batch, EventLog, Fate, Gap, RecorderReport
from breaker_store.runtime.clock import ManualClock
from breaker_store.runtime.cutting import BatchCutter
from breaker_store.runtime.follower import Follower
from tests.runtime.driving import Keeper

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
USER = 101
QUICK = Policy(failure_threshold=2, timeout_seconds=10, success_threshold=2)

AnyLog = EventLog[Any]
OpenLog = Callable[[ManualClock], Awaitable[AnyLog]]
ReadGaps = Callable[[int], Awaitable[list[Gap]]]
ReadReport = Callable[[int], Awaitable[RecorderReport | None]]


class NoAnswerError(Exception):
    """What a sick service brings about."""


async def ok() -> str:
    return "sent"


async def bad() -> str:
    raise NoAnswerError("no answer")


class Writer:
    """One process: its registry on a clock that stands still, and the batches that it has sent."""

    def __init__(self, log: AnyLog, clock: ManualClock, policy: Policy = QUICK) -> None:
        self.log = log
        self.clock = clock
        self.registry = CircuitBreakerRegistry(policy=policy, clock=clock)
        self.journal = self.registry.surroundings.journal
        self.journal.attach(Keeper(), 1_000_000)
        self.follower = Follower(self.registry, log, 0)
        self._cutter = BatchCutter(self.journal, clock)
        self._batch_no = 0
        self._digest: bytes | None = None

    @property
    def writer_id(self) -> int:
        return self.journal.writer_id

    def breaker(self, user_id: int = USER) -> CircuitBreaker:
        return self.registry.get_breaker(user_id)

    async def succeed(self, user_id: int = USER, times: int = 1) -> None:
        for _ in range(times):
            await self.breaker(user_id).call(ok)

    async def fail(self, user_id: int = USER, times: int = 1) -> None:
        for _ in range(times):
            with pytest.raises(NoAnswerError):
                await self.breaker(user_id).call(bad)

    async def trip(self, user_id: int = USER) -> None:
        """Fail as often as it takes."""
        while self.breaker(user_id).state.state is not CircuitState.OPEN:
            await self.fail(user_id)

    def cut(self) -> Batch:
        """Take all that happened as this writer's next batch."""
        batch = self._cutter.cut(1_000_000, self.log.correction_us)
        return replace(batch, batch_no=self._batch_no + 1, previous_digest=self._digest)

    async def append(self, batch: Batch) -> list[Fate]:
        sealed = self.log.seal(batch)
        fates = await self.log.append(sealed)
        self._batch_no, self._digest = batch.batch_no, sealed.digest
        return fates

    async def send(self) -> list[Fate]:
        return await self.append(self.cut())

    async def send_and_settle(self) -> None:
        """Send, and take on what is stored where a transition lost."""
        await self.follower.settle(await self.send())


def timeless(state: BreakerState) -> BreakerState:
    """Leave times and calls in flight out: each measurement of the database's clock moves the former a little."""
    return replace(
        state.without_calls_in_flight(),
        failures=tuple(replace(failure, at=0) for failure in state.failures),
        last_failure=state.last_failure and replace(state.last_failure, at=0),
        since=None,
        opened_at=None,
        retry_at=None,
        suspension=state.suspension and replace(state.suspension, at=0),
        start=state.start._replace(failures=tuple(replace(each, at=0) for each in state.start.failures)),
    )


async def send_together(*writers: Writer) -> list[list[Fate]]:
    return list(await asyncio.gather(*(writer.send() for writer in writers)))
