"""Puts the demo together: a Postgres, the API, a service that misbehaves, a fleet that calls it, a screen."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console

from breaker_store.core.policy import Policy
from breaker_store.demo.fleet import FIRST_USER_ID, run_fleet
from breaker_store.demo.observing import Observer, find_ailing
from breaker_store.demo.provider import run_provider
from breaker_store.demo.schedule import behaviour_at
from breaker_store.demo.screen import Display, Introduction, choose_display
from breaker_store.demo.serving import DEFAULT_PORT, HOST, bind_api_port, find_api, serve_api
from breaker_store.demo.wording import describe_end, describe_known
from breaker_store.errors import ConfigurationError
from breaker_store.failures import AIOHTTP
from breaker_store.rolling_up import rolling_up
from breaker_store.runtime.recorder import Recorder
from breaker_store.settings import Location
from breaker_store.store import BreakerStore, open_database

Value = TypeVar("Value")

# A shorter wait than the default of 60 s, so that one sees recovery without waiting for it.
POLICY = Policy(timeout_seconds=10.0)
DRAIN_SECONDS = 4.0
MOST_BOTS = 1_000
# SIGHUP comes when the terminal's window is closed.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class _Result:
    """What the last line tells, gathered while the demo runs; `recorder` is None until there is a store."""

    recorder: Recorder | None = None
    user_id: int = FIRST_USER_ID


async def run_demo(
    *,
    location: Location,
    bots: int = 40,
    seconds: float | None = None,
    port: int = DEFAULT_PORT,
    console: Console | None = None,
) -> None:
    """Show breakers at work until SIGINT, SIGTERM or SIGHUP comes, or so many seconds have passed; None is no limit.

    Everything that happens is stored, and the next run goes on with it. Call it in the main thread's event loop.

    Args:
        location: where the events are; an embedded Postgres is started, and stopped at the end if nobody else uses it.
        bots: how many bots there are, 1 to 1,000; the first is user 101.
        seconds: counted from when the bots begin.
        port: the admin API's, on 127.0.0.1. When 8000 is taken a free one is used, when any other is it is an error;
            0 takes any that is free.
        console: where to show it; what is no terminal gets plain lines.

    Raises:
        ConfigurationError: a number makes no sense, or the port is taken.
        BreakerStoreError: the database can't be had.

    """
    if not 1 <= bots <= MOST_BOTS:
        raise ConfigurationError(f"bots are between 1 and {MOST_BOTS:,}, not {bots}")
    if seconds is not None and not seconds >= 0:
        raise ConfigurationError(f"seconds are 0 or more, not {seconds}")
    display = choose_display(console or Console())
    result = _Result()
    with bind_api_port(port) as listener, _warnings_shown(display):
        running = asyncio.create_task(_run(location, bots, seconds, listener, display, result))
        with _cancelled_by_signals(running, display) as signals:
            try:
                await running
            except asyncio.CancelledError:
                if not signals:
                    raise
    stored = 0 if result.recorder is None else result.recorder.stats().flushed
    display.say(describe_end(location, stored, result.user_id))


async def _run(  # noqa: PLR0913, PLR0917 - what `run_demo` was told, and what it made of it
    location: Location,
    bots: int,
    seconds: float | None,
    listener: socket.socket,
    display: Display,
    result: _Result,
) -> None:
    async with (
        _in_thread(find_api) as create_app,
        _database(location, display) as url,
        serve_api((await create_app)(url), listener),
        rolling_up(url),
        _store(url, result) as store,
    ):
        introduction = _introduce(store, bots, listener)
        display.say(introduction.known)
        started = time.monotonic()
        async with (
            run_provider(lambda bot: behaviour_at(bot, time.monotonic() - started)) as provider,
            run_fleet(store.registry, provider, bots) as tally,
        ):
            observer = Observer(store.registry, bots, tally, store.recorder.stats, display.hear)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await display.show(observer, introduction)
            finally:
                result.user_id = observer.look().example_user_id or FIRST_USER_ID
                display.say("ending: what waits is being stored")


def _introduce(store: BreakerStore, bots: int, listener: socket.socket) -> Introduction:
    wait = f"open breakers wait {POLICY.timeout_seconds:g} s (default {Policy().timeout_seconds:g})"
    return Introduction(
        title=f"breaker-store demo: {bots} bots; {wait}",
        known=describe_known(len(store.registry), find_ailing(store.registry)),
        api_url=f"http://{HOST}:{listener.getsockname()[1]}",
    )


@asynccontextmanager
async def _in_thread(work: Callable[[], Value]) -> AsyncIterator[asyncio.Task[Value]]:
    """Do something while the database starts, and don't leave it behind."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        yield task
    finally:
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _database(location: Location, display: Display) -> AsyncIterator[str]:
    if location.data_dir is not None:
        display.say(f"starting the embedded Postgres in {location.data_dir} ...")
    else:
        display.say("opening the database that was named: what the demo does stays in it ...")
    started = time.monotonic()
    async with open_database(location) as url:
        display.say(f"the database is ready after {time.monotonic() - started:.1f} s")
        yield url


@asynccontextmanager
async def _store(database_url: str, result: _Result) -> AsyncIterator[BreakerStore]:
    async with BreakerStore.open(
        database_url=database_url, policy=POLICY, failures=AIOHTTP, drain_seconds=DRAIN_SECONDS
    ) as store:
        result.recorder = store.recorder
        yield store


@contextmanager
def _cancelled_by_signals(task: asyncio.Task[None], display: Display) -> Iterator[list[signal.Signals]]:
    """Cancel a task when the first signal to end comes, unless it is ignored (nohup); the list tells which came.

    More of them change nothing: the end takes a few seconds at most, and a Postgres left running would be worse.
    """
    loop = asyncio.get_running_loop()
    came: list[signal.Signals] = []

    def end(which: signal.Signals) -> None:
        if not came:
            task.cancel()
            display.say(f"{which.name}: ending")
        came.append(which)

    heeded = [which for which in ENDING_SIGNALS if signal.getsignal(which) is not signal.SIG_IGN]
    for which in heeded:
        loop.add_signal_handler(which, end, which)
    try:
        yield came
    finally:
        for which in heeded:
            loop.remove_signal_handler(which)


class _ToDisplay(logging.Handler):
    def __init__(self, display: Display) -> None:
        super().__init__(logging.WARNING)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        self._display.say(record.getMessage())


@contextmanager
def _warnings_shown(display: Display) -> Iterator[None]:
    """Show what is logged where it belongs: a handler that writes to the terminal would tear the screen."""
    root = logging.getLogger()
    before = root.handlers
    root.handlers = [_ToDisplay(display)]
    try:
        yield
    finally:
        root.handlers = before
