"""Whether a call is made within a call of the same bot.

Both the adapter of a client and `rate_limited_request` around it would be such: each request would count twice, take two
places among the bot's calls under way, of which the inner one may wait for the outer one for ever, and find a half-open
breaker's only slot taken. Tasks that a call begins, and that outlive it, are in none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from breaker_store.errors import NestedCallError
from breaker_store.runtime.breaker import CircuitBreaker
from breaker_store.runtime.protected_call import ProtectedCall


class _Within(NamedTuple):
    breaker: CircuitBreaker
    call: ProtectedCall
    outer: _Within | None


_within: ContextVar[_Within | None] = ContextVar("breaker_store_call", default=None)


@contextmanager
def within(breaker: CircuitBreaker, call: ProtectedCall) -> Iterator[None]:
    """Have what is called inside know of the call."""
    token = _within.set(_Within(breaker, call, _within.get()))
    try:
        yield
    finally:
        _within.reset(token)


def refuse_nesting(breaker: CircuitBreaker) -> None:
    """Refuse a call of a bot within another one of its own that is under way.

    Raises:
        NestedCallError: it is one.

    """
    around = _within.get()
    while around is not None:
        if around.breaker is breaker and not around.call.has_ended:
            raise NestedCallError(breaker.user_id)
        around = around.outer
