"""The clients of HTTP that have an adapter, each driven in the same way, and a guard that tries again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, Self, TypeVar

import aiohttp
import httpx

from breaker_store import CircuitBreaker
from breaker_store.core.failures import FailureTable
from breaker_store.integrations.aiohttp import circuit_breaker_middleware
from breaker_store.integrations.httpx import BreakerTransport
from breaker_store.runtime.protected_call import Guard, ProtectedCall

Result = TypeVar("Result")
Answer = tuple[int, bytes]


class Client(Protocol):
    """What a test asks of a client.

    Attributes:
        errors: what its errors of the network are.

    """

    errors: type[Exception] | tuple[type[Exception], ...]

    async def post(self, address: str, body: Any = b"") -> Answer: ...

    def stream(self, address: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


class Httpx:
    errors = httpx.TransportError

    def __init__(self, guard: Guard | None = None, *, timeout_seconds: float = 5.0, **options: Any) -> None:
        # With one connection, an answer that holds it on makes the next request fail.
        inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=1))
        transport = BreakerTransport(guard, inner, **options)
        self.client = httpx.AsyncClient(transport=transport, timeout=timeout_seconds)

    async def post(self, address: str, body: Any = b"") -> Answer:
        answer = await self.client.post(address, content=body)
        return answer.status_code, answer.content

    @asynccontextmanager
    async def stream(self, address: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self.client.stream("POST", address) as answer:
            yield answer.aiter_raw()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()


class Aiohttp:
    errors = (aiohttp.ClientError, TimeoutError)

    def __init__(self, guard: Guard | None = None, *, timeout_seconds: float = 5.0, **options: Any) -> None:
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1),
            middlewares=[circuit_breaker_middleware(guard, **options)],
            timeout=aiohttp.ClientTimeout(total=timeout_seconds, ceil_threshold=60),
        )

    async def post(self, address: str, body: Any = b"") -> Answer:
        async with self.session.post(address, data=body) as answer:
            return answer.status, await answer.read()

    @asynccontextmanager
    async def stream(self, address: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self.session.post(address) as answer:
            yield answer.content.iter_any()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()


MakeClient = Callable[..., Client]
CLIENTS: tuple[MakeClient, ...] = (Httpx, Aiohttp)


class Twice:
    """A guard that tries once more where it may, and pauses before that as the test says.

    Attributes:
        told: whether each call might be tried again, in order.

    """

    def __init__(self, breaker: CircuitBreaker, pause: Callable[[], Awaitable[object]] | None = None) -> None:
        self._breaker = breaker
        self._pause = pause
        self.told: list[bool] = []

    failures = None

    async def protect(
        self,
        func: Callable[[ProtectedCall], Awaitable[Result]],
        *,
        operation: str | None = None,
        failures: FailureTable | None = None,
        chat_id: int | str | None = None,
        repeatable: bool = True,
    ) -> Result:
        self.told.append(repeatable)
        try:
            return await self._try(func, self._breaker.begin(operation, failures=failures))
        except Exception:
            if not repeatable:
                raise
        if self._pause is not None:
            await self._pause()
        return await self._try(func, self._breaker.begin(operation, attempt=2, failures=failures))

    async def _try(self, func: Callable[[ProtectedCall], Awaitable[Result]], call: ProtectedCall) -> Result:
        async with AsyncExitStack() as stack:

            @stack.push_async_exit
            async def end(_type: object, error: BaseException | None, _traceback: object) -> None:
                if error is not None or not call.is_left_open:
                    await call.end(error)

            return await func(call)
