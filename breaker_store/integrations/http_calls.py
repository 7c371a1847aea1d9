"""What the adapters of HTTP clients have in common: how a request is protected, and what it is called in the record."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from breaker_store.core.failures import FailureTable
from breaker_store.integrations.guards import choose_table
from breaker_store.runtime.protected_call import Guard, ProtectedCall

Request = TypeVar("Request")
Result = TypeVar("Result")

SWITCHING_PROTOCOLS: Final = 101
SHORT_BYTES: Final = 65_536

_TELEGRAM: Final = re.compile(r"(?:^|/)(?P<file>file/)?bot\d+:[^/]+/(?:test/)?(?P<rest>.+)$")


def name_operation(method: str, host: str, path: str) -> str:
    """Name what a request asks for: a method of Telegram's Bot API by its name, all else as `GET example.org`.

    The path is left out, since ids and secrets stand in paths. A file of a Telegram bot is `file`.
    """
    telegram = _TELEGRAM.search(path)
    if telegram is not None and telegram["file"]:
        return "file"
    if telegram is not None and telegram["rest"].isidentifier():
        return telegram["rest"]
    return f"{method} {host}"


def is_short(content_length: str | None) -> bool:
    """Tell whether a body is known to be so short that it may be kept in memory."""
    return content_length is not None and content_length.isdecimal() and int(content_length) <= SHORT_BYTES


def cancellation_under_way() -> asyncio.CancelledError | None:
    """Tell whether the current task is being cancelled, so that it leaves an answer not of its own will."""
    task = asyncio.current_task()
    return asyncio.CancelledError() if task is not None and task.cancelling() else None


@dataclass(frozen=True, slots=True)
class RequestProtection(Generic[Request]):
    """How the requests of a client are protected; see the adapters for what each part is."""

    guard_of: Callable[[Request], Guard]
    failures: FailureTable | None
    failures_of_client: FailureTable
    operation_of: Callable[[Request], str | None]
    chat_id_of: Callable[[Request], int | str | None] | None

    async def protect(
        self, request: Request, send: Callable[[ProtectedCall], Awaitable[Result]], *, repeatable: bool
    ) -> Result:
        """Have the request sent by `send`, if its guard lets it through."""
        guard = self.guard_of(request)
        return await guard.protect(
            send,
            operation=self.operation_of(request),
            failures=choose_table(self.failures, guard, self.failures_of_client),
            chat_id=None if self.chat_id_of is None else self.chat_id_of(request),
            repeatable=repeatable,
        )
