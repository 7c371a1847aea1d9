"""The place where runtime and Postgres are put together."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import asyncpg
from sqlalchemy.exc import DBAPIError

from breaker_store.core.failures import EVERY_ERROR, FailureTable
from breaker_store.core.policy import Policy
from breaker_store.core.state import BreakerState
from breaker_store.errors import ConfigurationError, LogUnavailableError
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.loading import Snapshot, read_clean
from breaker_store.postgres.privileges import Roles
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.follower import Follower
from breaker_store.runtime.from_threads import flush_from_thread
from breaker_store.runtime.journal import DEFAULT_QUEUE_LIMIT
from breaker_store.runtime.recorder import Recorder
from breaker_store.runtime.recovering import deliver_leftovers
from breaker_store.runtime.registry import CircuitBreakerRegistry
from breaker_store.runtime.reporting import Reporter
from breaker_store.runtime.tally import Tally
from breaker_store.runtime.termination import ended_by_sigterm
from breaker_store.settings import Durability, Location, find_location, find_spool_dir
from breaker_store.spool import DEFAULT_LIMIT_BYTES, Spool

if TYPE_CHECKING:
    from breaker_store.embedded import EmbeddedPostgres

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0


@asynccontextmanager
async def open_database(location: Location, *, maintaining: bool = False) -> AsyncIterator[str]:
    """Give the address of a database with a current schema; an embedded one is started, and migrated by itself.

    That address is the application's, which can't change the log, or maintenance's. Of a database that was named it is
    what was named.

    Raises:
        SchemaError: a database that was named has no schema, or another one; `breaker-store migrate up` mends the
            first and an older one.
        LogUnavailableError: it can't be reached.

    """
    # Imported here: Alembic takes longer to import than all the rest, and the breakers alone do without it.
    from breaker_store.postgres.migrating import check_schema, open_engine, upgrade  # noqa: PLC0415
    from breaker_store.postgres.roles import ensure_roles  # noqa: PLC0415

    if location.database_url is not None:
        engine = open_engine(location.database_url)
        try:
            await check_schema(engine)
        except DBAPIError as error:
            raise LogUnavailableError(f"Postgres can't be reached: {error.orig}") from error
        finally:
            await engine.dispose()
        yield location.database_url
        return
    async with _embedded(location) as server:
        await upgrade(server.url)
        roles = Roles()
        await ensure_roles(server.url, roles)
        yield server.url_as(roles.maintenance if maintaining else roles.application)


@asynccontextmanager
async def _embedded(location: Location) -> AsyncIterator[EmbeddedPostgres]:
    # Imported here: the plain install does without the embedded server.
    from breaker_store.embedded import EmbeddedPostgres  # noqa: PLC0415

    if location.data_dir is None:
        raise ConfigurationError("an embedded Postgres needs a data folder")
    server = EmbeddedPostgres(location.data_dir)
    starting = asyncio.ensure_future(asyncio.to_thread(server.acquire))
    try:
        await asyncio.shield(starting)
        yield server
    finally:
        # Also when the wait for it was cancelled: a server that nobody stops would outlive the process.
        await starting
        await asyncio.to_thread(server.release)


async def deliver_spool(database_url: str, spool_dir: Path) -> Tally:
    """Store what a process that will not come back left in its spool; the next start does the same by itself.

    Raises:
        SpoolBusyError: a process has the spool.
        ConfigurationError: there is no such folder.
        LogUnavailableError: the database is away; what is not stored stays in the spool.

    """
    if not spool_dir.is_dir():  # noqa: ASYNC240 - one look, as quick as any file operation of the spool
        raise ConfigurationError(f"there is no spool in {spool_dir}")
    clock, tally = Clock(), Tally()
    log = PostgresEventLog(database_url, clock)
    with closing(Spool(spool_dir)) as spool:
        try:
            await deliver_leftovers(spool, log, tally, clock)
        finally:
            await log.close()
    return tally


class BreakerStore:
    """A registry whose breakers are kept in Postgres.

    Made by `BreakerStore.open(...)`. Each success, failure, refusal and transition of the breakers in `registry` is
    recorded behind the calls, which never wait for it unless their `durability` says so; the breakers' states are those
    of the log.

    Attributes:
        registry: the breakers.
        recorder: how recording goes; see `Recorder.stats`.

    """

    def __init__(
        self,
        registry: CircuitBreakerRegistry,
        log: PostgresEventLog,
        *,
        spool: Spool | None,
        durability: Durability,
        queue_limit: int,
    ) -> None:
        self.registry = registry
        self._log = log
        self._spool = spool
        self._follower = Follower(registry, log, 0)
        surroundings = registry.surroundings
        self.recorder = Recorder(
            surroundings.journal,
            surroundings.clock,
            log,
            self._follower.settle,
            on_forgotten=self._follower.face_older_history,
            spool=spool,
            durability=durability,
            queue_limit=queue_limit,
        )
        self._reporter = Reporter(self.recorder, log)
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    @asynccontextmanager
    async def open(  # noqa: PLR0913 - all of them are optional, and named
        cls,
        *,
        database_url: str | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        spool_limit_bytes: int = DEFAULT_LIMIT_BYTES,
        durability: Durability | str = Durability.BEHIND,
        registry: CircuitBreakerRegistry | None = None,
        policy: Policy | None = None,
        failures: FailureTable | None = None,
        queue_limit: int = DEFAULT_QUEUE_LIMIT,
        drain_seconds: float = DRAIN_SECONDS,
        drain_on_sigterm: bool = True,
    ) -> AsyncIterator[Self]:
        """Open a store for the length of an `async with`.

        Args:
            database_url: a Postgres that is running and migrated.
            data_dir: a folder in which a Postgres of our own runs. With neither of the two, the environment says:
                BREAKER_STORE_DATABASE_URL or BREAKER_STORE_DATA_DIR.
            spool_dir: a folder on local disk for events that the database can't take now; one process has it at a time.
                What an earlier process left there is stored first. None takes BREAKER_STORE_SPOOL_DIR; without either
                events wait in memory alone.
            spool_limit_bytes: from 80 % of it on successes are not kept, from 95 % on failures neither.
            durability: what has become of a call's event when the call returns; see `Durability`. A call that needs
                more or less than the others has `CircuitBreaker.with_durability`.
            registry: a registry to make durable, such as `get_circuit_breaker_registry()`; what the log knows takes
                the place of what it knew, and the rest begins anew. None makes one.
            policy: the default policy of the registry that is made.
            failures: what errors mean to its breakers; None takes every error for a failure.
            queue_limit: how many events may wait in memory before successes give way.
            drain_seconds: how long the end may take to store what waits; the rest is spooled.
            drain_on_sigterm: where nobody else handles SIGTERM, have it cancel the task that opened the store, so that
                it is closed before the process ends by the signal.

        Raises:
            ConfigurationError: no database was named, or two; a policy or table of failures for a registry that has
                one; a registry that has a store already; a queue limit below 1.
            SchemaError: the schema is missing, older or newer than this code.
            LogUnavailableError: the database can't be reached.

        """
        if registry is not None and (policy is not None or failures is not None):
            raise ConfigurationError(
                "a registry that is handed over has its own policy and table of failures"
            )
        if queue_limit < 1:
            raise ConfigurationError(f"queue_limit is at least 1, not {queue_limit}")
        chosen_durability = Durability.of(durability)
        folder = find_spool_dir(spool_dir)
        if chosen_durability is Durability.JOURNALED and folder is None:
            raise ConfigurationError("durability 'journaled' needs a spool_dir")
        location = find_location(database_url, data_dir)
        async with AsyncExitStack() as stack:
            if drain_on_sigterm:
                stack.enter_context(ended_by_sigterm())
            url = await stack.enter_async_context(open_database(location))
            chosen = registry
            if chosen is None:  # an empty one is false
                chosen = CircuitBreakerRegistry(policy=policy, failures=failures or EVERY_ERROR)
            stack.enter_context(chosen.surroundings.claimed_by_a_store())
            spool = None
            if folder is not None:
                spool = stack.enter_context(closing(Spool(folder, limit_bytes=spool_limit_bytes)))
            log = PostgresEventLog(url, chosen.surroundings.clock)
            stack.push_async_callback(log.close)
            store = cls(chosen, log, spool=spool, durability=chosen_durability, queue_limit=queue_limit)
            await store._start()
            stack.push_async_callback(store._stop, drain_seconds)
            yield store

    async def flush(self) -> None:
        """Wait until everything that happened before this call is stored."""
        await self.recorder.flush()

    def flush_sync(self) -> None:
        """Do the same from a thread that is not the event loop's.

        Raises:
            RuntimeError: it is the event loop's, which can't wait for itself: `await flush()` there.
            LedgerError: recording has ended.

        """
        flush_from_thread(self.registry.surroundings.decisions, self.flush)

    async def _start(self) -> None:
        await self._log.open()
        if self._spool is not None:
            # First: what an earlier process saw is part of what decides.
            clock = self.registry.surroundings.clock
            await deliver_leftovers(self._spool, self._log, self.recorder.tally, clock)
        await self._load()
        self.recorder.start()
        self._tasks = [
            asyncio.create_task(self._follower.run(), name="breaker-store follower"),
            asyncio.create_task(self._reporter.run(), name="breaker-store reporter"),
        ]

    async def _stop(self, drain_seconds: float) -> None:
        try:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            await _not_at_once(self.recorder.close(drain_seconds))
        await self._reporter.say_goodbye()

    async def _load(self) -> None:
        with _without_garbage_collection():
            self._take_over(await self._log.read_all(self.registry.policy))

    def _take_over(self, snapshot: Snapshot) -> None:
        states: dict[int, BreakerState] = dict.fromkeys(snapshot.untouched, self.registry.first_state)
        states |= {stored.user_id: self._follower.to_live(stored) for stored in snapshot.breakers}
        asleep = {row["user_id"]: partial(self._wake, row) for row in snapshot.clean}
        self.registry.take_over(states, asleep)
        self._follower.position = snapshot.position
        logger.info("%d breakers as of position %d", len(self.registry), snapshot.position)

    def _wake(self, row: asyncpg.Record) -> BreakerState:
        return self._follower.to_live(read_clean(row, self.registry.policy))


async def _not_at_once(ending: Coroutine[Any, Any, object]) -> None:
    """See an ending through although it is cancelled once: who cancels a group of tasks may do it twice over."""
    task = asyncio.ensure_future(ending)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Keep the collector from looking through everything that is being made, again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
