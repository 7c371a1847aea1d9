"""A guard that tries again, and keeps what it was asked, as the guard of a bot may: adapters know no more than this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from breaker_store import CircuitBreaker
from breaker_store.core.failures import FailureTable
from breaker_store.runtime.protected_call import ProtectedCall


class CallingAgain:
    """Calls once more what failed and can be sent again."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self.asked: list[dict[str, Any]] = []

    failures = None

    async def protect(
        self,
        func: Callable[[ProtectedCall], Awaitable[Any]],
        *,
        operation: str | None = None,
        failures: FailureTable | None = None,
        chat_id: int | str | None = None,
        repeatable: bool = True,
    ) -> Any:
        self.asked.append({"operation": operation, "chat_id": chat_id, "repeatable": repeatable})
        try:
            return await self._attempt(func, self.breaker.begin(operation, failures=failures))
        except Exception:
            if not repeatable:
                raise
        return await self._attempt(func, self.breaker.begin(operation, attempt=2, failures=failures))

    async def _attempt(self, func: Callable[[ProtectedCall], Awaitable[Any]], call: ProtectedCall) -> Any:
        try:
            result = await func(call)
        except BaseException as error:
            await call.end(error)
            raise
        await call.end(result=result)
        return result
