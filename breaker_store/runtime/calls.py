"""What a protected call was, and what its end tells of the service."""

from __future__ import annotations

import concurrent.futures
import functools
import inspect
from typing import Any, NamedTuple, TypeGuard

from breaker_store.core.cleaning import clean_text
from breaker_store.core.events import Permit
from breaker_store.core.failures import Category, ErrorReading, FailureTable
from breaker_store.core.policy import Policy
from breaker_store.errors import CircuitBreakerOpenError, NotCommittedError, RateLimitedError

_TELLS_NOTHING = (
    CircuitBreakerOpenError,
    RateLimitedError,
    NotCommittedError,
    concurrent.futures.CancelledError,
)

NOT_CALLED: Any = object()
"""Stands for what a function gave before it was called."""


class CallFacts(NamedTuple):
    """What is known of a call that has ended, but for its error."""

    permit: Permit
    started_ns: int
    ended_ns: int
    operation: str | None
    attempt: int | None = None


def read_error(error: Exception, policy: Policy, failures: FailureTable) -> ErrorReading:
    """Tell what an error means. What the policy names is the user's own word, so it comes before the table's."""
    reading = failures.read(error)
    if not policy.counts_as_failure(error):
        return reading if not reading.category.is_failure else reading._replace(category=Category.DECLINED)
    if policy.counted_errors is not None and not reading.category.is_failure:
        return reading._replace(category=Category.UNKNOWN)
    return reading


def tells_of_the_service(error: BaseException) -> TypeGuard[Exception]:
    """Leave out what says nothing of the service.

    That is cancellation, the end of the process, another guard's refusal, and a log that could not be asked.
    """
    return isinstance(error, Exception) and not isinstance(error, _TELLS_NOTHING)


def is_call(func: object, awaitable: object) -> bool:
    """Tell a call that failed from something that was no asynchronous call at all."""
    return callable(func) if awaitable is NOT_CALLED else inspect.isawaitable(awaitable)


def not_awaitable(func: object, given: object) -> TypeError:
    """Make the error for what was no asynchronous call."""
    if given is NOT_CALLED:
        return TypeError(f"a function is needed, not {func!r}")
    return TypeError(
        f"{func!r} gave {type(given).__name__}, which can't be awaited: "
        "a breaker protects functions that give awaitables, such as an async def"
    )


def name_of(func: object) -> str | None:
    """Give a function's name, a partial's by what it wraps; None for whoever has none, or one that is no text."""
    while isinstance(func, functools.partial):
        func = func.func
    try:
        name = getattr(func, "__name__", None)
    except Exception:  # noqa: BLE001 - whoever has no name is called all the same
        return None
    return name if isinstance(name, str) else None


def describe_error(error: BaseException) -> str:
    """Give an exception's text, without secrets and cut, whatever its `__str__` does."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception that can't be printed is still a failure of the call
        text = "(the error could not be printed)"
    return clean_text(text)
