"""What an operator does to a breaker, from any process: the one that runs it may be elsewhere, or not run at all.

A command is decided by the same core on what the log says, and appended as the one event of a writer of its own. The
processes that run the breaker read it from the log like any other transition, within a second. When one of them has
changed the breaker in between, its transition stands and the operator's is superseded; then it is decided anew. Who
decided by what they saw can say so: with `expected`, the version that was seen, nothing is decided anew, and a breaker
that has moved on is left as it is.

All of them hide secrets in `actor` and `reason`, cut both at 2,000 characters, and raise

- `UnknownBreakerError`: nothing is stored of this user; it stays so.
- `ChangedBreakerError`: the breaker is not, or was not when it counted, at the version that was expected.
- `ContendedBreakerError`: other processes were faster each time.
- `SuspendedError`: the bot is suspended, and this would end it: it must be resumed first.
- `LogUnavailableError`: the database is away; the command may be stored nevertheless, if that was seen too late.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final, TypeAlias

import tenacity

from breaker_store.core.cleaning import clean_text
from breaker_store.core.commands import (
    Action,
    CarryOver,
    ChangePolicy,
    ForceOpen,
    Release,
    Reset,
    Resume,
    Suspend,
)
from breaker_store.core.decide import decide, end_after
from breaker_store.core.events import EventId, Kind, Transition
from breaker_store.core.policy import Policy
from breaker_store.core.standing import StateVersion
from breaker_store.core.state import BreakerState, evolve
from breaker_store.errors import (
    LogUnavailableError,
    NotForcedOpenError,
    NotSuspendedError,
    StoreError,
    SuspendedError,
    UnknownBreakerError,
)
from breaker_store.ports import Fate, StoredBreaker, operators_batch
from breaker_store.postgres.codec import microseconds
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.standing import Standing, describe
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.journal import Journal

ATTEMPTS: Final = 5
"""How often a command is decided anew before it is given up."""

_SENDINGS: Final = 3
_LONGEST_PAUSE_SECONDS: Final = 0.5

Order: TypeAlias = Callable[[BreakerState, int, EventId, int], Action | None]
"""Makes the command, of the state, a time on the database's clock, the id of its event and an era; None for none."""


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


class ChangedBreakerError(StoreError):
    """The breaker is not at the version that was expected; nothing came of the command.

    Attributes:
        user_id: whose breaker it is.
        found: the version that it is at.

    """

    def __init__(self, user_id: int, found: StateVersion) -> None:
        super().__init__(user_id, found)
        self.user_id = user_id
        self.found = found

    def __str__(self) -> str:
        return (
            f"the breaker of user {self.user_id} has moved on and is at version {self.found}: look at it anew"
        )


class ExpiryError(StoreError, ValueError):
    """A breaker can't be forced open until then."""


@dataclass(frozen=True, slots=True)
class _By:
    """Who acts, and why."""

    actor: str | None
    reason: str | None

    @classmethod
    def of(cls, actor: str | None, reason: str | None) -> _By:
        return cls(*(None if text is None else clean_text(text) for text in (actor, reason)))


async def reset(
    database_url: str,
    user_id: int,
    *,
    expected: StateVersion | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> Standing:
    """Close a user's breaker and forget its failures, whatever its state; give how it stands after it."""
    by = _By.of(actor, reason)

    def order(state: BreakerState, at: int, event_id: EventId, era: int) -> Action:
        _refuse_suspended(user_id, state)
        return Reset(at, event_id, era, by.actor, by.reason)

    return await _carry_out(database_url, user_id, order, expected)


async def force_open(  # noqa: PLR0913 - each is another fact
    database_url: str,
    user_id: int,
    *,
    for_seconds: float | None = None,
    until: datetime | None = None,
    expected: StateVersion | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> Standing:
    """Open a user's breaker, whatever its state; give how it stands after it.

    for_seconds, until: after so long, or from this time on, the next call may try; both by the database's clock, at
        most ten years ahead, and no more than one of them. Without, only a person ends it. A breaker that is forced
        open already gets the new end.

    Raises:
        ExpiryError: the time has passed, or is too far off.

    """
    by = _By.of(actor, reason)

    def order(state: BreakerState, at: int, event_id: EventId, era: int) -> Action:
        _refuse_suspended(user_id, state)
        try:
            end = None if until is None else microseconds(until)
            if for_seconds is not None:
                end = end_after(at, for_seconds)
            return ForceOpen(at, event_id, era, end, by.actor, by.reason)
        except ValueError as error:
            raise ExpiryError(str(error)) from error

    return await _carry_out(database_url, user_id, order, expected)


async def release(
    database_url: str,
    user_id: int,
    *,
    expected: StateVersion | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> Standing:
    """Close a user's breaker that is forced open; give how it stands after it.

    Raises:
        NotForcedOpenError: it is not.

    """
    by = _By.of(actor, reason)

    def order(state: BreakerState, at: int, event_id: EventId, era: int) -> Action:
        _refuse_suspended(user_id, state)
        if not state.forced:
            raise NotForcedOpenError(user_id)
        return Release(at, event_id, era, by.actor, by.reason)

    return await _carry_out(database_url, user_id, order, expected)


async def suspend(
    database_url: str,
    user_id: int,
    *,
    expected: StateVersion | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> Standing:
    """Refuse all calls of a user's bot, with this reason, until somebody resumes it; give how it stands after it.

    One that is suspended already gets the new reason.
    """
    by = _By.of(actor, reason)

    def order(_state: BreakerState, at: int, event_id: EventId, era: int) -> Action:
        return Suspend(at, event_id, era, by.actor, by.reason)

    return await _carry_out(database_url, user_id, order, expected)


async def resume(
    database_url: str,
    user_id: int,
    *,
    expected: StateVersion | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> Standing:
    """Close the breaker of a bot that is suspended; give how it stands after it.

    Raises:
        NotSuspendedError: it is not.

    """
    by = _By.of(actor, reason)

    def order(state: BreakerState, at: int, event_id: EventId, era: int) -> Action:
        if state.suspension is None:
            raise NotSuspendedError(user_id)
        return Resume(at, event_id, era, by.actor, by.reason)

    return await _carry_out(database_url, user_id, order, expected)


async def set_policy(  # noqa: PLR0913 - each is another fact
    database_url: str,
    user_id: int,
    changes: dict[str, Any],
    *,
    expected: StateVersion | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> Standing:
    """Give a user rules of their own; give how their breaker stands after it.

    changes: fields of `Policy`; what is left out stays as it is in force. Nothing happens if that changes nothing.

    Raises:
        ValueError, TypeError: a field is out of its bounds; see `Policy`.

    """
    by = _By.of(actor, reason)
    Policy(**changes)  # before anything else: what is wrong is wrong for every breaker

    def order(state: BreakerState, at: int, event_id: EventId, _era: int) -> Action | None:
        policy = replace(state.policy, **changes)
        if state.policy_is_own and policy == state.policy:
            return None
        return ChangePolicy(at, event_id, policy, by.actor, by.reason)

    return await _carry_out(database_url, user_id, order, expected)


async def clear_policy(
    database_url: str,
    user_id: int,
    *,
    expected: StateVersion | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> Standing:
    """Let the default hold for a user again, which each program sets itself; nothing happens if it does."""
    by = _By.of(actor, reason)
    async with _opened(PostgresEventLog(database_url, Clock())) as log:
        default = await log.read_last_default(user_id)

    def order(state: BreakerState, at: int, event_id: EventId, _era: int) -> Action | None:
        if not state.policy_is_own:
            return None
        return ChangePolicy(at, event_id, default, by.actor, by.reason, is_own=False)

    return await _carry_out(database_url, user_id, order, expected)


async def carry_over(
    database_url: str, user_id: int, *, before: date, expected: StateVersion | None = None
) -> bool:
    """Have a breaker's count stand without the outcomes of before a day (UTC), which are about to be dropped.

    Tell whether that was needed and done. It is not if its state owes nothing to those outcomes, or if the breaker has
    moved on, from the version that is expected or while this looked. No other error than LogUnavailableError is raised.
    """
    reason = f"its outcomes of before {before} are being dropped"

    def order(_state: BreakerState, at: int, event_id: EventId, era: int) -> Action:
        return CarryOver(at, event_id, era, reason)

    clock = Clock()
    async with _opened(PostgresEventLog(database_url, clock)) as log:
        stored = await log.read_breaker(user_id, None)
        if stored is None or expected not in {None, StateVersion.of(stored.state)}:
            return False
        if not await log.owes_to_outcomes_before(stored, before):
            return False
        await log.open()
        transition = _decide(stored.state, order, clock.now_us() + log.correction_us)
        return transition is not None and await _append(log, user_id, transition)


def _refuse_suspended(user_id: int, state: BreakerState) -> None:
    if state.suspension is not None:
        raise SuspendedError(user_id)


async def _carry_out(
    database_url: str, user_id: int, order: Order, expected: StateVersion | None
) -> Standing:
    clock = Clock()
    async with _opened(PostgresEventLog(database_url, clock)) as log:
        for _ in range(ATTEMPTS):
            # What was expected is looked at each time: a breaker that moved on in between is at another version.
            stored = await _read(log, user_id, expected)
            # After the reading: an unknown user's command makes no day's partition either.
            await log.open()
            transition = _decide(stored.state, order, clock.now_us() + log.correction_us)
            if transition is None:
                return await _describe(log, stored, None)
            if await _append(log, user_id, transition):
                after = evolve(stored.state, transition)
                waits = None if after.retry_at is None else after.retry_at - transition.at
                return await _describe(log, StoredBreaker(user_id, after, waits), transition)
        raise ContendedBreakerError(user_id)


async def _read(log: PostgresEventLog, user_id: int, expected: StateVersion | None) -> StoredBreaker:
    stored = await log.read_breaker(user_id, None)
    if stored is None:
        raise UnknownBreakerError(user_id)
    found = StateVersion.of(stored.state)
    if expected is not None and found != expected:
        raise ChangedBreakerError(user_id, found)
    return stored


async def _describe(log: PostgresEventLog, stored: StoredBreaker, last: Transition | None) -> Standing:
    if last is None or last.kind is not Kind.FORCED_OPEN:
        last = await log.read_forced_opening(stored.user_id, stored.state)
    return describe(stored, last)


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
    action = order(state, at, journal.next_id(), journal.draw_era())
    events = () if action is None else decide(state, action)
    return next((event for event in events if isinstance(event, Transition)), None)


async def _append(log: PostgresEventLog, user_id: int, transition: Transition) -> bool:
    """Store a transition as its writer's only batch; tell whether it won."""
    sealed = log.seal(operators_batch(user_id, transition))
    # The same bytes each time: however often they are sent, they are stored once.
    sending = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(LogUnavailableError),
        stop=tenacity.stop_after_attempt(_SENDINGS),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=_LONGEST_PAUSE_SECONDS),
        reraise=True,
    )
    fates: list[Fate] = await sending(log.append, sealed)
    return any(fate.position is not None for fate in fates)
