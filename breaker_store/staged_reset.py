"""Carries out staged resets: one breaker after the other, in time, each reset once, whatever happens to this process.

Each reset is an operator's event like any other: decided by the core on what the log says, and appended by
compare-and-set as a batch of its own. All that a process appends for one staged reset is of one writer.

The pace is kept from one decision to the next, and by when resets take effect, which for one that waits for a lock is
later: never more than so many do in any second. Nothing is made up for: what came late, by an outage or a restart, stays
late. A process that takes over waits for a whole interval first, since it doesn't know when the last reset was. A breaker
that has moved on is passed over, and takes no time.

Whatever goes wrong with one breaker, the others are reset: after a few tries it has failed, and is told with its staged
reset. Only while the database is away all wait, since no other would fare better.

Two processes never reset a breaker twice. The lease keeps them apart; where it can't, as for a process that was
stopped in the middle and goes on later, compare-and-set does.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from breaker_store.core.commands import Reset
from breaker_store.core.decide import decide
from breaker_store.core.events import EventId, Transition
from breaker_store.core.staged_resets import Settlement, reason_of
from breaker_store.core.state import BreakerState
from breaker_store.errors import EventRefusedError, LogUnavailableError, StoreError
from breaker_store.ports import Batch, Source, UserTransition
from breaker_store.postgres.connecting import UNREACHABLE, Connection, connect, described
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.staged_reset_queue import (
    LEASE_SECONDS,
    NotHeldError,
    Orders,
    Result,
    StagedBreaker,
    StagedResetQueue,
    claimable,
)
from breaker_store.runtime.clock import Clock

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
DEFECT_SECONDS: Final = 60.0
RENEW_SECONDS: Final = LEASE_SECONDS / 5

ATTEMPTS: Final = 5
"""How often a breaker's reset is decided anew, since others changed it first, before it has failed."""

BREAKDOWNS: Final = 3
"""How often a breaker's reset breaks down, for a reason that nobody expected, before it has failed."""

_CLOSE_SECONDS: Final = 1.0
_BROKEN_DOWN: Final = "what went wrong stands in the log of the process that carries it out"

Pause = Callable[[float], Awaitable[None]]


class _Writer:
    """Decides resets, and makes batches of them: the first of each writer's, and those that follow it."""

    def __init__(self) -> None:
        self.id = secrets.randbelow(2**63 - 1) + 1
        self._batch_no = 0
        self._digest: bytes | None = None

    def decide(self, state: BreakerState, now: int, actor: str | None, reason: str) -> Transition:
        # Later than what it follows, also where another writer's measure of the database's clock is a little ahead.
        at = now if state.since is None else max(now, state.since + 1)
        era = secrets.randbits(32) - 2**31 or 1
        event_id = EventId(self.id, self._batch_no + 1)
        [event] = decide(state, Reset(at, event_id, era, actor, reason))
        if not isinstance(event, Transition):
            raise TypeError(f"a reset is a transition, not {event!r}")
        return event

    async def append(self, log: PostgresEventLog, user_id: int, transition: Transition) -> bool:
        """Store a transition as the next batch; tell whether it won."""
        self._batch_no += 1
        sealed = log.seal(
            Batch(
                writer_id=self.id,
                batch_no=self._batch_no,
                first_seq=self._batch_no,
                last_seq=self._batch_no,
                source=Source.OPERATOR,
                previous_digest=self._digest,
                earliest=transition.at,
                latest=transition.at,
                outcomes=(),
                transitions=(UserTransition(user_id, transition),),
            )
        )
        fates = await log.append(sealed)
        self._digest = sealed.digest
        return any(fate.position is not None for fate in fates)


class StagedReset:
    """Carries out one staged reset, if no other process does."""

    def __init__(
        self,
        queue: StagedResetQueue,
        log: PostgresEventLog,
        clock: Clock,
        *,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._queue = queue
        self._log = log
        self._clock = clock
        self._pause = pause
        self._writer = _Writer()
        self._orders: Orders | None = None
        # On the clock: by when the last ones had taken effect, as many as there may be in a second; before when no reset
        # is decided; and how long the questions before one take.
        self._done_us: deque[int] = deque()
        self._due_us = 0
        self._lead_us = 0
        self._away = False

    async def run(self) -> None:
        """Reset until all are done, it is stopped, or another process is at it; while the database is away, wait."""
        while True:
            try:
                if await self._carry_out():
                    return
                self._away = False
            except NotHeldError as error:
                logger.info("staged reset %d: %s", self._queue.id, error)
                return
            except StoreError as error:
                if not self._away:
                    logger.warning("staged reset %d can't go on for now: %s", self._queue.id, error)
                self._away = True
            except Exception:
                # A defect of ours; what is left must not wait for ever.
                logger.exception("staged reset %d can't go on", self._queue.id)
                await self._pause(DEFECT_SECONDS)
            # What became of the last batch may not be known, so nothing can follow it.
            self._writer = _Writer()
            await self._pause(POLL_SECONDS)

    async def _carry_out(self) -> bool:
        """Reset what waits; tell whether there is nothing more to do, for this process."""
        orders = await self._queue.claim(self._writer.id)
        if orders is None:
            return True
        if self._orders is None:
            self._due_us = self._clock.now_us() + _interval_us(orders)
            self._done_us = deque(maxlen=max(1, int(orders.per_second)))
        self._orders = orders
        await self._log.open()
        after: int | None = None
        while breakers := await self._queue.waiting(after):
            for breaker in breakers:
                await self._wait_until(self._due_us - self._lead_us)
                await self._queue.settle(breaker, await self._reset_once(breaker, orders))
            after = breakers[-1].user_id
        return await self._queue.finish()

    async def _reset_once(self, breaker: StagedBreaker, orders: Orders) -> Result:
        """Reset a breaker; what becomes of it, if need be after a few tries.

        Raises:
            LogUnavailableError: nothing can be said as long as the database is away.
            NotHeldError: nothing more is to be done.

        """
        for _ in range(BREAKDOWNS):
            try:
                return await self._try(breaker, orders)
            except (LogUnavailableError, NotHeldError):
                raise
            except Exception as error:
                logger.exception("staged reset %d: user %d", self._queue.id, breaker.user_id)
                # What became of the last batch may not be known, so nothing can follow it.
                self._writer = _Writer()
                await self._queue.claim(self._writer.id)
                if isinstance(error, EventRefusedError):
                    return Result(Settlement.FAILED, error=f"the database refuses the reset: {error}")
            await self._wait_until(self._clock.now_us() + int(POLL_SECONDS * 1_000_000))
        return Result(Settlement.FAILED, error=_BROKEN_DOWN)

    async def _try(self, breaker: StagedBreaker, orders: Orders) -> Result:
        for _ in range(ATTEMPTS):
            asked = self._clock.now_us()
            result = await self._queue.look(breaker)
            if result is not None:
                return result
            await self._log.keep_time()
            stored = await self._log.read_breaker(breaker.user_id, None)
            if stored is None:
                return Result(Settlement.FAILED, error="nothing is stored of this user any more")
            if stored.state.suspension is not None:
                continue  # since it was looked at: it has moved on
            self._lead_us = self._clock.now_us() - asked
            await self._wait_until(self._due_us)
            event_id = await self._reset(breaker.user_id, stored.state, orders)
            if event_id is not None:
                return Result(Settlement.RESET, event_id)
        return Result(Settlement.FAILED, error=f"others changed the breaker {ATTEMPTS} times in a row")

    async def _reset(self, user_id: int, state: BreakerState, orders: Orders) -> EventId | None:
        """Reset a breaker as it was read; give the event, or None if others changed it first."""
        now = self._clock.now_us()
        reason = reason_of(self._queue.id, orders.reason)
        transition = self._writer.decide(state, now + self._log.correction_us, orders.actor, reason)
        try:
            won = await self._writer.append(self._log, user_id, transition)
        finally:
            self._done_us.append(self._clock.now_us())
            self._due_us = self._next_due_us(now, orders)
        return transition.event_id if won else None

    def _next_due_us(self, decided_us: int, orders: Orders) -> int:
        interval_us, done_us = _interval_us(orders), self._done_us
        if len(done_us) != done_us.maxlen:
            return decided_us + interval_us
        return max(decided_us + interval_us, done_us[0] + len(done_us) * interval_us)

    async def _wait_until(self, due_us: int) -> None:
        """Wait for a time on the clock, and keep the lease."""
        while (remaining_us := due_us - self._clock.now_us()) > 0:
            await self._pause(min(remaining_us / 1_000_000, RENEW_SECONDS))
            if self._queue.held_seconds < LEASE_SECONDS - RENEW_SECONDS:
                await self._queue.renew()


def _interval_us(orders: Orders) -> int:
    # Rounded up: a little too slow is right, a little too fast is not.
    return int(1_000_000 / orders.per_second) + 1


@asynccontextmanager
async def resetting(database_url: str, staged_reset_id: int | None = None) -> AsyncIterator[None]:
    """Carry out staged resets beside the block, all that no other process does, or one; each by itself.

    At the end of the block what is under way is given up: another process goes on with it.
    """
    task = asyncio.create_task(_watch(database_url, staged_reset_id), name="staged resets")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch(database_url: str, staged_reset_id: int | None) -> None:
    """Look for what nobody carries out, until cancelled."""
    under_way: dict[int, asyncio.Task[None]] = {}
    claims = _Claims(database_url)
    try:
        while True:
            under_way = {number: task for number, task in under_way.items() if not task.done()}
            for number in await claims.find():
                if number not in under_way and staged_reset_id in {None, number}:
                    work = _carry_out(database_url, number)
                    under_way[number] = asyncio.create_task(work, name=f"staged reset {number}")
            await asyncio.sleep(POLL_SECONDS)
    finally:
        for task in under_way.values():
            task.cancel()
        await asyncio.gather(*under_way.values(), return_exceptions=True)
        await claims.close()


class _Claims:
    """Looks for staged resets that nobody carries out."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._connection: Connection | None = None
        self._away = False

    async def find(self) -> list[int]:
        """Give their numbers; none while they can't be asked for."""
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await connect(self._database_url, writing=True)
            found = await claimable(self._connection)
        except Exception as error:
            # Whatever it is, those under way go on, and it is tried again.
            if not self._away:
                is_expected = isinstance(error, (LogUnavailableError, *UNREACHABLE))
                said = "can't look for staged resets for now: %s"
                logger.warning(said, described(error), exc_info=not is_expected)
            self._away = True
            await self.close()
            return []
        self._away = False
        return found

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


async def _carry_out(database_url: str, staged_reset_id: int) -> None:
    clock = Clock()
    queue = StagedResetQueue(database_url, staged_reset_id)
    log = PostgresEventLog(database_url, clock)
    try:
        await StagedReset(queue, log, clock).run()
    finally:
        # A database that does not answer has the lease lapse by itself.
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await queue.close()
                await log.close()
