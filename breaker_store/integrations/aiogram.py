"""aiogram: every request of a bot's session goes through the bot's breaker.

    bot.session.middleware(CircuitBreakerMiddleware(breaker))

It sees what the session sees: answers to API methods and their errors, as aiogram raises them. What is fetched by
`bot.download` is no API method, and passes by.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any, Final, get_args

from aiogram import Bot
from aiogram.client.session.middlewares.base import BaseRequestMiddleware, NextRequestMiddlewareType
from aiogram.exceptions import ClientDecodeError
from aiogram.methods import Response, TelegramMethod
from aiogram.methods.base import TelegramType
from aiogram.types import BufferedInputFile, FSInputFile, InputFile, TelegramObject, URLInputFile

from breaker_store.core.failures import FailureTable
from breaker_store.failures import AIOGRAM
from breaker_store.integrations.bot_api import STARTING_AND_POLLING
from breaker_store.integrations.guards import choose_guard, choose_table
from breaker_store.runtime.protected_call import Guard, ProtectedCall

# Each begins anew when it is read again. What another class does, nobody knows.
_READ_ANEW: Final = frozenset({BufferedInputFile.read, FSInputFile.read, URLInputFile.read})


class CircuitBreakerMiddleware(BaseRequestMiddleware):
    """Has a guard protect the requests of a session.

    Args:
        guard: a `CircuitBreaker`, or whatever else protects calls, for all bots of the session.
        guard_of: gives the guard of each bot instead, where one session serves many.
        failures: what errors mean; None for what the guard's user chose, or else `AIOGRAM`.
        passing_by: the API methods that are sent unprotected and uncounted; see `STARTING_AND_POLLING`.

    A refusal is raised as `CircuitBreakerOpenError`, and nothing is sent. What aiogram raises is raised as it is.

    Raises:
        TypeError: both `guard` and `guard_of` are given, or neither.

    """

    def __init__(
        self,
        guard: Guard | None = None,
        *,
        guard_of: Callable[[Bot], Guard] | None = None,
        failures: FailureTable | None = None,
        passing_by: Collection[str] = STARTING_AND_POLLING,
    ) -> None:
        self._guard_of = choose_guard(guard, guard_of)
        self._failures = failures
        self._passing_by = frozenset(passing_by)

    async def __call__(
        self,
        make_request: NextRequestMiddlewareType[TelegramType],
        bot: Bot,
        method: TelegramMethod[TelegramType],
    ) -> Response[TelegramType]:
        operation = method.__api_method__
        if operation in self._passing_by:
            return await make_request(bot, method)

        async def send(_call: ProtectedCall) -> Response[TelegramType] | ClientDecodeError:
            try:
                return await make_request(bot, method)
            except ClientDecodeError as error:
                if not _was_done(error):
                    raise
                return error

        guard = self._guard_of(bot)
        answer = await guard.protect(
            send,
            operation=operation,
            failures=choose_table(self._failures, guard, AIOGRAM),
            chat_id=getattr(method, "chat_id", None),
            repeatable=_can_be_sent_again(method),
        )
        if isinstance(answer, ClientDecodeError):
            raise answer
        return answer


def _was_done(error: ClientDecodeError) -> bool:
    """Tell an answer that all went well, in words that this aiogram doesn't know, from one that is no answer of the API.

    It is a success of the bot: to send such a message again would give it to its reader twice.
    """
    return isinstance(error.data, dict) and error.data.get("ok") is True


def _can_be_sent_again(method: TelegramMethod[Any]) -> bool:
    fields = _fields_for_files(type(method))
    return not fields or all(_can_be_read_again(getattr(method, field)) for field in fields)


@functools.cache
def _fields_for_files(method: type[TelegramMethod[Any]]) -> tuple[str, ...]:
    """Find the fields in which there may be files: to look at all of each request would cost more than all else here."""
    fields = method.model_fields.items()
    return tuple(name for name, field in fields if _may_hold_a_file(field.annotation, frozenset()))


def _may_hold_a_file(annotation: Any, within: frozenset[type]) -> bool:
    if not isinstance(annotation, type):
        return any(_may_hold_a_file(part, within) for part in get_args(annotation))
    if issubclass(annotation, TelegramObject) and annotation not in within:
        fields = annotation.model_fields.values()
        return any(_may_hold_a_file(field.annotation, within | {annotation}) for field in fields)
    return issubclass(annotation, InputFile)


def _can_be_read_again(value: object) -> bool:
    """Tell whether all files in it, however deep, can be read again."""
    if isinstance(value, InputFile):
        return type(value).read in _READ_ANEW
    if isinstance(value, TelegramObject):
        return all(map(_can_be_read_again, vars(value).values()))
    if isinstance(value, list | tuple):
        return all(map(_can_be_read_again, value))
    return True
