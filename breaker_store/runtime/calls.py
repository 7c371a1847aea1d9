"""What a protected call was, and what its end tells of the service."""

from __future__ import annotations

import concurrent.futures
import functools
import inspect
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeGuard
from uuid import UUID

from breaker_store.core.cleaning import clean_attempt, clean_name, clean_text
from breaker_store.core.commands import Report
from breaker_store.core.events import PERMANENT_REASON, Kind, Permit
from breaker_store.core.failures import Category, ErrorReading, FailureTable
from breaker_store.core.policy import Policy, error_name
from breaker_store.errors import CircuitBreakerOpenError, NestedCallError, NotCommittedError, RateLimitedError
from breaker_store.runtime.clock import NANOSECONDS_IN_MICROSECOND

if TYPE_CHECKING:
    from breaker_store.runtime.surroundings import Surroundings

_TELLS_NOTHING = (
    CircuitBreakerOpenError,
    RateLimitedError,
    NotCommittedError,
    NestedCallError,
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


def report_of(
    surroundings: Surroundings,
    kind: Literal[Kind.SUCCESS, Kind.FAILURE],
    facts: CallFacts,
    error: Exception | None = None,
    reading: ErrorReading | None = None,
) -> Report:
    """Put the end of a call into the words of the core."""
    journal = surroundings.journal
    # First, for it calls the user's code: what that does takes numbers of its own.
    message = None if error is None else describe_error(error)
    tracing = surroundings.tracing
    trace_id = None if tracing is None else tracing.trace_id()
    error_type = None if error is None else error_name(type(error))
    if reading is not None and reading.error_type is not None:
        error_type = reading.error_type
    category = None if reading is None else reading.category
    return Report(
        at=surroundings.clock.at_us(facts.ended_ns),
        event_id=journal.next_id(),
        era=journal.draw_era(),
        kind=kind,
        permit=facts.permit,
        duration_us=(facts.ended_ns - facts.started_ns) // NANOSECONDS_IN_MICROSECOND,
        operation=None if facts.operation is None else clean_name(facts.operation),
        error_type=None if error_type is None else clean_name(error_type),
        error_message=message,
        attempt=clean_attempt(facts.attempt),
        trace_id=None if trace_id is None else UUID(int=trace_id),
        counts=category is not Category.RATE_LIMITED,
        opens_at_once=PERMANENT_REASON if category is Category.PERMANENT else None,
    )


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
    if hasattr(given, "__aiter__"):
        way = "`breaker.stream` those that give an async iterator"
    elif hasattr(given, "__aenter__"):
        way = "`breaker.entering` those that give an async context manager"
    else:
        way = "`breaker.call_sync` plain ones"
    return TypeError(
        f"{func!r} gave {type(given).__name__}, which can't be awaited: "
        f"a breaker protects functions that give awaitables, such as an async def, and {way}"
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
