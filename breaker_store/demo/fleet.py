"""The bots: what a bot developer would write, forty times."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from breaker_store.demo.provider import Provider, make_token
from breaker_store.demo.schedule import pause_seconds
from breaker_store.errors import CircuitBreakerOpenError
from breaker_store.runtime.breaker import CircuitBreaker
from breaker_store.runtime.registry import CircuitBreakerRegistry

FIRST_USER_ID = 101
REQUEST_TIMEOUT_SECONDS = 0.6


@dataclass(slots=True)
class Tally:
    """What became of the fleet's calls so far; `calls` are those that were let through and have ended."""

    calls: int = 0
    failures: int = 0
    refused: int = 0


class Bot:
    """A client of the service. Its errors are aiohttp's own, whose texts contain the address and so the token."""

    def __init__(self, session: aiohttp.ClientSession, find_address: Callable[[], str], token: str) -> None:
        self._session = session
        self._find_address = find_address
        self._token = token

    async def send_message(self, *, chat_id: int, text: str) -> int:
        """Send a message and give its id.

        Raises:
            aiohttp.ClientError: the service refused, dropped the connection, or answered with an error.
            TimeoutError: it did not answer in time.

        """
        address = f"{self._find_address()}/bot{self._token}/sendMessage"
        async with self._session.post(address, json={"chat_id": chat_id, "text": text}) as response:
            response.raise_for_status()
            message_id: int = (await response.json())["result"]["message_id"]
            return message_id


def fleet_user_ids(bots: int) -> range:
    """Give the bots' user ids, by bot number."""
    return range(FIRST_USER_ID, FIRST_USER_ID + bots)


@asynccontextmanager
async def run_fleet(registry: CircuitBreakerRegistry, provider: Provider, bots: int) -> AsyncIterator[Tally]:
    """Let so many bots send messages, each through its user's breaker, for the length of an `async with`."""
    tally = Tally()
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        asyncio.TaskGroup() as group,
    ):
        tasks = [
            group.create_task(_work(number, registry.get_breaker(user_id), provider, session, tally))
            for number, user_id in enumerate(fleet_user_ids(bots))
        ]
        yield tally
        for task in tasks:
            task.cancel()


async def _work(
    number: int,
    breaker: CircuitBreaker,
    provider: Provider,
    session: aiohttp.ClientSession,
    tally: Tally,
) -> None:
    bot = Bot(session, lambda: provider.address_of(number), make_token(number))
    for request in itertools.count():
        # The pause comes first, so that the bots don't all begin in the same moment.
        await asyncio.sleep(pause_seconds(number, request))
        await _send(bot, breaker, tally, f"message {request}")


async def _send(bot: Bot, breaker: CircuitBreaker, tally: Tally, text: str) -> None:
    try:
        await breaker.call(bot.send_message, chat_id=1, text=text)
    except CircuitBreakerOpenError:
        tally.refused += 1
        return
    except (aiohttp.ClientError, TimeoutError):
        tally.failures += 1
    tally.calls += 1
