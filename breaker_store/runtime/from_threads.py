"""Calls of plain functions from threads: the function runs where it is called, and its breaker decides in its place.

The rules are those of any call, for it is the same code that decides. A call that a closed breaker lets through needs no
decision to begin, so it costs its thread one visit to the event loop, at the end; any other costs two.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from breaker_store.errors import CircuitBreakerOpenError, LedgerError, NotCommittedError
from breaker_store.runtime.calls import name_of, tells_of_the_service
from breaker_store.runtime.decisions import Decisions, LoopEndedError, run_at_once
from breaker_store.runtime.protected_call import ProtectedCall
from breaker_store.settings import Durability

if TYPE_CHECKING:
    from breaker_store.runtime.breaker import CircuitBreaker
    from breaker_store.runtime.surroundings import Surroundings

Result = TypeVar("Result")


def call_from_thread(  # noqa: PLR0913, PLR0917 - who calls what, and how
    breaker: CircuitBreaker,
    surroundings: Surroundings,
    durability: Durability,
    func: Callable[..., Result],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Result:
    """Call `func` in this thread if the breaker lets it through; see `CircuitBreaker.call_sync`."""
    refuse_asynchronous(func)
    if durability is Durability.COMMITTED and surroundings.decisions.are_made_here:
        raise RuntimeError(
            "the event loop of the store can't wait for itself: there, a call that is to be committed is `await breaker.call`"
        )
    call = _begin(breaker, surroundings, durability, name_of(func))
    started_ns = surroundings.monotonic_ns()
    try:
        given = func(*args, **kwargs)
    except BaseException as error:
        _end(call, surroundings, surroundings.monotonic_ns() - started_ns, error)
        raise
    if inspect.isawaitable(given) or inspect.isasyncgen(given):
        surroundings.decisions.make(call.abandon)
        if inspect.iscoroutine(given):
            given.close()  # else it would warn that nobody awaited it
        raise _is_asynchronous(func, f"gave {type(given).__name__}")
    _end(call, surroundings, surroundings.monotonic_ns() - started_ns, None, given)
    return given


def refuse_asynchronous(func: object) -> None:
    """Refuse what would do its work only when the breaker looks no more.

    Raises:
        TypeError: it is an `async def`, a generator function of either kind, or nothing that can be called.

    """
    if not callable(func):
        raise TypeError(f"a function is needed, not {func!r}")
    for called in (func, type(func).__call__):
        if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
            raise _is_asynchronous(func, "is asynchronous")
        if inspect.isgeneratorfunction(called):
            raise TypeError(
                f"{func!r} is a generator function, of which a call runs nothing: call what iterates it"
            )


def _is_asynchronous(func: object, how: str) -> TypeError:
    return TypeError(
        f"{func!r} {how}: call_sync protects plain functions; `await breaker.call` is for an async def, "
        "`breaker.stream` for what gives an async iterator"
    )


def _begin(
    breaker: CircuitBreaker, surroundings: Surroundings, durability: Durability, operation: str | None
) -> ProtectedCall:
    block = breaker.begin_at_once()
    if block is not None:
        return ProtectedCall(breaker, block, operation, None, None, durability)
    begun: list[ProtectedCall] = []
    try:
        surroundings.decisions.make(lambda: begun.append(breaker.begin(operation, durability=durability)))
    except CircuitBreakerOpenError:
        raise
    except BaseException:
        # Ctrl-C while it was waited for. The loop keeps the order: it looks at this when it has begun the call.
        surroundings.decisions.make(lambda: _abandon(begun))
        raise
    return begun[0]


def _abandon(calls: list[ProtectedCall]) -> None:
    for call in calls:
        call.abandon()


def _end(
    call: ProtectedCall,
    surroundings: Surroundings,
    elapsed_ns: int,
    error: BaseException | None,
    result: object = None,
) -> None:
    """Tell how a call ended, as long as it took, and wait until that is taken down, and as durable as it has to be."""
    decisions = surroundings.decisions

    async def end() -> None:
        # What was decided until now came before, so the end is now; when the thread said so is not told.
        call.block = call.block._replace(started_ns=surroundings.monotonic_ns() - elapsed_ns)
        await call.end(error, result=result)

    if call.durability is not Durability.COMMITTED or (error is not None and not tells_of_the_service(error)):
        decisions.make(lambda: run_at_once(end()))
        return
    _finish(call, surroundings, end, error, result)


def _finish(
    call: ProtectedCall,
    surroundings: Surroundings,
    end: Callable[[], Coroutine[Any, Any, None]],
    error: BaseException | None,
    result: object,
) -> None:
    try:
        surroundings.decisions.finish(end)
    except LoopEndedError as ended:
        surroundings.decisions.make(partial(call.end_now, error))
        not_committed = NotCommittedError("the store's event loop ended before the event was stored", result)
        if error is None:
            raise not_committed from ended
        error.add_note(f"breaker-store: {not_committed}")


def flush_from_thread(decisions: Decisions, flush: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Wait for the flush of a store in this thread; see `BreakerStore.flush_sync`."""
    if decisions.are_made_here:
        raise RuntimeError(
            "the event loop of the store can't wait for itself: there it is `await store.flush()`"
        )
    try:
        decisions.finish(flush)
    except LoopEndedError as error:
        raise LedgerError("the store's event loop has ended") from error
