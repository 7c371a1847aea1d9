"""httpx: a transport in which each request is a call of a breaker.

    httpx.AsyncClient(transport=BreakerTransport(breaker))

A request's outcome is known when its body ends, and its duration is the time until then. An error in mid-stream is a
failure. Whoever closes a body early has had enough of it: the service had answered well. A status from 400 on is
recorded as what the table says of it, at once, and its answer reaches the caller as it is.

Each redirect, and each request of an authentication in several steps, is a call of its own. A 401 opens the breaker, so
with `httpx.DigestAuth`, which begins with one, say `failures=HTTPX | {401: Category.DECLINED}`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import cast

import httpx

from breaker_store.core.failures import FIRST_ERROR_STATUS, BadAnswer, FailureTable
from breaker_store.failures import HTTPX
from breaker_store.integrations.guards import choose_guard
from breaker_store.integrations.http_calls import (
    SWITCHING_PROTOCOLS,
    RequestProtection,
    cancellation_under_way,
    is_short,
    name_operation,
)
from breaker_store.runtime.protected_call import Guard, ProtectedCall


def _operation_of(request: httpx.Request) -> str:
    return name_operation(request.method, request.url.host, request.url.path)


class BreakerTransport(httpx.AsyncBaseTransport):
    """Sends what a breaker lets through, by another transport.

    Args:
        guard: whose calls all requests are: a breaker, or a bot's instance.
        transport: what sends, and is closed with this one; None for an `AsyncHTTPTransport()`. A client's own `verify`,
            `http2`, `limits` and `proxy` are for the transport that it makes, so here they belong to this one.
        guard_of: in place of `guard`, tells whose call a request is: so that users share a client and its connections.
        failures: what errors and statuses mean; None for what the guard's user chose, or else `HTTPX`.
        operation_of: what a request is called in the record; None takes the method's name of Telegram's Bot API, and for
            all else method and host.
        chat_id_of: to which chat a request sends something, for guards that limit by chat.

    Raises:
        TypeError: there is neither `guard` nor `guard_of`, or both.

    """

    def __init__(  # noqa: PLR0913 - all but two are named, and left out as a rule
        self,
        guard: Guard | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        guard_of: Callable[[httpx.Request], Guard] | None = None,
        failures: FailureTable | None = None,
        operation_of: Callable[[httpx.Request], str | None] | None = None,
        chat_id_of: Callable[[httpx.Request], int | str | None] | None = None,
    ) -> None:
        self._transport = transport or httpx.AsyncHTTPTransport()
        self._protection = RequestProtection(
            choose_guard(guard, guard_of), failures, HTTPX, operation_of or _operation_of, chat_id_of
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            CircuitBreakerOpenError: it may not be sent; nothing was.

        """
        sending = _Sending(self._transport, request)
        # Any other stream may be read only once; those of files could be wound back, and nobody promises it.
        repeatable = isinstance(request.stream, httpx.ByteStream)
        try:
            return await self._protection.protect(request, sending.send, repeatable=repeatable)
        except BadAnswer as bad:
            return cast("httpx.Response", bad.answer)
        except BaseException:
            await sending.close_bad_answer()
            raise

    async def aclose(self) -> None:
        await self._transport.aclose()


class _Sending:
    """One request, which is sent once, or again by guards that try again."""

    def __init__(self, transport: httpx.AsyncBaseTransport, request: httpx.Request) -> None:
        self._transport = transport
        self._request = request
        self._bad_answer: httpx.Response | None = None

    async def send(self, call: ProtectedCall) -> httpx.Response:
        await self.close_bad_answer()
        response = await self._transport.handle_async_request(self._request)
        if response.status_code >= FIRST_ERROR_STATUS:
            self._bad_answer = response
            raise BadAnswer(response, response.status_code, response.headers, put_aside=self._put_aside)
        # A transport for tests may give an answer that has been read. A connection that goes on with another protocol
        # has no end that would tell anything.
        if not response.is_closed and response.status_code != SWITCHING_PROTOCOLS:
            call.leave_open()
            response.stream = _WatchedStream(cast("httpx.AsyncByteStream", response.stream), call)
        return response

    async def _put_aside(self, bad: BadAnswer) -> None:
        """Read a short answer into memory, so that others have its connection during a pause."""
        response = self._bad_answer
        if response is None or not is_short(response.headers.get("Content-Length")):
            return
        with suppress(httpx.TransportError):
            raw = b"".join([chunk async for chunk in response.aiter_raw()])
            self._bad_answer = bad.answer = httpx.Response(
                response.status_code,
                headers=response.headers,
                stream=httpx.ByteStream(raw),
                extensions=response.extensions,
            )

    async def close_bad_answer(self) -> None:
        """Give the connection back of an answer that nobody will read."""
        answer, self._bad_answer = self._bad_answer, None
        if answer is not None:
            await answer.aclose()


class _WatchedStream(httpx.AsyncByteStream):
    """A body whose end is that of its call."""

    def __init__(self, stream: httpx.AsyncByteStream, call: ProtectedCall) -> None:
        self._stream = stream
        self._call = call
        self._loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        # An answer that is thrown away unclosed costs its client a connection. It must not cost its bot one of its
        # places among the calls under way, for ever. This may run in any thread, and in the middle of a decision.
        if not self._call.has_ended:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._call.end_now)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        except GeneratorExit:
            await self._call.end()
            raise
        except BaseException as error:
            await self._call.end(error)
            raise
        await self._call.end()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            await self._call.end(cancellation_under_way())
