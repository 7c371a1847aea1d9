"""Calls that go on after the function has returned: streams that are iterated, and contexts that are entered.

Such a call begins when its first item is asked for, or when it is entered, and ends when it is exhausted or left. So one
that nobody iterates is no call, and its duration includes what the consumer did in between. An `Exception` that comes out
of it is judged like any other, whoever put it in: an error of reading can't be told from one of the consumer's own code.
A consumer who stops early (`break`, `aclose`) tells nothing of the service: nothing is recorded, and a probe's slot is
free.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

from breaker_store.runtime.calls import name_of
from breaker_store.runtime.protected_call import ProtectedCall

Parameters = ParamSpec("Parameters")
Item = TypeVar("Item")
Value = TypeVar("Value")

Streams: TypeAlias = "AsyncIterable[Item] | Awaitable[AsyncIterable[Item]]"


class Begin(Protocol):
    """Begins a call: `begin` of a breaker, or of one with another durability."""

    def __call__(self, operation: str | None) -> ProtectedCall: ...


def protect_stream(
    begin: Begin, func: Callable[Parameters, Streams[Item]]
) -> Callable[Parameters, AsyncGenerator[Item, Any]]:
    """Make an asynchronous generator function whose every run is one call of `func`.

    Raises:
        TypeError: it can't be called; or, when it is iterated, it gave nothing to iterate, and this is no outcome.

    """
    if not callable(func):
        raise TypeError(f"a function is needed, not {func!r}")

    @functools.wraps(func)
    async def protected(*args: Parameters.args, **kwargs: Parameters.kwargs) -> AsyncGenerator[Item, Any]:
        call = begin(name_of(func))
        items: AsyncIterator[Item] | None = None
        try:
            items = await _open(call, func, args, kwargs)
            step: Awaitable[Item] = anext(items)
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    break
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as thrown:  # noqa: BLE001 - it goes on to whom it was meant for
                    step = _throw(items, thrown)
                else:
                    step = _send(items, sent)
            await call.end()
        except BaseException as error:
            await call.end(error)
            raise
        finally:
            await _close(items)

    return protected


async def _open(
    call: ProtectedCall,
    func: Callable[..., Streams[Item]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> AsyncIterator[Item]:
    given: object = func(*args, **kwargs)
    if not isinstance(given, AsyncIterable) and inspect.isawaitable(given):
        given = await given
    if isinstance(given, AsyncIterable):
        return aiter(given)
    call.abandon()
    raise TypeError(
        f"{func!r} gave {type(given).__name__}, which is no async iterator: `call` is for what gives one answer"
    )


def _send(items: AsyncIterator[Item], sent: object) -> Awaitable[Item]:
    if sent is None or not isinstance(items, AsyncGenerator):
        return anext(items)
    return items.asend(sent)


def _throw(items: AsyncIterator[Item], thrown: BaseException) -> Awaitable[Item]:
    if not isinstance(items, AsyncGenerator):
        raise thrown
    return items.athrow(thrown)


async def _close(items: AsyncIterator[Any] | None) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()


@asynccontextmanager
async def protect_context(
    begin: Begin,
    func: Callable[..., AbstractAsyncContextManager[Value]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> AsyncIterator[Value]:
    """Enter what `func` gives as one call, from its opening to its end."""
    if not callable(func):
        raise TypeError(f"a function is needed, not {func!r}")
    call = begin(name_of(func))
    try:
        async with _manager(call, func, args, kwargs) as value:
            yield value
        await call.end()
    except BaseException as error:
        await call.end(error)
        raise


def _manager(
    call: ProtectedCall,
    func: Callable[..., AbstractAsyncContextManager[Value]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> AbstractAsyncContextManager[Value]:
    given: object = func(*args, **kwargs)
    if isinstance(given, AbstractAsyncContextManager):
        return given
    call.abandon()
    if inspect.iscoroutine(given):
        given.close()
    raise TypeError(
        f"{func!r} gave {type(given).__name__}, which is no async context manager: `call` is for what gives one answer"
    )
