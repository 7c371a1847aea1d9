"""What a bot's instance costs, and what dead bots cost the others: `python -m tests.benchmarks.bots`.

First the stack alone: a call through breaker, limits and retries against a bare await, and a refused one, with a journal
that is kept as a recorder keeps it.

Then a thousand bots in one process, over real sockets, with a store behind them: for some seconds all of them are well,
for as many seconds one in twenty is dead (its service refuses connections, never answers, answers 503 or 401), and so on
in turns, for as long as was asked. Compared are the healthy ones' calls, as their callers waited.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp

from breaker_store import BreakerStore, CircuitBreakerOpenError, CircuitBreakerRegistry, Policy
from breaker_store.bots import BotFleet, UserBotCredentials, UserBotInstance
from breaker_store.postgres.migrating import upgrade
from tests.benchmarks import databases
from tests.benchmarks.bot_service import HOST, run_service
from tests.benchmarks.measuring import Bar, Rounds, console, judge, percentile, show, take_turns
from tests.benchmarks.peers import work
from tests.runtime.driving import Keeper

CALLS_A_SEGMENT = 1_000
SEGMENTS_A_ROUND = 5
ROUNDS = 30

BOTS = 1_000
DEAD_EVERY = 20
SLICE_SECONDS = 5.0
CALLS_A_SECOND_OF_A_BOT = 0.3
TIME_OUT_SECONDS = 1.0
PHASES = ("all of them well", "50 of them dead")
DEAD_PATHS = ("/bad", "/revoked", "/silent", None)
NANOSECONDS_IN_MILLISECOND = 1_000_000


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="with dead bots, and as many without")
    databases.add_options(parser)
    arguments = parser.parse_args()
    bars = asyncio.run(measure_stack())
    with databases.open_server(arguments) as url:
        bars += asyncio.run(measure_fleet(url, arguments.seconds))
    return judge(bars)


async def measure_stack() -> list[Bar]:
    registry = CircuitBreakerRegistry()
    journal = registry.surroundings.journal
    journal.attach(Keeper(), 1_000_000)
    # As limited as any, with rates that nobody waits for.
    fleet = BotFleet(registry, requests_per_second=1e9)
    bot = fleet.get_instance(UserBotCredentials(101, "token", requests_per_second=1e9))
    blocked = fleet.get_instance(UserBotCredentials(102, "token", requests_per_second=1e9))
    blocked.breaker.force_open()
    records = _CountedRecords()
    logging.getLogger().addHandler(records)

    async def call_bare() -> None:
        await work()

    async def call_bot() -> None:
        await bot.rate_limited_request(work, operation="sendMessage")

    async def call_blocked() -> None:
        try:
            await blocked.rate_limited_request(work, operation="sendMessage")
        except CircuitBreakerOpenError:
            return
        raise AssertionError("it was let through")

    def drain() -> None:
        blocked.breaker.end_counting_refusals()
        journal.pending.clear()

    figures = await take_turns(
        {
            "bare await": timed(call_bare, drain),
            "through a bot's instance": timed(call_bot, drain),
            "refused": timed(call_blocked, drain),
        },
        ROUNDS,
    )
    logging.getLogger().removeHandler(records)
    show_stack(figures)
    return [
        Bar.at_most(
            "the whole stack, over a bare await",
            figures.difference("through a bot's instance", "bare await"),
            15,
            " µs",
        ),
        Bar.at_most("a refused call", figures.median("refused"), 20, " µs"),
        Bar.at_most("log lines of all of these", records.count, 0, ""),
    ]


class _CountedRecords(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


def timed(
    call: Callable[[], Awaitable[None]], afterwards: Callable[[], None]
) -> Callable[[], Awaitable[float]]:
    """Time a round of calls, in microseconds a call."""

    async def run() -> float:
        spent_ns = 0
        for _ in range(SEGMENTS_A_ROUND):
            started_ns = time.perf_counter_ns()
            for _ in range(CALLS_A_SEGMENT):
                await call()
            spent_ns += time.perf_counter_ns() - started_ns
            afterwards()
        return spent_ns / (SEGMENTS_A_ROUND * CALLS_A_SEGMENT) / 1_000

    return run


def show_stack(figures: Rounds) -> None:
    rows = [[name, f"{figures.median(name):.2f}"] for name in figures.figures]
    show("a call", ["", "µs"], rows)


class Fleet:
    """A thousand bots, each calling at its own random moments; who is dead changes with the phase."""

    def __init__(self, fleet: BotFleet, session: aiohttp.ClientSession, address: str) -> None:
        self.phase, _ = PHASES
        self.times: defaultdict[str, list[int]] = defaultdict(list)
        self.happened: Counter[str] = Counter()
        self._fleet = fleet
        self._session = session
        self._address = address

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._work(number)) for number in range(BOTS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def take_turns(self, times: int) -> None:
        """Be well and have dead ones in turns, so often each."""
        for _ in range(times):
            for self.phase in PHASES:
                await asyncio.sleep(SLICE_SECONDS)

    async def _work(self, number: int) -> None:
        bot = self._fleet.get_instance(UserBotCredentials(number + 1, f"token {number}"))
        dice = random.Random(number)
        await asyncio.sleep(dice.random() / CALLS_A_SECOND_OF_A_BOT)
        while True:
            await self._call(bot, number)
            await asyncio.sleep(dice.expovariate(CALLS_A_SECOND_OF_A_BOT))

    async def _call(self, bot: UserBotInstance, number: int) -> None:
        mortal, phase = number % DEAD_EVERY == 0, self.phase
        is_dead = mortal and phase == PHASES[1]
        path = DEAD_PATHS[number // DEAD_EVERY % len(DEAD_PATHS)] if is_dead else "/ok"
        started_ns = time.perf_counter_ns()
        try:
            await bot.rate_limited_request(self._get, path, operation="sendMessage")
        except (CircuitBreakerOpenError, aiohttp.ClientError, TimeoutError) as error:
            self.happened[
                f"{phase}: {'of mortal ones' if mortal else 'of others'}: {type(error).__name__}"
            ] += 1
            return
        if not mortal and phase == self.phase:
            self.times[phase].append(time.perf_counter_ns() - started_ns)

    async def _get(self, path: str | None) -> None:
        # Port 1 is nobody's: the connection is refused.
        url = f"http://{HOST}:1/" if path is None else f"{self._address}{path}"
        async with self._session.get(url) as response:
            await response.read()
            response.raise_for_status()


async def measure_fleet(url: str, seconds: float) -> list[Bar]:
    await upgrade(url)
    timeout, connector = aiohttp.ClientTimeout(total=TIME_OUT_SECONDS), aiohttp.TCPConnector(limit=0)
    async with (
        BreakerStore.open(database_url=url, policy=Policy(timeout_seconds=3)) as store,
        aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
        run_service() as address,
    ):
        fleet = Fleet(BotFleet(store.registry, requests_per_second=10_000), session, address)
        async with fleet.at_work():
            await fleet.take_turns(1)
            fleet.times.clear()
            # As a service does that minds its pauses: what is there when it is at work is not looked through again.
            gc.collect()
            gc.freeze()
            await fleet.take_turns(max(1, round(seconds / SLICE_SECONDS)))
            fleet.phase = "ending"
    return judge_fleet(fleet)


def judge_fleet(fleet: Fleet) -> list[Bar]:
    well, dead = (fleet.times[phase] for phase in PHASES)
    rows = [
        [
            phase,
            f"{len(times):,}",
            *(f"{percentile(times, at) / NANOSECONDS_IN_MILLISECOND:.2f}" for at in (50, 99, 99.9)),
        ]
        for phase, times in zip(PHASES, (well, dead), strict=True)
    ]
    show("calls of the 950 healthy bots", ["", "calls", "p50 ms", "p99 ms", "p99.9 ms"], rows)
    for what, count in sorted(fleet.happened.items()):
        console.print(f"  {what}: {count:,}")
    ratio = percentile(dead, 99) / percentile(well, 99)
    return [Bar.at_most("the healthy ones' p99 with 50 dead, of that without", ratio, 1.1)]


if __name__ == "__main__":
    sys.exit(main())
