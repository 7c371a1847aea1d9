"""How fast a bot may go: its own rate and concurrency, a rate for each chat, and one for all bots of the process.

Rates are leaky buckets (aiolimiter, which python-telegram-bot limits its own calls with) of a quarter of what a period
allows: so much goes at once after a quiet while, and never more than five quarters in any period. A bucket of all of it
would let twice the rate through in the first period. What is waited for comes in this order:

1. the chat, since a queue for one chat must not take what calls to other chats need; one message at a time waits for what
   follows, or all that did would come at once in the end;
2. a place among the bot's calls under way, so that a rate is spent when the call begins, not while it waits;
3. the bot's rate;
4. the rate of all bots. There is no common concurrency on purpose: bots that hang would fill it, and stop the others.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

from aiolimiter import AsyncLimiter

_FEW_CHATS = 256

ChatId = int | str


@dataclass(frozen=True, slots=True)
class ChatRates:
    """How fast messages may go to one chat; None for no limit.

    Attributes:
        messages_per_second: to any one chat, over 0.
        group_messages_per_minute: to one group besides, over 0. Groups, supergroups and channels have ids below 0, or
            names.

    """

    messages_per_second: float | None = 1.0
    group_messages_per_minute: float | None = 20.0

    def __post_init__(self) -> None:
        for rate in (self.messages_per_second, self.group_messages_per_minute):
            if rate is not None and not rate > 0:
                raise ValueError(f"a rate is over 0, or None for no limit, not {rate!r}")


TELEGRAM_CHATS: Final = ChatRates()
"""What Telegram asks for: https://core.telegram.org/bots/faq, "My bot is hitting limits"."""

_NO_MESSAGES = re.compile(
    "sendchataction|answer|approve|ban|close|create|decline|delete|export|get|hide|leave|pin|promote|read|reopen|restrict"
    "|revoke|set|stop|unban|unhide|unpin"
)
"""How the names begin of those methods of Telegram's Bot API that concern a chat and send nothing to it."""


def is_message(operation: str | None) -> bool:
    """Tell whether a call may send a message, by its name as the API or a client writes it.

    What has another name does: it may be a function of the bot's own, and to be slow is better than to be blocked.
    """
    return _NO_MESSAGES.match((operation or "").replace("_", "").lower()) is None


def chat_of(chat_id: object) -> ChatId | None:
    """Read to whom a message goes: an id, also where it is written as a text, or a name; None for anything else."""
    if isinstance(chat_id, str):
        return int(chat_id) if re.fullmatch(r"-?[0-9]{1,19}", chat_id) else chat_id
    return chat_id if isinstance(chat_id, int) else None


def rate_limiter(calls: float, seconds: float) -> AsyncLimiter:
    """Make a limiter of so many calls in so many seconds, a quarter of them at once, but at least one."""
    at_once = max(1.0, calls / 4)
    return AsyncLimiter(at_once, seconds * at_once / calls)


class Chat(NamedTuple):
    """The limiters of a chat, and whose turn it is to pass the other limits."""

    limiters: tuple[AsyncLimiter, ...]
    turn: asyncio.Lock

    @property
    def is_free(self) -> bool:
        return not self.turn.locked() and all(limiter.has_capacity() for limiter in self.limiters)

    @property
    def is_idle(self) -> bool:
        """Whether it is as a new one; who waits for a limiter keeps it from being full."""
        return not self.turn.locked() and all(
            limiter.has_capacity(limiter.max_rate) for limiter in self.limiters
        )

    async def acquire(self) -> None:
        for limiter in self.limiters:
            await limiter.acquire()

    async def acquire_again(self, waited_seconds: float) -> None:
        """Take anew, without waiting, what has run out of the buckets since it was taken: the message comes only now."""
        for limiter in self.limiters:
            if waited_seconds * limiter.max_rate >= limiter.time_period and limiter.has_capacity():
                await limiter.acquire()


class ChatLimits:
    """The limiters of one bot's chats: those that are not idle."""

    __slots__ = ("_chats", "_rates")

    def __init__(self, rates: ChatRates) -> None:
        self._rates = rates
        self._chats: OrderedDict[ChatId, Chat] = OrderedDict()

    def of(self, chat_id: ChatId) -> Chat:
        found = self._chats.get(chat_id)
        if found is None:
            if len(self._chats) >= _FEW_CHATS:
                self._forget_idle()
            found = self._chats[chat_id] = Chat(tuple(self._make(chat_id)), asyncio.Lock())
        return found

    def __len__(self) -> int:
        return len(self._chats)

    def _make(self, chat_id: ChatId) -> list[AsyncLimiter]:
        limiters = []
        if self._rates.group_messages_per_minute is not None and (isinstance(chat_id, str) or chat_id < 0):
            limiters.append(rate_limiter(self._rates.group_messages_per_minute, 60))
        if self._rates.messages_per_second is not None:
            limiters.append(rate_limiter(self._rates.messages_per_second, 1))
        return limiters

    def _forget_idle(self) -> None:
        # Two are looked at for each that is added: so idle ones don't pile up, and no call looks through all of them.
        for _ in range(2):
            chat_id, chat = self._chats.popitem(last=False)
            if not chat.is_idle:
                self._chats[chat_id] = chat


class BotLimits:
    """All limits that a call of one bot has to pass; `acquire` and `release` belong together."""

    __slots__ = ("_chats", "_everybody", "_rate", "_under_way")

    def __init__(
        self,
        requests_per_second: float,
        concurrency: int,
        chats: ChatRates | None,
        everybody: AsyncLimiter | None,
    ) -> None:
        self._under_way = asyncio.Semaphore(concurrency)
        self._rate = rate_limiter(requests_per_second, 1)
        self._chats = None if chats is None else ChatLimits(chats)
        self._everybody = everybody

    def are_free(self, chat_id: ChatId | None) -> bool:
        """Tell whether `acquire` would not have to wait now."""
        chat = self._chat(chat_id)
        return (
            not self._under_way.locked()
            and self._rate.has_capacity()
            and (self._everybody is None or self._everybody.has_capacity())
            and (chat is None or chat.is_free)
        )

    async def acquire(self, chat_id: ChatId | None) -> None:
        """Wait until a call may begin; cancelled, it has taken nothing that comes back by `release`."""
        chat = self._chat(chat_id)
        if chat is None:
            await self._acquire_of_all()
            return
        async with chat.turn:
            await chat.acquire()
            loop = asyncio.get_running_loop()
            since = loop.time()
            await self._acquire_of_all()
            await chat.acquire_again(loop.time() - since)

    async def _acquire_of_all(self) -> None:
        await self._under_way.acquire()
        try:
            await self._rate.acquire()
            if self._everybody is not None:
                await self._everybody.acquire()
        except BaseException:
            self._under_way.release()
            raise

    def release(self) -> None:
        """Give the place among the calls under way to another."""
        self._under_way.release()

    def _chat(self, chat_id: ChatId | None) -> Chat | None:
        return None if chat_id is None or self._chats is None else self._chats.of(chat_id)
