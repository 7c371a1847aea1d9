"""A breaker with a durability of its own, for the calls that need more of it than the others, or less."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from breaker_store.core.failures import FailureTable
from breaker_store.runtime.protected_call import ProtectedCall
from breaker_store.runtime.ways_of_use import WaysOfUse
from breaker_store.settings import Durability

if TYPE_CHECKING:
    from breaker_store.runtime.breaker import CircuitBreaker

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class DurableBreaker(WaysOfUse):
    """A breaker whose calls' events are as durable as was asked for; see `CircuitBreaker.with_durability`."""

    __slots__ = ("_breaker", "_durability")

    def __init__(self, breaker: CircuitBreaker, durability: Durability) -> None:
        self._breaker = breaker
        self._durability = durability

    @property
    def failures(self) -> FailureTable | None:
        """As those of `CircuitBreaker.failures`."""
        return self._breaker.failures

    async def call(
        self,
        func: Callable[Parameters, Awaitable[Result]],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Call `func` as `CircuitBreaker.call` does.

        Raises:
            NotCommittedError: the call succeeded, and its event may not be stored; `result` is what it gave.

        """
        return await self._breaker.call_as(self._durability, func, *args, **kwargs)

    def call_sync(
        self,
        func: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Call `func` as `CircuitBreaker.call_sync` does."""
        return self._breaker.call_sync_as(self._durability, func, *args, **kwargs)

    def begin(
        self,
        operation: str | None = None,
        *,
        attempt: int | None = None,
        failures: FailureTable | None = None,
    ) -> ProtectedCall:
        """Begin a call as `CircuitBreaker.begin` does."""
        return self._breaker.begin(operation, attempt=attempt, failures=failures, durability=self._durability)

    async def __aenter__(self) -> CircuitBreaker:
        return self._breaker.enter_as(self._durability)

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._breaker.leave_as(self._durability, error)
