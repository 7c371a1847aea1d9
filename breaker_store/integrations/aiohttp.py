"""aiohttp: a client middleware in which each request is a call of a breaker.

    aiohttp.ClientSession(middlewares=[circuit_breaker_middleware(breaker)])

A request's outcome is known when its body has arrived, or its connection is given back, and its duration is the time
until then. An error in mid-stream is a failure, and so is a time-out of the client's. Whoever leaves a body early has
had enough of it: the service had answered well. A status from 400 on is recorded as what the table says of it, at once,
and its answer reaches the caller as it is; a session that raises for statuses raises its own error.

Each redirect is a call of its own, and so is each try where aiohttp itself tries again what a closed connection has
cost. A 401 opens the breaker; `aiohttp.DigestAuthMiddleware`, which begins with one, belongs behind this middleware.

Nothing of the client is patched: an answer's connection tells when it is given back, and the answer's `content` with what
error, if any. Only the client's total time-out leaves no trace there; it is known by its `TimeoutError`, which is on
its way at that moment. (So a `TimeoutError` of the user's own, raised before the body has arrived, is taken for it.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any, cast

import aiohttp

from breaker_store.core.failures import FIRST_ERROR_STATUS, BadAnswer, FailureTable
from breaker_store.failures import AIOHTTP
from breaker_store.integrations.guards import choose_guard
from breaker_store.integrations.http_calls import (
    SWITCHING_PROTOCOLS,
    RequestProtection,
    cancellation_under_way,
    is_short,
    name_operation,
)
from breaker_store.runtime.protected_call import Guard, ProtectedCall


def _operation_of(request: aiohttp.ClientRequest) -> str:
    return name_operation(request.method, request.url.host or "", request.url.path)


def circuit_breaker_middleware(
    guard: Guard | None = None,
    *,
    guard_of: Callable[[aiohttp.ClientRequest], Guard] | None = None,
    failures: FailureTable | None = None,
    operation_of: Callable[[aiohttp.ClientRequest], str | None] | None = None,
    chat_id_of: Callable[[aiohttp.ClientRequest], int | str | None] | None = None,
) -> aiohttp.ClientMiddlewareType:
    """Make a middleware that sends what a breaker lets through, for a session or for one request.

    Args:
        guard: whose calls all requests are: a breaker, or a bot's instance.
        guard_of: in place of `guard`, tells whose call a request is: so that users share a session and its connections.
        failures: what errors and statuses mean; None for what the guard's user chose, or else `AIOHTTP`.
        operation_of: what a request is called in the record; None takes the method's name of Telegram's Bot API, and for
            all else method and host.
        chat_id_of: to which chat a request sends something, for guards that limit by chat.

    Raises:
        TypeError: there is neither `guard` nor `guard_of`, or both.

    """
    protection = RequestProtection(
        choose_guard(guard, guard_of), failures, AIOHTTP, operation_of or _operation_of, chat_id_of
    )

    async def protected(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        sending = _Sending(request, handler)
        # Of other bodies some can be sent again, and which ones depends on the file or iterator behind them.
        repeatable = not request.body or isinstance(request.body, aiohttp.BytesPayload)
        try:
            return await protection.protect(request, sending.send, repeatable=repeatable)
        except BadAnswer as bad:
            return cast("aiohttp.ClientResponse", bad.answer)
        except BaseException:
            sending.release_bad_answer()
            raise

    return protected


class _Sending:
    """One request, which is sent once, or again by guards that try again."""

    def __init__(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> None:
        self._request = request
        self._handler = handler
        self._bad_answer: aiohttp.ClientResponse | None = None

    async def send(self, call: ProtectedCall) -> aiohttp.ClientResponse:
        self.release_bad_answer()
        with _total_timeout(self._request):
            response = await self._handler(self._request)
        if response.status >= FIRST_ERROR_STATUS:
            self._bad_answer = response
            raise BadAnswer(response, response.status, response.headers, put_aside=_put_aside)
        # Of an answer whose body has arrived the connection is gone already. One that goes on with another protocol has
        # no end that would tell anything.
        if response.connection is not None and response.status != SWITCHING_PROTOCOLS:
            call.leave_open()
            response.connection.add_callback(partial(_end, call, response.content, sys.exception()))
        return response

    def release_bad_answer(self) -> None:
        """Give the connection back of an answer that nobody will read."""
        answer, self._bad_answer = self._bad_answer, None
        if answer is not None:
            answer.release()


async def _put_aside(bad: BadAnswer) -> None:
    """Read a short answer into memory, so that others have its connection during a pause."""
    response = cast("aiohttp.ClientResponse", bad.answer)
    if is_short(response.headers.get("Content-Length")):
        with suppress(aiohttp.ClientError, TimeoutError):
            await response.read()


def _total_timeout(request: aiohttp.ClientRequest) -> AbstractContextManager[Any]:
    """Enter the client's total time-out once more, as the client itself does.

    While it connects, that comes as a cancellation, which only becomes a `TimeoutError` outside of all middlewares: here it
    would be taken for the caller's, and a server that can't be reached would never open a breaker. The attribute is a
    private one; where it is missing, that is so.
    """
    timer: AbstractContextManager[Any] | None = getattr(request, "_timer", None)
    return timer or nullcontext()


def _end(call: ProtectedCall, content: aiohttp.StreamReader, handled: BaseException | None) -> None:
    """Tell how an answer ended whose connection is given back."""
    call.end_now(_error_of(content, handled))


def _error_of(content: aiohttp.StreamReader, handled: BaseException | None) -> BaseException | None:
    """Tell why a body has not arrived; None if it has, or if its reader left early.

    handled: what was being handled when the answer came: whoever sends again in an `except TimeoutError` has an earlier
    request's.
    """
    error = content.exception()
    # An answer that is left early is given the base class itself; an error of the connection is of a class below it.
    if error is not None and type(error) is not aiohttp.ClientConnectionError:
        return error
    under_way = sys.exception()
    is_ours = isinstance(under_way, TimeoutError) and under_way is not handled
    return cancellation_under_way() or (under_way if is_ours else None)
