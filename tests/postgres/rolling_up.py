"""Batches as they stand in the log, processes that die while they roll up, and what roll-ups should say."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import asyncpg
import pytest

from breaker_store.core.buckets import Bucket
from breaker_store.core.events import EventId, Kind, Outcome, Permit
from breaker_store.core.health import Tally, tally
from breaker_store.core.histogram import COUNT_BITS, Histogram, quantiles_us
from breaker_store.postgres.codec import microseconds, to_datetime
from breaker_store.postgres.health_history import QUANTILES
from breaker_store.postgres.rollups import NUMBERS, TABLES

SEQS = itertools.count(1)

_BATCH = """
INSERT INTO writer_batches (writer_id, batch_no, first_seq, last_seq, event_count, format, source, digest, earliest, latest)
VALUES ($1, 1, $2, $3, $4, 2, 0, sha256('any'), $5, $6)
"""
_EVENT = """
INSERT INTO breaker_events (
    occurred_at, user_id, writer_id, writer_seq, duration_us, generation, era, kind, verdict, count, error_type
) VALUES ($1, $2, $3, $4, $5, 0, 0, $6, $7, $8, $9)
"""


class Stored(NamedTuple):
    user_id: int
    outcome: Outcome


def outcome(
    kind: Kind,
    at: int,
    duration_us: int | None = 1_000,
    error_type: str | None = None,
    count: int | None = None,
    writer_id: int = 1,
) -> Outcome:
    return Outcome(  # type: ignore[call-overload, no-any-return]
        kind,
        EventId(writer_id, next(SEQS)),
        at,
        Permit(0, 0),
        duration_us=duration_us,
        error_type=error_type,
        count=count,
    )


async def ensure_days(connection: asyncpg.Connection, times: Iterable[int]) -> None:
    for day in sorted({to_datetime(at).date() for at in times}):
        await connection.execute("SELECT ensure_outcome_partitions($1, $1)", day)


async def store(connection: asyncpg.Connection, events: Sequence[Stored]) -> None:
    """Store a batch of a writer of its own; the days' partitions are there."""
    writer_id = next(SEQS)
    seqs = [event.outcome.event_id.writer_seq for event in events]
    times = [to_datetime(event.outcome.at) for event in events]
    await connection.execute(_BATCH, writer_id, min(seqs), max(seqs), len(events), min(times), max(times))
    rows = [
        (
            to_datetime(each.at), user_id, *each.event_id, each.duration_us, int(each.kind), int(each.verdict),
            each.count, each.error_type,
        )
        for user_id, each in events
    ]  # fmt: skip
    await connection.executemany(_EVENT, rows)


class KilledError(Exception):
    """The process dies here."""


class MortalConnection(asyncpg.Connection):
    """Dies with a statement, before the server has it or after it was carried out; never while `lives_for` is None."""

    lives_for: int | None = None
    dies_after_it = False

    async def _die(self, statement: Any, *arguments: Any, **options: Any) -> Any:
        if self.lives_for is None:
            return await statement(*arguments, **options)
        self.lives_for -= 1
        if self.lives_for > 0:
            return await statement(*arguments, **options)
        if self.dies_after_it:
            await statement(*arguments, **options)
        self.terminate()
        raise KilledError

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        return await self._die(super().execute, *arguments, **options)

    async def fetch(self, *arguments: Any, **options: Any) -> Any:
        return await self._die(super().fetch, *arguments, **options)

    async def fetchrow(self, *arguments: Any, **options: Any) -> Any:
        return await self._die(super().fetchrow, *arguments, **options)

    async def fetchval(self, *arguments: Any, **options: Any) -> Any:
        return await self._die(super().fetchval, *arguments, **options)


Key = tuple[int, datetime, int]


async def read_rollups(
    connection: asyncpg.Connection, bucket: Bucket, since: datetime
) -> dict[Key, Tally | dict[str, Any]]:
    """Give a time's rows by user, begin and drops, read back as tallies are written."""
    rows = await connection.fetch(f"SELECT * FROM {TABLES[bucket]} WHERE started_at >= $1", since)
    return {(row["user_id"], row["started_at"], row["drops"]): as_fields(row) for row in rows}


def as_fields(row: asyncpg.Record) -> dict[str, Any]:
    fields = {
        name: value for name, value in row.items() if name not in ("user_id", "started_at", "drops", "bucket")
    }
    assert fields["durations"] == sorted(fields["durations"])
    counts = {element >> COUNT_BITS: element % 2**COUNT_BITS for element in fields["durations"]}
    types = json.loads(fields["error_types"]) if fields["error_types"] else {}
    return fields | {"durations": Histogram(counts), "error_types": types}


IN_ORDER = ("weighted_us", "weight_left", "first_duration_us", "failure_run")
WORKED_OUT = ("timed_calls", "p50_us", "p95_us", "p99_us")
SUMMED = ("successes", "failures", "refusals", "duration_us", "durations", "error_types")


def expected_fields(counted: Tally, bucket: Bucket) -> dict[str, Any]:
    if bucket is not Bucket.MINUTE:
        return worked_out({name: getattr(counted, name) for name in SUMMED})
    fields = {name: getattr(counted, name) for name in SUMMED + IN_ORDER}
    # The server multiplies and adds in another order.
    close = {
        name: pytest.approx(fields[name], rel=1e-9, abs=1e-90) for name in ("weighted_us", "weight_left")
    }
    return fields | close


def worked_out(fields: dict[str, Any]) -> dict[str, Any]:
    """Give the fields with what is stored beside their histogram."""
    durations = fields["durations"]
    found = (durations.total, *quantiles_us(durations.packed(), QUANTILES))
    return fields | dict(zip(WORKED_OUT, found, strict=True))


def begin_of(at: int, bucket: Bucket) -> datetime:
    return to_datetime(bucket.begin(at))


def recount(bucket: Bucket, epochs: Iterable[tuple[int, Sequence[Stored]]]) -> dict[Key, dict[str, Any]]:
    """Count events into roll-ups; those of each epoch were stored when so many drops had happened."""
    found: defaultdict[Key, list[Outcome]] = defaultdict(list)
    for drops, events in epochs:
        for user_id, each in events:
            found[user_id, begin_of(each.at, bucket), drops].append(each)
    return {key: expected_fields(tally(outcomes), bucket) for key, outcomes in found.items()}


def sum_of_fleet(rows: dict[Key, dict[str, Any]]) -> dict[tuple[datetime, int], dict[str, Any]]:
    fleet: dict[tuple[datetime, int], dict[str, Any]] = {}
    for (_, started_at, drops), fields in rows.items():
        sums = fleet.setdefault(
            (started_at, drops),
            {"bots": 0, **dict.fromkeys(SUMMED, 0), "durations": Histogram(), "error_types": Counter()},
        )
        sums["bots"] += 1
        for name in SUMMED:
            sums[name] += Counter(fields[name]) if name == "error_types" else fields[name]
    return {key: worked_out(sums) for key, sums in fleet.items()}


async def read_fleet(
    connection: asyncpg.Connection, bucket: Bucket, since: datetime
) -> dict[tuple[datetime, int], dict[str, Any]]:
    rows = await connection.fetch(
        "SELECT * FROM fleet_rollups WHERE bucket = $1 AND started_at >= $2", NUMBERS[bucket], since
    )
    return {(row["started_at"], row["drops"]): as_fields(row) for row in rows}


def at(day: datetime, minute: int, us: int = 0) -> int:
    return microseconds(day) + minute * 60_000_000 + us


FIRST_DAY = datetime(2001, 1, 1, tzinfo=UTC)
