"""One user's bot: its breaker, its limits and its retries around each call."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from breaker_store.bots.budget import Taken
from breaker_store.bots.credentials import UserBotCredentials
from breaker_store.bots.limits import BotLimits, ChatId, chat_of, is_message
from breaker_store.bots.nesting import refuse_nesting, within
from breaker_store.bots.retrying import retrying, take_apart
from breaker_store.bots.watching import BotHealth, Watch
from breaker_store.core.events import CircuitState
from breaker_store.core.failures import Category, ErrorReading, FailureTable
from breaker_store.errors import CircuitBreakerOpenError, RateLimitedError
from breaker_store.runtime.calls import name_of, not_awaitable, read_error, tells_of_the_service
from breaker_store.runtime.protected_call import ProtectedCall

if TYPE_CHECKING:
    from breaker_store.bots.fleet import BotFleet

Result = TypeVar("Result")

_NANOSECONDS = 1_000_000_000

LONGEST_PAUSE_SECONDS = 86_400.0
"""A service that asks for more is asked again after a day: else a mistake of its would block a bot for good."""


class _Request(NamedTuple):
    """What is called, as often as it takes."""

    func: Callable[[ProtectedCall], Awaitable[Any]]
    operation: str | None
    failures: FailureTable
    chat_id: ChatId | None
    started_ns: int


class UserBotInstance:
    """A user's bot; `BotFleet.get_instance` makes it.

    A call passes, in this order: the breaker, which refuses at once and at no cost; the limits of the chat, of the bot
    and of all bots; the breaker again, since it may have opened meanwhile; then the function is called. What fails is
    tried again as `RetryPolicy` says.

    It is a `Guard`: the adapters in `breaker_store.integrations` take it, and then every request of the client passes
    all that by itself. Use one or the other: a call in a call of the same bot is a `NestedCallError`.
    """

    __slots__ = (
        "_fleet",
        "_limits",
        "_paused_until_ns",
        "_taken",
        "_under_way",
        "_waiting",
        "_watch",
        "breaker",
        "credentials",
    )

    def __init__(
        self, credentials: UserBotCredentials, fleet: BotFleet, before: UserBotInstance | None = None
    ) -> None:
        self.credentials = credentials
        self.breaker = fleet.registry.get_breaker(credentials.user_id)
        if credentials.policy is not None:
            self.breaker.set_policy(credentials.policy)
        self._fleet = fleet
        self._limits = self._choose_limits(before)
        self._taken = Taken()
        self._watch: Watch = Watch() if before is None else before._watch  # noqa: SLF001 - it is of this class
        self._under_way = 0
        self._paused_until_ns: int = 0 if before is None else before._paused_until_ns  # noqa: SLF001
        self._waiting = 0

    @property
    def failures(self) -> FailureTable:
        """What errors mean to the fleet."""
        return self._fleet.failures

    def __repr__(self) -> str:
        return f"<UserBotInstance user_id={self.credentials.user_id} {self.breaker.state.state}>"

    async def rate_limited_request(
        self,
        func: Callable[..., Awaitable[Result]],
        /,
        *args: Any,
        operation: str | None = None,
        repeatable: bool = True,
        **kwargs: Any,
    ) -> Result:
        """Call `func(*args, **kwargs)` when it may be called, and again if that helps.

        A keyword argument `chat_id` is passed on, and is the chat whose limit a message has to keep.

        Args:
            func: a function, not a coroutine, which could be awaited only once.
            operation: what is called, as it is recorded; None takes the function's name.
            repeatable: False where a second call would do harm, a payment for instance.

        Raises:
            CircuitBreakerOpenError: the breaker is open; `func` was not called.
            RateLimitedError: the service has asked to be left alone for longer than a call may wait.
            TypeError: `func` is no function, or gave nothing that can be awaited; this is no outcome.

        Whatever `func` raises in its last attempt is raised as it is.
        """
        _check_that_it_can_be_called(func)

        async def call_it(_call: ProtectedCall) -> Result:
            awaitable = func(*args, **kwargs)
            if not inspect.isawaitable(awaitable):
                raise _NotAwaitableError(not_awaitable(func, awaitable))
            return await awaitable

        try:
            return await self.protect(
                call_it,
                operation=name_of(func) if operation is None else operation,
                chat_id=kwargs.get("chat_id"),
                repeatable=repeatable,
            )
        except _NotAwaitableError as error:
            raise error.why from None

    async def protect(
        self,
        func: Callable[[ProtectedCall], Awaitable[Result]],
        *,
        operation: str | None = None,
        failures: FailureTable | None = None,
        chat_id: ChatId | None = None,
        repeatable: bool = True,
    ) -> Result:
        """Do the same for a `func(call)` that may end its call itself; see `Guard`."""
        refuse_nesting(self.breaker)
        self._refuse_if_blocked()
        request = _Request(
            func,
            operation,
            failures or self._fleet.failures,
            chat_of(chat_id) if chat_id is not None and is_message(operation) else None,
            self._fleet.monotonic_ns(),
        )
        self._fleet.budget.earn()
        try:
            result: Result = await self._attempt(request, 1)
        except Exception as error:
            if not repeatable or not self._may_help(request, error):
                raise
            first = error
        else:
            return result
        try:
            again: Result = await self._try_again(request, first)
        finally:
            # Its traceback has this frame: without this only the garbage collector would free the two.
            del first
        return again

    def get_health(self) -> BotHealth:
        """Tell how the bot is, as this process has seen it in the last minutes."""
        now_ns = self._fleet.monotonic_ns()
        return self._watch.tell(
            self.credentials.user_id,
            self.breaker.state,
            now_ns,
            under_way=self._under_way,
            waiting=self._waiting,
            paused_seconds=self._paused_seconds(now_ns),
        )

    def _choose_limits(self, before: UserBotInstance | None) -> BotLimits:
        rates = (self.credentials.requests_per_second, self.credentials.concurrency)
        if before is not None and rates == (
            before.credentials.requests_per_second,
            before.credentials.concurrency,
        ):
            return before._limits  # noqa: SLF001
        return BotLimits(*rates, self._fleet.chats, self._fleet.limiter)

    async def _try_again(self, request: _Request, first: Exception) -> Any:
        attempts = retrying(
            self._fleet.retries,
            lambda error: self._read(error, request),
            lambda pause_seconds: self._may_repeat(request, pause_seconds),
            self._pause,
        )
        last = first
        try:
            async for attempt in attempts:
                with attempt:
                    number = attempt.retry_state.attempt_number
                    if number == 1:
                        # The attempt that was made before tenacity was needed: most calls do without it.
                        raise first
                    self._watch.retries += 1
                    try:
                        return await self._attempt(request, number)
                    except (CircuitBreakerOpenError, RateLimitedError, _OutOfTimeError) as refusal:
                        last.add_note(f"breaker-store: not tried again: {refusal}")
                        break
                    except Exception as error:
                        last = error
                        raise
            # Outside of all that, so that neither tenacity takes it for another attempt, nor its own cause is lost.
            raise last
        finally:
            take_apart(attempts)
            del first, last, attempt

    async def _attempt(self, request: _Request, number: int) -> Any:
        await self._wait_for_permits(request, number)
        try:
            call = self.breaker.begin(
                request.operation, attempt=number if number > 1 else None, failures=request.failures
            )
        except BaseException as error:
            self._limits.release()
            self._watch.refusals += isinstance(error, CircuitBreakerOpenError)
            raise
        self._under_way += 1
        call.when_ended(partial(self._note_end, call, request))
        try:
            with within(self.breaker, call):
                result = await request.func(call)
        except _NotAwaitableError:
            call.abandon()
            raise
        except BaseException as error:
            await call.end(error)
            raise
        if not call.is_left_open:
            await call.end(result=result)
        return result

    def _note_end(self, call: ProtectedCall, request: _Request, error: BaseException | None) -> None:
        self._under_way -= 1
        self._limits.release()
        started_ns, now_ns = call.block.started_ns, self._fleet.monotonic_ns()
        if error is None:
            self._watch.note(started_ns, now_ns, failed=False)
        elif tells_of_the_service(error):
            reading = self._read(error, request)
            is_rate_limited = reading.category is Category.RATE_LIMITED
            failed = reading.category.is_failure
            self._watch.note(started_ns, now_ns, failed=failed, is_rate_limited=is_rate_limited)
            if is_rate_limited and reading.retry_after_seconds:
                self._leave_alone(now_ns, reading.retry_after_seconds)

    def _leave_alone(self, now_ns: int, seconds: float) -> None:
        # The service doesn't say whether one chat is meant or the bot; to go on with the others may make it longer.
        until_ns = now_ns + round(min(seconds, LONGEST_PAUSE_SECONDS) * _NANOSECONDS)
        self._paused_until_ns = max(self._paused_until_ns, until_ns)
        # Whoever waits for a limit would else go on in the midst of it.
        self._fleet.registry.surroundings.end_waits(self.breaker)

    def _read(self, error: BaseException, request: _Request) -> ErrorReading:
        if isinstance(error, _NotAwaitableError) or not tells_of_the_service(error):
            return ErrorReading(Category.DECLINED)
        return read_error(error, self.breaker.state.policy, request.failures)

    def _may_help(self, request: _Request, error: Exception) -> bool:
        return self._fleet.retries.attempts_at(self._read(error, request).category) > 1

    def _may_repeat(self, request: _Request, pause_seconds: float) -> bool:
        if self.breaker.state.state is CircuitState.OPEN:
            return False
        return pause_seconds <= self._seconds_left(request) and self._fleet.budget.spend(self._taken)

    def _seconds_left(self, request: _Request) -> float:
        elapsed_ns = self._fleet.monotonic_ns() - request.started_ns
        return self._fleet.retries.total_seconds - elapsed_ns / _NANOSECONDS

    async def _wait_for_permits(self, request: _Request, number: int) -> None:
        """Take all permits; raise at once if the breaker opens while some are waited for."""
        while True:
            seconds_left = None if number == 1 else self._seconds_left(request)
            if seconds_left is not None and seconds_left <= 0:
                raise _OutOfTimeError(f"the total time of {self._fleet.retries.total_seconds:g} s is over")
            paused_seconds = self._paused_seconds(self._fleet.monotonic_ns())
            if paused_seconds > self._fleet.retries.total_seconds:
                self._watch.refusals += 1
                raise RateLimitedError(self.credentials.user_id, paused_seconds)
            if not paused_seconds and self._limits.are_free(request.chat_id):
                await self._limits.acquire(request.chat_id)
                return
            # Before each wait, since the breaker may have opened during the one before.
            self._refuse_if_blocked()
            with suppress(TimeoutError):
                async with self._interruptible(seconds_left):
                    if paused_seconds:
                        await self._sit_out(paused_seconds)
                        continue
                    await self._limits.acquire(request.chat_id)
                # Whose end made room may also have been told to leave the service alone.
                if not self._paused_seconds(self._fleet.monotonic_ns()):
                    return
                self._limits.release()

    async def _sit_out(self, paused_seconds: float) -> None:
        until_ns = self._paused_until_ns
        await asyncio.sleep(paused_seconds)
        if self._paused_until_ns == until_ns:
            # It was waited for on the event loop; the registry's clock may stand still, in a test.
            self._paused_until_ns = 0

    def _refuse_if_blocked(self) -> None:
        try:
            self.breaker.refuse_if_blocked()
        except CircuitBreakerOpenError:
            self._watch.refusals += 1
            raise

    async def _pause(self, seconds: float) -> None:
        """Wait before another attempt; shorter if the breaker opens, for then there will be none."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self.breaker.state.state is not CircuitState.OPEN and (left := until - loop.time()) > 0:
            with suppress(TimeoutError):
                async with self._interruptible(None):
                    await asyncio.sleep(left)

    @asynccontextmanager
    async def _interruptible(self, seconds: float | None) -> AsyncIterator[None]:
        """Wait for what is inside, at most so long, or until something else has to be done, which raises TimeoutError."""
        async with asyncio.timeout(seconds) as scope:
            self._waiting += 1
            try:
                with self._fleet.registry.surroundings.waiting(self.breaker, scope):
                    yield
            finally:
                self._waiting -= 1

    def _paused_seconds(self, now_ns: int) -> float:
        return max(0, self._paused_until_ns - now_ns) / _NANOSECONDS


def _check_that_it_can_be_called(func: object) -> None:
    if callable(func):
        return
    if inspect.iscoroutine(func):
        func.close()
    raise TypeError(f"a function is needed, which can be called again, not {func!r}")


class _OutOfTimeError(Exception):
    """No permit came in the total time of a call that was to be tried again."""


class _NotAwaitableError(Exception):
    """What was called is no asynchronous function: its caller's mistake, and nothing of the service."""

    def __init__(self, why: TypeError) -> None:
        super().__init__(why)
        self.why = why
