"""Appends whose connection is cut or freezes at one message of the protocol after another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

import asyncpg

from breaker_store import CircuitBreakerRegistry, Policy
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.follower import Follower
from breaker_store.runtime.recorder import Recorder
from breaker_store.settings import Durability
from breaker_store.spool import Spool
from tests.crash.stored import complaints_about, left_files
from tests.postgres.proxy import Disturbance, Proxy

POLICY = Policy(failure_threshold=3)
WITH_A_STATEMENT, WITH_COPY = 20, 120
"""How many successes are in an append: Postgres gets it as one statement, or by COPY."""

FAILURES = 3
EVENTS_BESIDE = FAILURES + 2
"""The failures, the opening and the reset that each append has as well."""

IMPATIENT = {"command_timeout_seconds": 0.05, "connect_timeout_seconds": 0.15}

_NUMBERS = (
    "SELECT writer_id, array_agg(writer_seq ORDER BY writer_seq) FROM breaker_events GROUP BY writer_id"
)

_WRITERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'breaker-store'
"""


class NoAnswerError(Exception):
    """What a sick service brings about."""


async def ok() -> None:
    """Succeed."""


async def bad() -> None:
    raise NoAnswerError("no answer")


@dataclass(frozen=True)
class Occasion:
    """How an append goes about: by which way, and on a connection that is open already or must be opened first."""

    successes: int
    reconnects: bool

    def __str__(self) -> str:
        way = "copy" if self.successes == WITH_COPY else "statement"
        return f"{way}, {'reconnecting' if self.reconnects else 'connected'}"


OCCASIONS = [
    Occasion(successes, reconnects)
    for successes in (WITH_A_STATEMENT, WITH_COPY)
    for reconnects in (True, False)
]


class Appender:
    """A recorder that reaches Postgres through a proxy.

    Attributes:
        happened: how many events it was given.
        troubles: how often the append under way, or the last one, has failed.
        at_trouble: called each time.

    """

    def __init__(
        self, proxy: Proxy, log: PostgresEventLog, registry: CircuitBreakerRegistry, spool: Spool
    ) -> None:
        self.proxy = proxy
        self.happened = self.troubles = 0
        self.at_trouble: Callable[[], None] = lambda: None
        self._registry = registry
        self._users = count(1)
        self.recorder = Recorder(
            registry.surroundings.journal,
            registry.surroundings.clock,
            log,
            Follower(registry, log, 0).settle,
            spool=spool,
            durability=Durability.JOURNALED,
            pause=self._pause,
        )

    async def append(
        self, occasion: Occasion, disturbance: Disturbance | None = None, *, delay_seconds: float = 0.0
    ) -> None:
        """Have one batch stored, whatever becomes of its connection; a new user's, so that all tables are written."""
        self.proxy.disturb(None)
        self.proxy.cut()
        if not occasion.reconnects:
            await self._let_happen(1)
        self.proxy.disturb(disturbance)
        self.proxy.delay_seconds = delay_seconds
        self.troubles = 0
        await self._let_happen(occasion.successes)

    async def list_disturbances(self, occasion: Occasion, *, freezes: bool = False) -> list[Disturbance]:
        """Give one for each message of an undisturbed append, in either direction, before and after it arrives."""
        for _ in range(2):  # the first one has partitions made as well
            await self.append(occasion)
        return [
            Disturbance(number, from_server, passed_on, freezes)
            for from_server, messages in ((False, self.proxy.asked), (True, self.proxy.answered))
            for number in range(1, len(messages) + 1)
            for passed_on in (False, True)
        ]

    async def _pause(self, _seconds: float) -> None:
        """Be what the recorder does between one attempt and the next."""
        self.troubles += 1
        self.at_trouble()
        await asyncio.sleep(0)

    async def _let_happen(self, successes: int) -> None:
        breaker = self._registry.get_breaker(next(self._users))
        for _ in range(successes):
            await breaker.call(ok)
        for _ in range(FAILURES):
            with suppress(NoAnswerError):
                await breaker.call(bad)
        breaker.reset()
        self.happened += successes + EVENTS_BESIDE
        await self.recorder.flush()


@asynccontextmanager
async def appending(database_url: str, spool_dir: Path, **limits: float) -> AsyncIterator[Appender]:
    """Open an appender; `limits` are the log's."""
    async with Proxy.to(database_url) as proxy:
        registry = CircuitBreakerRegistry(policy=POLICY)
        log = PostgresEventLog(proxy.url, registry.surroundings.clock, **limits)
        with closing(Spool(spool_dir)) as spool:
            appender = Appender(proxy, log, registry, spool)
            appender.recorder.start()
            try:
                yield appender
            finally:
                await appender.recorder.close(10)
                await log.close()


async def cut_at_messages(appender: Appender, occasion: Occasion, step: int = 1) -> int:
    """Have a batch stored for each way to cut its connection, or for every so many; count the cuts."""
    disturbances = (await appender.list_disturbances(occasion))[::step]
    for disturbance in disturbances:
        await appender.append(occasion, disturbance)
        assert appender.proxy.disturbance is None, f"no message was the one of {disturbance}"
    return len(disturbances)


async def freeze(appender: Appender, occasion: Occasion, first: int = 0, step: int = 1) -> int:
    """Have a batch stored for some of the ways to freeze its connection, which thaws late; count them.

    A transaction that is frozen in the middle keeps its locks, so at the third trouble there is a thaw, and in any case
    when the batch is stored by another connection: then the old one's messages arrive, of which nobody waits for the
    answer any more.
    """

    def thaw() -> None:
        if appender.troubles == 3:
            appender.proxy.thaw()

    appender.at_trouble = thaw
    disturbances = islice(await appender.list_disturbances(occasion, freezes=True), first, None, step)
    frozen = 0
    for disturbance in disturbances:
        await appender.append(occasion, disturbance)
        appender.proxy.thaw()
        frozen += 1
    return frozen


async def complaints(database_url: str, happened: int, spool_dir: Path) -> list[str]:
    """Say what is wrong with what was stored, if it is not all that happened, once and in order; or what was left."""
    connection = await asyncpg.connect(database_url)
    try:
        await _wait_for_late_writers(connection)
        writers = await connection.fetch(_NUMBERS)
        wrong = [
            f"writer {writer_id} has not the events 1 to {len(numbers)}, but {numbers}"
            for writer_id, numbers in writers
            if numbers != list(range(1, len(numbers) + 1))
        ]
        stored = sum(len(numbers) for _, numbers in writers)
        wrong += [] if stored == happened else [f"{happened} events happened, and {stored} are stored"]
        wrong += [f"{path} was left" for path in left_files(spool_dir)]
        return wrong + await complaints_about(connection, POLICY)
    finally:
        await connection.close()


async def _wait_for_late_writers(connection: asyncpg.Connection) -> None:
    """Wait until the server has heard that those who wrote are gone: what they sent last may still be at work."""
    async with asyncio.timeout(20):
        while await connection.fetchval(_WRITERS):
            pass


@dataclass
class Outcome:
    """What a long run of cuts came to."""

    cuts: int = 0
    freezes: int = 0
    happened: int = 0
    complaints: list[str] = field(default_factory=list)


async def cut_until(database_url: str, owner_url: str, spool_dir: Path, events: int) -> Outcome:
    """Cut and freeze at every message of every occasion, again and again, until so many events have happened."""
    outcome = Outcome()
    async with appending(database_url, spool_dir, **IMPATIENT) as appender:
        while appender.happened < events:
            for occasion in OCCASIONS:
                outcome.cuts += await cut_at_messages(appender, occasion)
                outcome.freezes += await freeze(appender, occasion)
        outcome.happened = appender.happened
    outcome.complaints = await complaints(owner_url, outcome.happened, spool_dir)
    return outcome
