"""The ways to use a breaker that are made of others: guarding, decorators, streams and contexts."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from breaker_store.core.failures import FailureTable
from breaker_store.runtime.from_threads import refuse_asynchronous
from breaker_store.runtime.streaming import Streams, protect_context, protect_stream

if TYPE_CHECKING:
    from breaker_store.runtime.protected_call import ProtectedCall

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Item = TypeVar("Item")
Sent = TypeVar("Sent")
Value = TypeVar("Value")


class WaysOfUse:
    """What a breaker and one with a durability of its own have in common."""

    __slots__ = ()

    if TYPE_CHECKING:

        async def call(
            self,
            func: Callable[Parameters, Awaitable[Result]],
            /,
            *args: Parameters.args,
            **kwargs: Parameters.kwargs,
        ) -> Result: ...

        def call_sync(
            self,
            func: Callable[Parameters, Result],
            /,
            *args: Parameters.args,
            **kwargs: Parameters.kwargs,
        ) -> Result: ...

        def begin(
            self, operation: str | None = None, *, failures: FailureTable | None = None
        ) -> ProtectedCall: ...

    async def protect(
        self,
        func: Callable[[ProtectedCall], Awaitable[Result]],
        *,
        operation: str | None = None,
        failures: FailureTable | None = None,
        chat_id: int | str | None = None,  # noqa: ARG002 - a breaker alone limits nothing
        repeatable: bool = True,  # noqa: ARG002 - nor does it try again
    ) -> Result:
        """Call `func` as a `Guard` does: once, if the breaker lets it through."""
        call = self.begin(operation, failures=failures)
        try:
            result = await func(call)
        except BaseException as error:
            await call.end(error)
            raise
        if not call.is_left_open:
            await call.end(result=result)
        return result

    def sync(self, func: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        """Decorate a plain function so that each call of it goes through `call_sync`.

        Raises:
            TypeError: it is asynchronous, or a generator function.

        """
        refuse_asynchronous(func)

        @functools.wraps(func)
        def protected(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            return self.call_sync(func, *args, **kwargs)

        return protected

    def stream(
        self,
        func: Callable[Parameters, Streams[Item]],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> AsyncGenerator[Item, Any]:
        """Iterate what `func` gives, or gives when it is awaited, as one call: `async for item in breaker.stream(func)`.

        It begins with the first item asked for, where CircuitBreakerOpenError may be raised, and ends with the last. Who
        stops early tells nothing of the service. See `breaker_store.runtime.streaming`.
        """
        return protect_stream(self.begin, func)(*args, **kwargs)

    def entering(
        self,
        func: Callable[Parameters, AbstractAsyncContextManager[Value]],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> AbstractAsyncContextManager[Value]:
        """Enter what `func` gives as one call: `async with breaker.entering(client.stream, "GET", url) as response`.

        It lasts until the block is left. An error that comes out of it is judged as in `async with breaker`, whether the
        service raised it or the block's own code.
        """
        return protect_context(self.begin, func, args, kwargs)

    @overload
    def __call__(
        self, func: Callable[Parameters, AsyncGenerator[Item, Sent]]
    ) -> Callable[Parameters, AsyncGenerator[Item, Sent]]: ...

    @overload
    def __call__(
        self, func: Callable[Parameters, AsyncIterator[Item]]
    ) -> Callable[Parameters, AsyncIterator[Item]]: ...

    @overload
    def __call__(
        self, func: Callable[Parameters, Awaitable[Result]]
    ) -> Callable[Parameters, Awaitable[Result]]: ...

    def __call__(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate an `async def` so that each call of it goes through this breaker.

        Of an async generator function each run is a call, from the first item to the last. A plain function is for `sync`:
        until it is called it can't be told from one that gives an awaitable, and then it is a TypeError.
        """
        if inspect.isasyncgenfunction(func):
            return protect_stream(self.begin, func)

        @functools.wraps(func)
        async def protected(*args: Any, **kwargs: Any) -> Any:
            return await self.call(func, *args, **kwargs)

        return protected
