"""The append-only log in Postgres.

A flush is one transaction: the ledger first, which makes it happen once however often it is sent; then the outcomes;
then the breakers' rows in the order of user_id; the position last, sent together with COMMIT, so that nobody waits for
the client. What became of the transitions is read afterwards, by their identity, and so the answer is the same when
the batch turns out to have been stored by an earlier sending.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date

import asyncpg

from breaker_store.core.events import Transition
from breaker_store.core.policy import Policy
from breaker_store.core.state import BreakerState
from breaker_store.errors import EventRefusedError, LogUnavailableError
from breaker_store.ports import (
    Batch,
    Fate,
    LedgerHead,
    RecorderReport,
    StoredBreaker,
    StoredTransition,
)
from breaker_store.postgres import loading, owed_outcomes, standing
from breaker_store.postgres.appending import append_batch
from breaker_store.postgres.codec import PostgresBatch, seal
from breaker_store.postgres.connecting import (
    CHECK_VIOLATION,
    COMMAND_TIMEOUT_SECONDS,
    CONNECT_TIMEOUT_SECONDS,
    STORED_ALREADY,
    UNREACHABLE,
    Connection,
    connect,
    described,
    translated,
    unreachable,
)
from breaker_store.postgres.partitions import NoPartitionError, OutcomePartitions
from breaker_store.postgres.reports import leave_report
from breaker_store.postgres.stored_events import read_policy, read_transition
from breaker_store.runtime.clock import Clock

MEASURE_INTERVAL_US = 1_000_000
CLOSE_TIMEOUT_SECONDS = 5.0

_FATES = """
SELECT user_id, writer_seq, position FROM breaker_transitions
WHERE writer_id = $1 AND writer_seq = ANY($2::bigint[])
"""

_LEDGER_HEAD = """
SELECT batch_no, last_seq, digest FROM writer_batches WHERE writer_id = $1 ORDER BY batch_no DESC LIMIT 1
"""

_TRANSITIONS_AFTER = """
SELECT
    user_id, writer_id, writer_seq, kind, occurred_at, version, generation, era, position, details, details_version,
    CASE WHEN details_version = 1 THEN
        (extract(epoch FROM (details ->> 'retry_at')::timestamptz - clock_timestamp()) * 1000000)::bigint
    END AS remaining_us
FROM breaker_transitions
WHERE position > $1
ORDER BY position
LIMIT $2
"""


# Before the user had rules of their own; without any, the package's default stands in until a process knows better.
_LAST_DEFAULT = """
SELECT details -> 'policy' FROM breaker_transitions
WHERE user_id = $1 AND position IS NOT NULL AND details ->> 'policy_is_own' = 'false'
ORDER BY version DESC
LIMIT 1
"""


class PostgresEventLog:
    """Appends batches and reads what was appended; for one event loop.

    Appending and the ledger have one connection, for one question at a time; all else has another. Each is opened when
    it is needed and again when it was lost, to a server that takes writes: where the address names several hosts, to
    the primary.

    command_timeout_seconds: how long a server that says nothing is waited for, for each statement.
    connect_timeout_seconds: the same while connecting, for each host of the address.
    """

    def __init__(
        self,
        database_url: str,
        clock: Clock,
        *,
        command_timeout_seconds: float = COMMAND_TIMEOUT_SECONDS,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    ) -> None:
        self._database_url = database_url
        self._clock = clock
        self._command_timeout_seconds = command_timeout_seconds
        self._connect_timeout_seconds = connect_timeout_seconds
        self._partitions = OutcomePartitions()
        self._writer: Connection | None = None
        self._reader: Connection | None = None
        self._reading = asyncio.Lock()
        self._measured_at_us = 0
        self._correction_us: int | None = None

    @property
    def correction_us(self) -> int:
        return self._correction_us or 0

    def seal(self, batch: Batch) -> PostgresBatch:
        return seal(batch)

    async def open(self) -> None:
        """Connect, and learn the database's time."""
        await self._writing_connection()

    async def close(self) -> None:
        connections = [each for each in (self._writer, self._reader) if each is not None]
        self._writer = self._reader = None
        closing = (each.close(timeout=CLOSE_TIMEOUT_SECONDS) for each in connections)
        # A connection that can't say goodbye is gone as well.
        await asyncio.gather(*closing, return_exceptions=True)

    async def append(self, sealed: PostgresBatch) -> list[Fate]:
        connection = await self._writing_connection()
        try:
            await self._append(connection, sealed)
            return await self._fates(connection, sealed.batch)
        except BaseException as error:
            self._leave(connection)
            if isinstance(error, UNREACHABLE):
                raise translated(error) from error
            raise

    async def ledger_head(self, writer_id: int) -> LedgerHead | None:
        connection = await self._writing_connection()
        try:
            row = await connection.fetchrow(_LEDGER_HEAD, writer_id)
        except BaseException as error:
            self._leave(connection)
            if isinstance(error, UNREACHABLE):
                raise translated(error) from error
            raise
        return None if row is None else LedgerHead(*row)

    async def report(self, report: RecorderReport) -> None:
        """Leave a report where others see it, in place of this writer's last one.

        A writer's first one deletes those of writers that have not reported for 30 days: it is no log.
        """
        async with self._reading_connection() as connection:
            await leave_report(connection, report)

    async def _append(self, connection: Connection, sealed: PostgresBatch) -> None:
        await self._make_partitions(connection, sealed.batch)
        try:
            await append_batch(connection, sealed)
        except asyncpg.PostgresError as error:
            if error.sqlstate == STORED_ALREADY:
                await connection.execute("ROLLBACK")
                return
            if error.sqlstate == CHECK_VIOLATION and error.constraint_name is None:
                # Somebody dropped it since we looked: it is made again when the batch comes again.
                self._partitions.forget()
                raise LogUnavailableError(described(error)) from error
            raise

    async def _make_partitions(self, connection: Connection, batch: Batch) -> None:
        if batch.outcomes and self._partitions.missing(batch.earliest, batch.latest):
            days = self._partitions.missing_days(row[0] for row in batch.outcomes)
            try:
                await self._partitions.ensure(connection, days)
            except NoPartitionError as error:
                raise EventRefusedError(str(error)) from error

    async def _fates(self, connection: Connection, batch: Batch) -> list[Fate]:
        if not batch.transitions:
            return []
        numbers = [transition.event_id.writer_seq for _, transition in batch.transitions]
        rows = await connection.fetch(_FATES, batch.writer_id, numbers)
        return sorted((Fate(*row) for row in rows), key=lambda fate: fate.writer_seq)

    async def read_breaker(self, user_id: int, policy: Policy | None) -> StoredBreaker | None:
        async with self._reading_connection() as connection:
            return await loading.read_breaker(connection, user_id, policy)

    async def owes_to_outcomes_before(self, stored: StoredBreaker, day: date) -> bool:
        """Tell whether a breaker's count would be another one without the outcomes of before a day (UTC)."""
        async with self._reading_connection() as connection:
            return await owed_outcomes.owes_to_outcomes_before(connection, stored, day)

    async def read_forced_opening(self, user_id: int, state: BreakerState) -> Transition | None:
        """Give the transition by which a breaker is forced open; None if it isn't."""
        async with self._reading_connection() as connection:
            return await standing.read_forced_opening(connection, user_id, state)

    async def read_last_default(self, user_id: int) -> Policy:
        """Give the default that held for a user last, as far as the log knows it."""
        async with self._reading_connection() as connection:
            return read_policy(await connection.fetchval(_LAST_DEFAULT, user_id))

    async def read_all(self, policy: Policy) -> loading.Snapshot:
        """Read every breaker as of one moment, after putting right what contradicts the log."""
        async with self._reading_connection() as connection:
            return await loading.read_all(connection, policy)

    async def last_position(self) -> int:
        async with self._reading_connection() as connection:
            position: int = await connection.fetchval("SELECT last FROM log_position")
        return position

    async def transitions_after(self, position: int, limit: int) -> list[StoredTransition]:
        async with self._reading_connection() as connection:
            rows = await connection.fetch(_TRANSITIONS_AFTER, position, limit)
        return [StoredTransition(*read_transition(row), row["remaining_us"]) for row in rows]

    def _leave(self, connection: Connection) -> None:
        """Part with a connection: whatever went wrong, also a cancellation, what it is in the middle of is not known."""
        connection.terminate()
        self._writer = None

    async def _writing_connection(self) -> Connection:
        if self._writer is None or self._writer.is_closed():
            connection = await self._connect()
            try:
                await self._keep_time(connection)
            except BaseException as error:
                connection.terminate()
                if isinstance(error, UNREACHABLE):
                    raise unreachable(error) from error
                raise
            self._writer = connection
        return self._writer

    @asynccontextmanager
    async def _reading_connection(self) -> AsyncIterator[Connection]:
        async with self._reading:
            if self._reader is None or self._reader.is_closed():
                self._reader = await self._connect()
            connection = self._reader
            try:
                yield connection
            except BaseException as error:
                connection.terminate()
                self._reader = None
                if isinstance(error, UNREACHABLE):
                    raise LogUnavailableError(described(error)) from error
                raise

    async def _connect(self) -> Connection:
        return await connect(
            self._database_url,
            writing=True,
            connect_timeout_seconds=self._connect_timeout_seconds,
            command_timeout_seconds=self._command_timeout_seconds,
        )

    async def keep_time(self) -> None:
        connection = self._writer
        recently = self._clock.now_us() - self._measured_at_us < MEASURE_INTERVAL_US
        if connection is None or connection.is_closed() or recently:
            return
        try:
            await self._keep_time(connection)
        except UNREACHABLE:
            # The append that follows opens another one, and says what is wrong if it can't.
            self._writer = None
            connection.terminate()
        except BaseException:
            self._writer = None
            connection.terminate()
            raise

    async def _keep_time(self, connection: Connection) -> None:
        await self._measure(connection)
        await self._partitions.keep_ahead(connection, self._clock.now_us() + self.correction_us)

    async def _measure(self, connection: Connection) -> None:
        """Ask the database for its time; the answer is taken to be of the middle of the question.

        What differs from the last measurement by less than this one can know is no news.
        """
        asked = self._clock.now_us()
        theirs = await connection.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        self._measured_at_us = answered = self._clock.now_us()
        correction_us = theirs - (asked + answered) // 2
        if self._correction_us is None or abs(correction_us - self._correction_us) > (answered - asked) // 2:
            self._correction_us = correction_us
