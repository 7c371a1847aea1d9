"""The append-only log in Postgres.

A flush is one transaction: the ledger first, which makes it happen once however often it is sent; then the outcomes;
then the breakers' rows in the order of user_id; the position last, sent together with COMMIT, so that nobody waits for
the client. What became of the transitions is read afterwards, by their identity, and so the answer is the same when
the batch turns out to have been stored by an earlier sending.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from breaker_store.core.policy import Policy
from breaker_store.errors import EventRefusedError, LogUnavailableError
from breaker_store.ports import Batch, Fate, StoredBreaker, StoredTransition
from breaker_store.postgres import loading
from breaker_store.postgres.codec import FORMAT, OUTCOME_COLUMNS, PostgresBatch, seal, to_datetime
from breaker_store.postgres.connecting import (
    CHECK_VIOLATION,
    STORED_ALREADY,
    UNREACHABLE,
    Connection,
    connect,
    described,
    translated,
    unreachable,
)
from breaker_store.postgres.partitions import NoPartitionError, OutcomePartitions
from breaker_store.postgres.stored_events import read_transition
from breaker_store.runtime.clock import Clock

SMALL_BATCH = 50
"""Up to this many outcomes go as one statement; see the function `append_batch`."""

MEASURE_INTERVAL_US = 1_000_000
CLOSE_TIMEOUT_SECONDS = 5.0

_FATES = """
SELECT user_id, writer_seq, position FROM breaker_transitions
WHERE writer_id = $1 AND writer_seq = ANY($2::bigint[])
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

# Several statements that are sent at once take no parameters, and literals find no function without their types.
_OPEN_BATCH = """
SELECT open_batch(
    {}::bigint, {}::bigint, {}::bigint, {}::bigint, {}::integer, {}::smallint, {}::smallint, {}::bytea, {}::bytea,
    {}::timestamptz, {}::timestamptz
)
"""
_APPEND_BATCH = "SELECT append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"


class PostgresEventLog:
    """Appends batches and reads what was appended; for one event loop.

    Appending has one connection, reading another; each is opened when it is needed and again when it was lost.
    """

    def __init__(self, database_url: str, clock: Clock) -> None:
        self._database_url = database_url
        self._clock = clock
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
            fates = await self._fates(connection, sealed.batch)
        except BaseException as error:
            # Whatever went wrong, also a cancellation: what the connection is in the middle of is not known.
            connection.terminate()
            self._writer = None
            if isinstance(error, UNREACHABLE):
                raise translated(error) from error
            raise
        return fates

    async def _append(self, connection: Connection, sealed: PostgresBatch) -> None:
        await self._make_partitions(connection, sealed.batch)
        try:
            if len(sealed.batch.outcomes) <= SMALL_BATCH:
                await connection.execute(_APPEND_BATCH, *_ledger_entry(sealed), sealed.append_document())
            else:
                await _copy_batch(connection, sealed)
        except asyncpg.PostgresError as error:
            if error.sqlstate == STORED_ALREADY:
                await connection.execute("ROLLBACK")
                return
            if error.sqlstate == CHECK_VIOLATION and "no partition" in str(error):
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

    async def read_all(self, policy: Policy) -> loading.Snapshot:
        """Read every breaker as of one moment, after putting right what contradicts the log."""
        async with self._reading_connection() as connection:
            return await loading.read_all(connection, policy)

    async def transitions_after(self, position: int, limit: int) -> list[StoredTransition]:
        async with self._reading_connection() as connection:
            rows = await connection.fetch(_TRANSITIONS_AFTER, position, limit)
        return [StoredTransition(*read_transition(row), row["remaining_us"]) for row in rows]

    async def _writing_connection(self) -> Connection:
        if self._writer is None or self._writer.is_closed():
            connection = await connect(self._database_url)
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
                self._reader = await connect(self._database_url)
            try:
                yield self._reader
            except UNREACHABLE as error:
                self._reader.terminate()
                self._reader = None
                raise LogUnavailableError(str(translated(error))) from error

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


def _ledger_entry(sealed: PostgresBatch) -> tuple[object, ...]:
    batch = sealed.batch
    return (
        batch.writer_id,
        batch.batch_no,
        batch.first_seq,
        batch.last_seq,
        batch.event_count,
        FORMAT,
        int(batch.source),
        sealed.digest,
        batch.previous_digest,
        to_datetime(batch.earliest),
        to_datetime(batch.latest),
    )


async def _copy_batch(connection: Connection, sealed: PostgresBatch) -> None:
    await connection.execute(f"BEGIN; {_OPEN_BATCH.format(*map(_literal, _ledger_entry(sealed)))}")
    await connection.copy_to_table(
        "breaker_events", source=memoryview(sealed.copy_data()), columns=OUTCOME_COLUMNS, format="binary"
    )
    finish = f"SELECT finish_batch({sealed.batch.writer_id}, {_quoted(sealed.finish_document)}); "
    await connection.execute(f"{finish if sealed.finish_document else ''}COMMIT")


def _literal(value: object) -> str:
    """Write a number, digest or time as SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'"
    return str(value) if isinstance(value, int) else f"'{value}'"


def _quoted(text: str) -> str:
    """Quote a text with a mark that is drawn anew, so that nothing in the text can end it."""
    mark = f"$batch_{secrets.token_hex(16)}$"
    return f"{mark}{text}{mark}"
