"""A person's right to be forgotten, in a log that nobody can edit.

What is erased are texts, and whose the events are: a pseudonym that is drawn takes the place of the user. What happened,
when, how often and for how long stays, and so do positions and the chain. Each batch in which the user's events stand is
sealed again, with a new salt, after it was seen to be what was sealed before: an erasure must not cover up anything. The
old digests stay and tell nothing any more, since the old salts are gone. The event that tells of the erasure has a digest
of all of them, and is a link of the chain like any other.

Who may do this is the database's to say (`postgres.privileges`). Copies are out of reach: backups, exports, files of
spools, and what programs printed.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NamedTuple

import asyncpg

from breaker_store.core.cleaning import clean_text
from breaker_store.core.commands import Erase
from breaker_store.core.decide import decide
from breaker_store.core.events import EventId, Transition
from breaker_store.core.policy import Policy
from breaker_store.core.state import BreakerState
from breaker_store.errors import LogUnavailableError, StoreError, UnknownBreakerError
from breaker_store.ports import SALT_BYTES, Source, operators_batch
from breaker_store.postgres.batch_checks import as_sealed, explain, is_dropped
from breaker_store.postgres.codec import (
    FORMAT,
    contents_digest,
    erased_document,
    seal,
    to_datetime,
)
from breaker_store.postgres.connecting import UNREACHABLE, Connection, connect, described
from breaker_store.postgres.copied_rows import split_rows
from breaker_store.postgres.loading import read_breaker
from breaker_store.postgres.outcome_days import Day, DroppedDays, dropped_days_of, list_days
from breaker_store.postgres.reseals import Reseals, erasure_digest, read_reseals
from breaker_store.postgres.sealed_batches import StoredBatch, read_batches
from breaker_store.postgres.snapshots import snapshot
from breaker_store.runtime.journal import Journal

PASSES: Final = 3
"""How often it is looked whether more has come in the meantime."""

_TIMEOUT_SECONDS: Final = 3_600.0

_ONE_AT_A_TIME: Final = "SELECT pg_advisory_lock(1651665779, 3)"

_KNOWN: Final = """
SELECT EXISTS (SELECT FROM breaker_states WHERE user_id = $1)
    OR EXISTS (SELECT FROM breaker_events WHERE user_id = $1)
"""

# The days of the user's events, and of all that is in the batches of those days.
_SPAN: Final = """
SELECT (min(earliest) AT TIME ZONE 'UTC')::date AS first, (max(latest) AT TIME ZONE 'UTC')::date AS last
FROM writer_batches, (
    SELECT min(occurred_at) AS first, max(occurred_at) AS last FROM breaker_events WHERE user_id = $1
) AS span
WHERE earliest <= span.last AND latest >= span.first
"""

_ERASE: Final = """
SELECT erase_person($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
"""
_CHANGED: Final = "BS002"

_NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


class BrokenRecordError(StoreError):
    """The record is not whole where the user's events stand: nobody is erased before that is understood."""


class GoesOnError(StoreError):
    """New events of the user kept coming. What was there before is erased."""


class _RepeatError(Exception):
    """The breaker changed since its events were read."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased: events of the user, and the batches that were sealed again for them."""

    events: int
    batches: int


class _Sealed(NamedTuple):
    """A batch that is sealed again: its new salt, and the digests of its contents before and after."""

    writer_id: int
    batch_no: int
    salt: bytes
    before: bytes
    after: bytes


@dataclass(slots=True)
class _Found:
    """A user's events, and their batches as they are to be."""

    user_id: int
    pseudonym: int
    reseals: Reseals
    dropped: DroppedDays
    ids: list[EventId] = field(default_factory=list)
    sealed: list[_Sealed] = field(default_factory=list)

    def take(self, stored: StoredBatch) -> None:
        if not self._has_events(stored):
            return
        batch = as_sealed(stored, self.reseals.of(stored.writer_id, stored.batch_no))
        if stored.seal is not None and batch is None and not is_dropped(stored, self.dropped):
            raise BrokenRecordError(
                f"{explain(stored)}: run verify, and find out why, before anybody is erased"
            )
        rows = self._erase_rows(batch or stored)
        documents = [self._erase_document(stored.writer_id, document) for document in stored.documents]
        if batch is not None and batch.seal is not None:
            before = contents_digest(batch.seal[:SALT_BYTES], batch.rows, batch.documents)
            salt = secrets.token_bytes(SALT_BYTES)
            after = contents_digest(salt, rows, documents)
            self.sealed.append(_Sealed(batch.writer_id, batch.batch_no, salt, before, after))

    def _has_events(self, batch: StoredBatch) -> bool:
        if any(document["user_id"] == self.user_id for document in batch.documents):
            return True
        # The bytes are found quickly, and may stand for something else as well. Batches without events of the user may
        # lack rows here: they may begin or end on days that are not read.
        return struct.pack(">iq", 8, self.user_id) in batch.rows and any(
            row.user_id == self.user_id for row in split_rows(batch.rows)
        )

    def _erase_rows(self, batch: StoredBatch) -> bytes:
        parts = []
        for row in split_rows(batch.rows):
            if row.user_id == self.user_id:
                self.ids.append(EventId(row.writer_id, row.writer_seq))
                parts.append(row.erased(self.pseudonym))
            else:
                parts.append(row.data)
        return b"".join(parts)

    def _erase_document(self, writer_id: int, document: dict[str, Any]) -> dict[str, Any]:
        if document["user_id"] != self.user_id:
            return document
        self.ids.append(EventId(writer_id, document["seq"]))
        return erased_document(document, self.pseudonym)


async def erase(
    database_url: str,
    user_id: int,
    *,
    actor: str | None = None,
    on_progress: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> Erasure:
    """Take the texts and the user out of all events of a user.

    The user's bot should be stopped: what comes after this is recorded as ever.

    Raises:
        UnknownBreakerError: nothing is stored of this user.
        BrokenRecordError: their events are not what was recorded; nothing was erased.
        GoesOnError: more events came all the time.
        LogUnavailableError: the database can't be reached, or this role may not erase anybody.

    """
    async with _opened(database_url) as connection:
        await connection.execute(_ONE_AT_A_TIME, timeout=_TIMEOUT_SECONDS)
        if not await connection.fetchval(_KNOWN, user_id):
            raise UnknownBreakerError(user_id)
        erasures = []
        for _ in range(PASSES):
            found = await _find(database_url, user_id, on_progress)
            try:
                erasures.append(await _erase(connection, found, actor and clean_text(actor)))
            except _RepeatError:
                continue
            if not await connection.fetchval(_KNOWN, user_id):
                return Erasure(sum(each.events for each in erasures), sum(each.batches for each in erasures))
    raise GoesOnError(
        f"new events of user {user_id} kept coming; what was there before is erased. Stop their bot, and erase again"
    )


@asynccontextmanager
async def _opened(database_url: str) -> AsyncIterator[Connection]:
    connection = await connect(database_url, writing=True, command_timeout_seconds=_TIMEOUT_SECONDS)
    try:
        yield connection
    except UNREACHABLE as error:
        raise LogUnavailableError(described(error)) from error
    finally:
        connection.terminate()


async def _find(database_url: str, user_id: int, on_progress: Callable[[int, int | None], None]) -> _Found:
    async with snapshot(database_url, "the erasure") as connection:
        first, last = await connection.fetchrow(_SPAN, user_id)
        # Far from what platforms hand out: their ids are small, and those of groups not so far below zero.
        pseudonym = -(2**62) - 1 - secrets.randbelow(2**62)
        every = await list_days(connection)
        found = _Found(user_id, pseudonym, await read_reseals(connection), dropped_days_of(every))
        if first is None:
            return found
        margin = timedelta(days=1)
        days = [day for day in every if first - margin <= day.date <= last + margin]
        done = 0

        def take(batch: StoredBatch) -> None:
            nonlocal done
            found.take(batch)
            done += batch.event_count
            on_progress(done, None)

        await read_batches(connection, days, take, _refuse_left_over)
    return found


def _refuse_left_over(day: Day, _rows: bytes) -> None:
    raise BrokenRecordError(
        f"{day.date} has events that belong to no batch: run verify before anybody is erased"
    )


async def _erase(connection: Connection, found: _Found, actor: str | None) -> Erasure:
    stored = await read_breaker(connection, found.user_id, None)
    state = BreakerState(Policy()) if stored is None else stored.state
    told = erasure_digest((each.writer_id, each.batch_no, each.before, each.after) for each in found.sealed)
    transition = _decide(state, await connection.fetchval(_NOW), told, actor)
    try:
        events = await _call(connection, found, transition)
    except asyncpg.PostgresError as error:
        if error.sqlstate == _CHANGED:
            raise _RepeatError from error
        raise
    return Erasure(events, len(found.sealed))


def _decide(state: BreakerState, now: int, told: str, actor: str | None) -> Transition:
    at = now if state.since is None else max(now, state.since + 1)
    journal = Journal()
    (event,) = decide(state, Erase(at, journal.next_id(), journal.draw_era(), told, actor))
    if not isinstance(event, Transition):
        raise TypeError(f"an erasure is a transition, not {event!r}")
    return event


async def _call(connection: Connection, found: _Found, transition: Transition) -> int:
    sealed = seal(operators_batch(found.pseudonym, transition))
    events: int = await connection.fetchval(
        _ERASE,
        found.user_id,
        found.pseudonym,
        [event_id.writer_id for event_id in found.ids],
        [event_id.writer_seq for event_id in found.ids],
        [each.writer_id for each in found.sealed],
        [each.batch_no for each in found.sealed],
        [each.salt for each in found.sealed],
        [each.before for each in found.sealed],
        [each.after for each in found.sealed],
        *transition.event_id,
        FORMAT,
        int(Source.OPERATOR),
        sealed.digest,
        to_datetime(transition.at),
        sealed.append_document(),
        sealed.seal,
    )
    return events
