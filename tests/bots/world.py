"""A fleet on the loop's own clock, a service that answers as the test says, and what was recorded."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from breaker_store import CircuitBreakerRegistry, Policy
from breaker_store.bots import BotFleet, RetryBudget, RetryPolicy, UserBotCredentials, UserBotInstance
from breaker_store.core.events import Outcome, StoredEvent
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.cutting import BatchCutter
from tests.runtime.driving import START, USER, Keeper, read

TOKEN = "7000000000:AAE-abcdefghijklmnopqrstuvwxyz12345"


class TooFastError(Exception):
    """The service's word that calls come too fast, in the shape that clients give it."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"retry after {retry_after:g}")
        self.retry_after = retry_after


class RevokedError(Exception):
    pass


class BlockedByUserError(Exception):
    pass


class Service:
    """Answers each call with the next of its answers, and with its name once there are none."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = deque(answers)
        self.called_at: list[float] = []
        self.takes_seconds = 0.0

    @property
    def calls(self) -> int:
        return len(self.called_at)

    async def send_message(self, chat_id: int | str = 1, text: str = "hi") -> str:
        self.called_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes_seconds)
        if self.answers:
            raise self.answers.popleft()
        return f"sent {text} to {chat_id}"


class World:
    """Everything that a bot needs; what it does is kept in a journal."""

    def __init__(self, *, policy: Policy | None = None, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        self.clock = Clock(lambda: round(loop.time() * 1_000_000_000), unix_us=START)
        self.registry = CircuitBreakerRegistry(policy=policy, clock=self.clock)
        self.journal = self.registry.surroundings.journal
        self.journal.attach(Keeper(), 100_000)
        self._cutter = BatchCutter(self.journal, self.clock)
        options.setdefault("chats", None)
        self.fleet = BotFleet(self.registry, **options)

    def bot(self, user_id: int = USER, **settings: Any) -> UserBotInstance:
        return self.fleet.get_instance(UserBotCredentials(user_id, TOKEN, **settings))

    def events(self) -> list[StoredEvent]:
        """Take what was recorded, as it would be read back."""
        events: list[StoredEvent] = []
        while self.journal.pending:
            events += read(self._cutter.cut(100_000, 0))
        return events

    def outcomes(self) -> list[Outcome]:
        return [event for event in self.events() if isinstance(event, Outcome)]


def plenty(registry_clock: Clock) -> RetryBudget:
    return RetryBudget(registry_clock.monotonic_ns, share=1.0, per_second=1_000.0, most=1_000.0)


QUICK = RetryPolicy(first_pause_seconds=0.0)
