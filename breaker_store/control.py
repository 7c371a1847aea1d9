"""What an operator does to a breaker, from any process: the one that runs it may be elsewhere, or not run at all.

A command is decided by the same core on what the log says, and appended as the one event of a writer of its own. The
processes that run the breaker read it from the log like any other transition, within a second. When one of them has
changed the breaker in between, its transition stands and the operator's is superseded; then it is decided anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import tenacity

from breaker_store.core.cleaning import clean_text
from breaker_store.core.decide import Command, Reset, decide
from breaker_store.core.events import EventId, Transition
from breaker_store.core.state import BreakerState, evolve
from breaker_store.errors import LogUnavailableError, StoreError, UnknownBreakerError
from breaker_store.ports import Batch, Fate, Source, StoredBreaker, UserTransition
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.queries import describe
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.journal import Journal
from breaker_store.runtime.told_state import StateDict

ATTEMPTS: Final = 5
"""How often a command is decided anew before it is given up."""

_SENDINGS: Final = 3
_LONGEST_PAUSE_SECONDS: Final = 0.5

Order: TypeAlias = Callable[[int, EventId, int], Command]
"""Makes the command, of a time on the database's clock, the id of its event and an era."""


class ContendedBreakerError(StoreError):
    """Other processes changed the breaker each time before the command could be stored; nothing came of it.

    Attributes:
        user_id: whose breaker it is.

    """

    def __init__(self, user_id: int) -> None:
        super().__init__(user_id)
        self.user_id = user_id

    def __str__(self) -> str:
        return (
            f"the breaker of user {self.user_id} was changed by others {ATTEMPTS} times in a row: try again"
        )


async def reset(
    database_url: str, user_id: int, *, actor: str | None = None, reason: str | None = None
) -> StateDict:
    """Close a user's breaker and forget its failures, whatever its state; give the state after it.

    Secrets in `actor` and `reason` are hidden, and both are cut at 2,000 characters.

    Raises:
        UnknownBreakerError: nothing is stored of this user; it stays so.
        ContendedBreakerError: other processes were faster each time.
        LogUnavailableError: the database is away; the reset may be stored nevertheless, if that was seen too late.

    """
    who, why = _clean(actor), _clean(reason)
    return await _carry_out(
        database_url, user_id, lambda at, event_id, era: Reset(at, event_id, era, who, why)
    )


def _clean(text: str | None) -> str | None:
    return None if text is None else clean_text(text)


async def _carry_out(database_url: str, user_id: int, order: Order) -> StateDict:
    clock = Clock()
    async with _opened(PostgresEventLog(database_url, clock)) as log:
        for _ in range(ATTEMPTS):
            stored = await log.read_breaker(user_id, None)
            if stored is None:
                raise UnknownBreakerError(user_id)
            # After the reading: an unknown user's command makes no day's partition either.
            await log.open()
            transition = _decide(stored.state, order, clock.now_us() + log.correction_us)
            if transition is None:
                return describe(stored)
            if await _append(log, user_id, transition):
                after = evolve(stored.state, transition)
                return describe(StoredBreaker(user_id, after, after.remaining_us(transition.at)))
        raise ContendedBreakerError(user_id)


@asynccontextmanager
async def _opened(log: PostgresEventLog) -> AsyncIterator[PostgresEventLog]:
    try:
        yield log
    finally:
        await log.close()


def _decide(state: BreakerState, order: Order, now: int) -> Transition | None:
    """Decide a command as a writer of its own; none of a breaker's outcomes can come of an operator's."""
    # Later than what it follows, also where another writer's measure of the database's clock is a little ahead.
    at = now if state.since is None else max(now, state.since + 1)
    journal = Journal()
    events = decide(state, order(at, journal.next_id(), journal.draw_era()))
    return next((event for event in events if isinstance(event, Transition)), None)


async def _append(log: PostgresEventLog, user_id: int, transition: Transition) -> bool:
    """Store a transition as its writer's only batch; tell whether it won."""
    event_id = transition.event_id
    sealed = log.seal(
        Batch(
            writer_id=event_id.writer_id,
            batch_no=1,
            first_seq=event_id.writer_seq,
            last_seq=event_id.writer_seq,
            source=Source.OPERATOR,
            previous_digest=None,
            earliest=transition.at,
            latest=transition.at,
            outcomes=(),
            transitions=(UserTransition(user_id, transition),),
        )
    )
    # The same bytes each time: however often they are sent, they are stored once.
    sending = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(LogUnavailableError),
        stop=tenacity.stop_after_attempt(_SENDINGS),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=_LONGEST_PAUSE_SECONDS),
        reraise=True,
    )
    fates: list[Fate] = await sending(log.append, sealed)
    return any(fate.position is not None for fate in fates)
