"""What the adapter costs an aiogram bot: `python -m tests.benchmarks.telegram`.

Two bots send to one local Bot API, in another process, in turns: one as aiogram makes it, the other through the adapter
and a breaker whose journal is attached and emptied as the recorder does it. Each keeps a few requests under way, so that
what is measured is what the client costs, and not how long one answer takes.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer

from breaker_store.integrations.aiogram import CircuitBreakerMiddleware
from tests.benchmarks.call import recorded_breaker
from tests.benchmarks.measuring import Bar, judge, show, take_turns
from tests.integrations.bot_api import CHAT, TOKEN

REQUESTS_A_ROUND = 100
AT_ONCE = 4
ROUNDS = 120


async def main() -> int:
    async with serving_apart() as url:
        plain, protected = make_bot(url), make_bot(url)
        breaker, drain = recorded_breaker()
        protected.session.middleware(CircuitBreakerMiddleware(breaker))
        gc.freeze()  # a look through all that was imported would fall on one of the two, by chance
        try:
            rates = await take_turns(
                {"plain aiogram": rate_of(plain), "through the adapter": rate_of(protected, drain)}, ROUNDS
            )
        finally:
            await plain.session.close()
            await protected.session.close()
    ratio = rates.ratio("through the adapter", "plain aiogram")
    show(
        "sendMessage",
        ["", "requests a second"],
        [[name, f"{rates.median(name):,.0f}"] for name in rates.figures],
    )
    return judge([Bar.at_least("an aiogram bot through the adapter, of plain aiogram", ratio, 0.95)])


@asynccontextmanager
async def serving_apart() -> AsyncIterator[str]:
    """Run the Bot API in a process of its own, and give its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integrations.bot_api", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


def make_bot(url: str) -> Bot:
    return Bot(TOKEN, AiohttpSession(api=TelegramAPIServer.from_base(url)))


def rate_of(bot: Bot, afterwards: Callable[[], None] = lambda: None) -> Callable[[], Awaitable[float]]:
    """Send a round of messages; give how many were answered in a second."""

    async def send_share() -> None:
        for _ in range(REQUESTS_A_ROUND // AT_ONCE):
            await bot.send_message(CHAT, "hi")

    async def run() -> float:
        started = time.perf_counter()
        await asyncio.gather(*(send_share() for _ in range(AT_ONCE)))
        spent_seconds = time.perf_counter() - started
        afterwards()
        return REQUESTS_A_ROUND / spent_seconds

    return run


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
