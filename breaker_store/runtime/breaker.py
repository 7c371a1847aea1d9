"""The breaker that a bot developer holds: the live shell around the pure core.

Every change of state goes through `decide` and `evolve`. Two paths leave `decide` out, because in them it would decide
nothing: a success of a calm breaker and a refusal of one that is open and waiting. Both are recorded and change no
state (a property of `evolve`, tested as such), and they are nearly all there is to do.

Nothing here awaits anything but the caller's own function, so no other task can come between a decision and its
taking effect.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Literal, ParamSpec, Self, TypeVar

from breaker_store.core.commands import Abandon, Admit
from breaker_store.core.decide import decide, permit_of
from breaker_store.core.events import (
    CircuitState,
    Event,
    Kind,
    Outcome,
    Permit,
    Suspension,
    Transition,
)
from breaker_store.core.failures import EVERY_ERROR, FailureTable
from breaker_store.core.policy import MICROSECONDS, Policy
from breaker_store.core.state import BreakerState, evolve
from breaker_store.errors import (
    BotSuspendedError,
    CircuitBreakerOpenError,
    ConfigurationError,
    NotCommittedError,
)
from breaker_store.runtime.by_hand import HandledBreaker
from breaker_store.runtime.calls import (
    NOT_CALLED,
    CallFacts,
    is_call,
    name_of,
    not_awaitable,
    read_error,
    report_of,
    tells_of_the_service,
)
from breaker_store.runtime.clock import NANOSECONDS_IN_MICROSECOND, Clock
from breaker_store.runtime.durable import DurableBreaker
from breaker_store.runtime.from_threads import call_from_thread
from breaker_store.runtime.journal import LONGEST_REFUSALS_NS, CalmSuccess, Refusals, marking_of
from breaker_store.runtime.protected_call import ProtectedCall
from breaker_store.runtime.surroundings import Block, Surroundings
from breaker_store.runtime.told_state import StateDict, describe_state
from breaker_store.runtime.ways_of_use import WaysOfUse
from breaker_store.settings import Durability

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# To look a member up in its class takes longer than all that is done with it here.
_CLOSED, _OPEN = CircuitState.CLOSED, CircuitState.OPEN
_BEHIND, _COMMITTED = Durability.BEHIND, Durability.COMMITTED

logger = logging.getLogger(__name__)


class CircuitBreaker(HandledBreaker, WaysOfUse):
    """Refuses calls that would probably fail, by the rules of its `Policy`, and remembers what it saw.

    Made alone it belongs to nobody and keeps its state in memory. `CircuitBreakerRegistry.get_breaker` gives the
    breaker of a user, which a store makes durable. All ways to use it count the same::

        await breaker.call(func, *args, **kwargs)
        async with breaker: ...
        @breaker
        async def func(): ...
        breaker.call_sync(func, *args, **kwargs)
        async for item in breaker.stream(func, *args, **kwargs): ...
        async with breaker.entering(func, *args, **kwargs) as value: ...

    It is safe for any number of tasks of one event loop, and, by `call_sync`, for any number of threads: see
    `breaker_store.runtime.decisions`. What people do to it (`reset`, `force_open` and the like) and what is looked up
    may come from any thread as well.
    """

    __slots__ = ("_refusals", "_state", "_surroundings", "stored", "user_id")

    def __init__(  # noqa: PLR0913 - existing code relies on these
        self,
        failure_threshold: int = 5,
        timeout_seconds: float = 60.0,
        success_threshold: int = 2,
        *,
        half_open_max_calls: int = 1,
        policy: Policy | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Make a breaker of its own; `policy` takes the place of the four numbers."""
        chosen = policy or Policy(failure_threshold, timeout_seconds, success_threshold, half_open_max_calls)
        self._begin(None, BreakerState(chosen), Surroundings(clock or Clock()))

    @classmethod
    def of_registry(cls, user_id: int, state: BreakerState, surroundings: Surroundings) -> Self:
        """Make the breaker of a user; for the registry."""
        breaker = cls.__new__(cls)
        breaker._begin(user_id, state, surroundings)  # noqa: SLF001 - it is of this class
        return breaker

    def _begin(self, user_id: int | None, state: BreakerState, surroundings: Surroundings) -> None:
        self.user_id = user_id
        self._state = state
        self._surroundings = surroundings
        self._refusals: Refusals | None = None
        self.stored = False  # whether the store is known to have a row for it

    def __repr__(self) -> str:
        return f"<CircuitBreaker user_id={self.user_id} {self._state.state}>"

    @property
    def state(self) -> BreakerState:
        """The state as a value; it is replaced, never changed."""
        return self._state

    @property
    def failures(self) -> FailureTable | None:
        """What errors mean, as was said when the registry or store was opened; None if nothing was."""
        table = self._surroundings.failures
        return None if table is EVERY_ERROR else table

    async def call(
        self,
        func: Callable[Parameters, Awaitable[Result]],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Call `func` if the breaker lets it through, await what it gives, and record what became of it.

        Raises:
            CircuitBreakerOpenError: it does not; `func` was not called. BotSuspendedError if the bot is suspended.
            TypeError: `func` gave nothing that can be awaited; this is no outcome.

        Whatever `func` raises is raised as it is. Cancellation, and a refusal by another breaker inside `func`, are no
        outcomes.
        """
        state = self._state
        permit = None if state.calm else self._admit()
        surroundings = self._surroundings
        monotonic_ns = surroundings.monotonic_ns
        awaitable = NOT_CALLED
        started_ns = monotonic_ns()
        try:
            awaitable = func(*args, **kwargs)
            result = await awaitable
        except BaseException as error:
            ended_ns = monotonic_ns()
            if not is_call(func, awaitable):
                self._abandon(permit or Permit(state.generation, state.era))
                raise not_awaitable(func, awaitable) from error
            permit = permit or Permit(state.generation, state.era)
            self._fail(error, CallFacts(permit, started_ns, ended_ns, name_of(func)))
            await self._secure(surroundings.journal.durability, error)
            raise
        ended_ns = monotonic_ns()
        journal = surroundings.journal
        if permit is None and self._state is state:
            entry: CalmSuccess
            try:
                entry = (self, state, started_ns, ended_ns, func.__name__)
            except Exception:  # noqa: BLE001 - a function without a name, or whose name can't be told, was called
                entry = (self, state, started_ns, ended_ns, name_of(func))
            pending = journal.pending
            if 0 < len(pending) < journal.quick_limit:
                pending.append(entry)
                return result
            journal.add(entry)
        else:
            permit = permit or Permit(state.generation, state.era)
            self._succeed(CallFacts(permit, started_ns, ended_ns, name_of(func)))
        if journal.durability is not _BEHIND:
            journal.write_through()
            if journal.durability is _COMMITTED:
                await journal.commit(result)
        return result

    async def call_as(
        self,
        durability: Durability,
        func: Callable[Parameters, Awaitable[Result]],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Do the same, and have its event as durable as said before it returns."""
        block = self.begin_as(durability)
        awaitable = NOT_CALLED
        try:
            awaitable = func(*args, **kwargs)
            result = await awaitable
        except BaseException as error:
            if not is_call(func, awaitable):
                self._abandon(block.permit)
                raise not_awaitable(func, awaitable) from error
            self._end_block(block, name_of(func), error)
            await self._secure(durability, error)
            raise
        self._end_block(block, name_of(func), None)
        await self._secure(durability, None, result)
        return result

    def call_sync(
        self,
        func: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Do what `call` does with a plain function, which runs in this thread; any number of threads may.

        The breaker decides on the event loop of its store, and the thread waits for that; without a loop under a lock.
        On the loop's own thread it decides right there, and the loop stands still while `func` runs.

        Raises:
            CircuitBreakerOpenError: the breaker does not let it through; `func` was not called.
            TypeError: `func` is asynchronous, a generator function, or gave an awaitable; this is no outcome.
            NotCommittedError: as for `call`.
            RuntimeError: its event is to be committed, and this is the thread of the loop that would do it.

        """
        durability = self._surroundings.journal.durability
        return call_from_thread(self, self._surroundings, durability, func, args, kwargs)

    def call_sync_as(
        self,
        durability: Durability,
        func: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Do the same, and have its event as durable as said before it returns."""
        return call_from_thread(self, self._surroundings, durability, func, args, kwargs)

    def with_durability(self, durability: Durability | str) -> DurableBreaker:
        """Give this breaker with another durability than the store's, for every way to use it.

        Raises:
            ConfigurationError: there is none of this name; or the store has no spool, and "journaled" needs one.

        """
        chosen = Durability.of(durability)
        if chosen is Durability.JOURNALED and not self._surroundings.journal.can_journal:
            raise ConfigurationError("durability 'journaled' needs a store with a spool_dir")
        return DurableBreaker(self, chosen)

    def begin(
        self,
        operation: str | None = None,
        *,
        attempt: int | None = None,
        failures: FailureTable | None = None,
        durability: Durability | None = None,
    ) -> ProtectedCall:
        """Begin a call whose end is told by hand; it is what adapters are made of.

        Args:
            operation: what is called, as it is recorded.
            attempt: from 2 on for what is tried again; None for a first attempt.
            failures: what the errors mean; None for the registry's table.
            durability: what has become of its event when its end has been told; None for the store's.

        Raises:
            CircuitBreakerOpenError: the breaker does not let it through.

        """
        chosen = durability or self._surroundings.journal.durability
        return ProtectedCall(self, self.begin_as(chosen), operation, attempt, failures, chosen)

    def end_call(self, call: ProtectedCall, error: BaseException | None) -> None:
        """Take down the end of a call; for `ProtectedCall`, which tells it once."""
        self._end_block(call.block, call.operation, error, call.attempt, call.failures)
        if call.durability is not _BEHIND:
            self._surroundings.journal.write_through()

    async def secure_call(self, durability: Durability, error: BaseException | None, result: object) -> None:
        """Have the end of a call as durable as said; for `ProtectedCall`."""
        await self._secure(durability, error, result)

    def refuse_if_blocked(self) -> None:
        """Refuse as a call would be refused now, before anything is spent on it; nothing happens if it would not be.

        It takes no probe's slot, so what comes after it may still be refused.

        Raises:
            CircuitBreakerOpenError: a call would be refused; this is recorded as a refusal.

        """
        state = self._state
        if state.state is _CLOSED:
            return
        now_ns = self._surroundings.monotonic_ns()
        now = self._surroundings.clock.at_us(now_ns)
        asked = decide(state, Admit(now, self._surroundings.journal.next_id(), 1))
        if not isinstance(asked[-1], Outcome):
            return
        if state.state is not _OPEN:
            raise self._refuse(state, now_ns, 0.0)
        remaining = None if state.retry_at is None else (state.retry_at - now) / MICROSECONDS
        raise self._refuse(state, now_ns, remaining)

    async def __aenter__(self) -> Self:
        return self.enter_as(self._surroundings.journal.durability)

    def enter_as(self, durability: Durability) -> Self:
        """Begin an `async with`."""
        self._surroundings.enter_block(self, self.begin_as(durability))
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end_block(self._surroundings.leave_block(self), None, error)
        durability = self._surroundings.journal.durability
        if durability is not _BEHIND:
            await self._secure(durability, error)

    def begin_as(self, durability: Durability) -> Block:
        """Begin a call; a refusal is on disk before it is raised, unless its user wants less."""
        try:
            return self._begin_block()
        except CircuitBreakerOpenError:
            if durability is not _BEHIND:
                self._surroundings.journal.write_through()
            raise

    async def leave_as(self, durability: Durability, error: BaseException | None) -> None:
        """End an `async with`, and have its event as durable as said."""
        self._end_block(self._surroundings.leave_block(self), None, error)
        await self._secure(durability, error)

    def begin_at_once(self) -> Block | None:
        """Begin a call that needs no decision, in any thread; None if it needs one."""
        state = self._state
        if state.state is not _CLOSED:
            return None
        permit = Permit(state.generation, state.era)
        return Block(permit, self._surroundings.monotonic_ns(), state if state.calm else None)

    def _begin_block(self) -> Block:
        return self.begin_at_once() or Block(self._admit(), self._surroundings.monotonic_ns(), None)

    def _end_block(
        self,
        block: Block,
        operation: str | None,
        error: BaseException | None,
        attempt: int | None = None,
        failures: FailureTable | None = None,
    ) -> None:
        ended_ns = self._surroundings.monotonic_ns()
        permit, started_ns, calm = block
        if error is not None:
            self._fail(error, CallFacts(permit, started_ns, ended_ns, operation, attempt), failures)
        elif calm is self._state and attempt is None:
            self._surroundings.journal.add((self, calm, started_ns, ended_ns, operation))
        else:
            self._succeed(CallFacts(permit, started_ns, ended_ns, operation, attempt))

    async def _secure(
        self, durability: Durability, error: BaseException | None, result: object = None
    ) -> None:
        """Have the newest event as durable as said; of a failed call its own error is what the caller has to hear."""
        if durability is _BEHIND or (error is not None and not tells_of_the_service(error)):
            return
        journal = self._surroundings.journal
        journal.write_through()
        if durability is not _COMMITTED:
            return
        try:
            await journal.commit(result)
        except NotCommittedError as not_committed:
            if error is None:
                raise
            error.add_note(f"breaker-store: {not_committed}")
            logger.warning("a failure of user %s may not be stored: %s", self.user_id, not_committed)

    def get_state(self) -> StateDict:
        state = self._state
        return describe_state(state, state.remaining_us(self._surroundings.clock.now_us()))

    def adopt(self, state: BreakerState, news: Transition | None = None) -> None:
        """Take on a state that the store has; `news` is the transition to tell listeners of, if there is one."""
        self._state = state
        if state.state is _OPEN:
            self._surroundings.end_waits(self)
        if news is not None:
            self._surroundings.listeners.tell(self.user_id, news)

    def end_counting_refusals(self) -> None:
        """Begin a new entry at the next refusal: the recorder has taken the current one."""
        self._refusals = None

    def _admit(self) -> Permit:
        state = self._state
        if state.state is _CLOSED:
            return Permit(state.generation, state.era)
        now_ns = self._surroundings.monotonic_ns()
        now = now_ns // NANOSECONDS_IN_MICROSECOND + self._surroundings.clock.origin_us
        if state.state is _OPEN:
            if state.retry_at is None:
                raise self._refuse(state, now_ns, None)
            if now < state.retry_at:
                raise self._refuse(state, now_ns, (state.retry_at - now) / MICROSECONDS)
        journal = self._surroundings.journal
        with self._surroundings.decisions.lock:
            state = self._state
            events = decide(state, Admit(now, journal.next_id(), journal.draw_era()))
            if events and isinstance(events[-1], Outcome):
                raise self._refuse(state, now_ns, 0.0)
            permit = permit_of(functools.reduce(evolve, events, state), events)
            self._take_on(events)
        assert permit is not None  # noqa: S101 - a refusal was raised above
        return permit

    def _refuse(
        self, state: BreakerState, now_ns: int, timeout_remaining: float | None
    ) -> CircuitBreakerOpenError:
        """Count a refusal, together with the others of this flush, and make the error to raise."""
        counted = self._refusals
        if counted is not None and counted[1] is state and now_ns - counted[2] < LONGEST_REFUSALS_NS:
            counted[3] = now_ns
            counted[4] += 1
        else:
            journal = self._surroundings.journal
            counted = [self, state, now_ns, now_ns, 1]
            self._refusals = counted if journal.add(counted) else None
            if journal.durability is not _BEHIND:
                # On disk it can't be counted on: writing ends the counting, and the next is an entry of its own.
                journal.write_through()
                self._refusals = None
        error: CircuitBreakerOpenError
        if timeout_remaining is None and state.suspension is not None:
            error = self._suspended(state, state.suspension)
        else:
            error = CircuitBreakerOpenError(
                self.user_id,
                timeout_remaining,
                None if state.opened_at is None else state.opened_at / MICROSECONDS,
                state.opened_by,
                state.last_failure,
            )
        tracing = self._surroundings.tracing
        if tracing is not None:
            tracing.tell_refusal(error)
        return error

    def _suspended(self, state: BreakerState, suspension: Suspension) -> BotSuspendedError:
        return BotSuspendedError(
            self.user_id,
            suspension.at / MICROSECONDS,
            state.opened_by,
            suspension.actor,
            suspension.reason,
        )

    def _succeed(self, facts: CallFacts) -> None:
        with self._surroundings.decisions.lock:
            self._take_on(decide(self._state, report_of(self._surroundings, Kind.SUCCESS, facts)))

    def _fail(self, error: BaseException, facts: CallFacts, failures: FailureTable | None = None) -> None:
        if not tells_of_the_service(error):
            self._abandon(facts.permit)
            return
        reading = read_error(error, self._state.policy, failures or self._surroundings.failures)
        kind: Literal[Kind.SUCCESS, Kind.FAILURE]
        kind = Kind.FAILURE if reading.category.is_failure else Kind.SUCCESS
        with self._surroundings.decisions.lock:
            self._take_on(decide(self._state, report_of(self._surroundings, kind, facts, error, reading)))

    def _abandon(self, permit: Permit) -> None:
        with self._surroundings.decisions.lock:
            self._take_on(decide(self._state, Abandon(permit)))

    def _take_on(self, events: tuple[Event, ...]) -> None:
        """Let the events take effect: the one place where a live breaker's state changes by what it decided."""
        surroundings = self._surroundings
        for event in events:
            before = self._state
            self._state = evolve(before, event)
            if isinstance(event, Outcome | Transition):
                surroundings.journal.note((self, event, marking_of(before, self._state, event)))
            if isinstance(event, Transition):
                surroundings.expect_confirmation(self.user_id, event)
                surroundings.journal.hurry()
        if self._state.state is _OPEN:
            surroundings.end_waits(self)
        # Last, for where no event loop runs, and in eager tasks, listeners are called right here.
        for event in events:
            if isinstance(event, Transition):
                if surroundings.tracing is not None:
                    surroundings.tracing.tell_transition(self.user_id, event)
                surroundings.listeners.tell(self.user_id, event)
