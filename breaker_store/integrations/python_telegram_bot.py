"""python-telegram-bot: every request of a bot goes through the bot's breaker.

    Application.builder().token(token).request(BreakerRequest(breaker)).build()

The library has another request object for `getUpdates`: so that passes by, as does what starts and stops a bot.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final, cast

try:
    from telegram.error import NetworkError
    from telegram.request import BaseRequest, HTTPXRequest, RequestData
except ModuleNotFoundError as error:
    # On the package index "telegram" is something else.
    error.add_note("it comes with breaker-store[python-telegram-bot]")
    raise

from breaker_store.core.failures import BadAnswer, FailureTable
from breaker_store.errors import BreakerStoreError
from breaker_store.failures import PYTHON_TELEGRAM_BOT
from breaker_store.integrations.bot_api import STARTING_AND_POLLING
from breaker_store.integrations.guards import choose_table
from breaker_store.runtime.protected_call import Guard, ProtectedCall

DOWNLOAD: Final = "download"
"""The operation of fetching a file: its address ends in the file's name."""


class BreakerRequest(BaseRequest):
    """Has a guard protect what another request object sends.

    Args:
        guard: a `CircuitBreaker`, or whatever else protects the bot's calls.
        request: what sends; None for an `HTTPXRequest` as the library makes it. It is started and closed with this one.
        failures: what errors and statuses mean; None for what the guard's user chose, or else `PYTHON_TELEGRAM_BOT`.
        passing_by: the API methods that are sent unprotected and uncounted; see `STARTING_AND_POLLING`.

    A refusal is raised as `CircuitBreakerOpenError`, and nothing is sent. Bad answers are given to the library, which
    raises its own errors; so in the record they are named by their status, as `http.Forbidden`.
    """

    def __init__(
        self,
        guard: Guard,
        request: BaseRequest | None = None,
        *,
        failures: FailureTable | None = None,
        passing_by: Collection[str] = STARTING_AND_POLLING,
    ) -> None:
        self._guard = guard
        self._passing_by = frozenset(passing_by)
        self._request = HTTPXRequest() if request is None else request
        self._failures = failures

    @property
    def read_timeout(self) -> float | None:
        return self._request.read_timeout

    async def initialize(self) -> None:
        await self._request.initialize()

    async def shutdown(self) -> None:
        await self._request.shutdown()

    def parse_json_payload(self, payload: bytes) -> dict[str, Any]:  # type: ignore[override]
        """Read an answer as the wrapped object does; it is meant to be overridden."""
        return self._request.parse_json_payload(payload)

    async def do_request(
        self, url: str, method: str, request_data: RequestData | None = None, *args: Any, **kwargs: Any
    ) -> tuple[int, bytes]:
        """Send a request if the guard lets it through; the other arguments are the time-outs."""
        operation = DOWNLOAD if method == "GET" else url.rpartition("/")[2]
        if operation in self._passing_by:
            return await self._request.do_request(url, method, request_data, *args, **kwargs)

        async def send(_call: ProtectedCall) -> tuple[int, bytes]:
            status, payload = await self._request.do_request(url, method, request_data, *args, **kwargs)
            if not 200 <= status <= 299:
                raise _bad_answer(status, payload)
            return status, payload

        try:
            return await self._guard.protect(
                send,
                operation=operation,
                failures=choose_table(self._failures, self._guard, PYTHON_TELEGRAM_BOT),
                chat_id=_chat_of(request_data),
                repeatable=_can_be_sent_again(request_data),
            )
        except BadAnswer as bad:
            return cast("tuple[int, bytes]", bad.answer)

    async def _request_wrapper(self, *args: Any, **kwargs: Any) -> bytes:
        """Let our own errors out as they are: the library makes a NetworkError of what is not its own.

        Without this, which overrides what is private, they would still be the cause of that error.
        """
        try:
            return await super()._request_wrapper(*args, **kwargs)
        except NetworkError as error:
            if isinstance(error.__cause__, BreakerStoreError):
                raise error.__cause__ from error.__cause__.__cause__
            raise


def _bad_answer(status: int, payload: bytes) -> BadAnswer:
    """Read what a bad answer says of itself. One from a proxy is no JSON, and says nothing."""
    try:
        body = json.loads(payload)
    except ValueError:
        body = None
    told = body if isinstance(body, dict) else {}
    parameters, description = told.get("parameters"), told.get("description")
    retry_after = parameters.get("retry_after") if isinstance(parameters, dict) else None
    return BadAnswer(
        (status, payload),
        status,
        retry_after=retry_after if isinstance(retry_after, int | float) else None,
        description=description if isinstance(description, str) else None,
    )


def _chat_of(request_data: RequestData | None) -> int | str | None:
    chat_id = None if request_data is None else request_data.parameters.get("chat_id")
    return chat_id if isinstance(chat_id, int | str) else None


def _can_be_sent_again(request_data: RequestData | None) -> bool:
    """Tell whether all files are in memory: one that is read while it is sent may stand at its end afterwards."""
    if request_data is None or not request_data.contains_files:
        return True
    return all(isinstance(content, bytes) for _, content, _ in request_data.multipart_data.values())
