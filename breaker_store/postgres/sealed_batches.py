"""The log batch by batch, as it was sealed, quickly: a day's partition at a time, in the bytes of COPY.

The server sorts a day's rows by writer and number, and puts a row of its own after the last one of each batch, with what
the ledger says of it and the transitions that belong to it. That row has a mark which is drawn for each reading, so its
place is found by searching for bytes; no other row is looked into here. What a digest is made of is the very bytes that
the server sends.

A batch of two days or more comes with the last of them. What belongs to no batch is taken for a part of the next one, or
comes last, without one. Memory holds a batch, and those that go on on another day.
"""

from __future__ import annotations

import json
import secrets
import struct
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final

from breaker_store.postgres.codec import OUTCOME_COLUMNS, BatchHead, to_datetime
from breaker_store.postgres.connecting import Connection

HEADER_BYTES: Final = 19
TRAILER: Final = b"\xff\xff"

# The server may sort a day in memory; half a gigabyte holds some three million events.
_SORT_IN_MEMORY: Final = "SET LOCAL work_mem = '512MB'"

_DAYS: Final = """
SELECT (regexp_match(pg_get_expr(relpartbound, inhrelid), 'FROM \\(''([^'']+)'))[1]::timestamptz AS begin
FROM pg_inherits
JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'breaker_outcomes'::regclass AND NOT inhdetachpending
"""

_DROPPED_DAYS: Final = "SELECT DISTINCT day FROM dropped_partitions"

_LEDGER_DAYS: Final = """
SELECT DISTINCT day
FROM writer_batches, LATERAL (VALUES (earliest), (latest)) AS bound (at), LATERAL (SELECT (at AT TIME ZONE 'UTC')::date) AS day (day)
"""

# The mark of a batch has a time of null, which comes after all others, and the batch's number for a duration.
_ROWS: Final = """
{rows}
SELECT
    NULL::timestamptz, writer_id, last_seq, batch_no, 0, 0, 0::smallint, 0::smallint, NULL::integer, NULL::integer,
    NULL::smallint, NULL::bigint, '{mark}',
    concat_ws(
        ' ', first_seq, event_count, format, (extract(epoch FROM earliest) * 1000000)::bigint,
        (extract(epoch FROM latest) * 1000000)::bigint,
        encode(digest, 'hex'), coalesce(encode(previous_digest, 'hex'), '-'), coalesce(encode(seal, 'hex'), '-')
    ),
    (
        SELECT jsonb_agg(
            jsonb_build_object(
                'user_id', user_id, 'seq', writer_seq, 'kind', kind, 'version', version, 'generation', generation,
                'era', era, 'details', details,
                'at', to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
            ) ORDER BY writer_seq
        )::text
        FROM breaker_transitions
        WHERE breaker_transitions.writer_id = writer_batches.writer_id
            AND writer_seq BETWEEN first_seq AND last_seq
    ),
    NULL::uuid
FROM writer_batches
WHERE earliest < '{until}' AND latest >= '{since}'
"""
_ORDER: Final = "writer_id, writer_seq, occurred_at, duration_us"
# By its bounds, not by its name: rights are those of the whole.
_DAY: Final = f"""
SELECT {", ".join(OUTCOME_COLUMNS)} FROM breaker_outcomes WHERE occurred_at >= '{{since}}' AND occurred_at < '{{until}}'
UNION ALL
"""

# From the beginning of a mark's row to its text: the number of fields, a null, three numbers of 8 bytes, two of 4, two of
# 2, four nulls, the length.
_BEFORE_MARK: Final = 2 + 4 + 3 * 12 + 2 * 8 + 2 * 6 + 4 * 4 + 4
_NAME: Final = struct.Struct(">6xiqiqiq").unpack_from
_LENGTH: Final = struct.Struct(">i").unpack_from
_PIECE_BYTES: Final = 1 << 18
_DAY_LENGTH: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch as the ledger and the log have it.

    Attributes:
        earliest, latest: Unix microseconds.
        rows: of its outcomes as COPY sends them, without header and trailer; in the order of their numbers, but for
            `is_divided`: then those of each day are.
        documents: of its transitions, as `codec.transition_document` gives them.
        seal: None in format 1.

    """

    writer_id: int
    batch_no: int
    first_seq: int
    last_seq: int
    event_count: int
    format: int
    earliest: int
    latest: int
    digest: bytes
    previous_digest: bytes | None
    seal: bytes | None
    rows: bytes
    documents: list[dict[str, Any]] = field(default_factory=list)
    is_divided: bool = False

    @property
    def head(self) -> BatchHead:
        return BatchHead(
            self.format,
            self.writer_id,
            self.batch_no,
            self.first_seq,
            self.last_seq,
            self.event_count,
            self.earliest,
            self.latest,
        )

    @property
    def earliest_day(self) -> date:
        return to_datetime(self.earliest).date()

    @property
    def latest_day(self) -> date:
        return to_datetime(self.latest).date()


@dataclass(frozen=True, slots=True)
class Day:
    """A UTC day of the log; one that was dropped may have a partition again, of what came late."""

    date: date
    has_partition: bool
    was_dropped: bool = False


@dataclass(frozen=True, slots=True)
class Partitions:
    """Which days have a partition.

    Retention drops days from the oldest on, and an import may bring one back that is older than all: so what was
    dropped lies before the newest days that follow one another without a gap, which begin with `horizon`. Of the days
    in `dropped` the log itself says so.
    """

    days: frozenset[date]
    dropped: frozenset[date] = frozenset()

    @property
    def horizon(self) -> date | None:
        if not self.days:
            return None
        day = max(self.days)
        while day - _DAY_LENGTH in self.days:
            day -= _DAY_LENGTH
        return day

    def lacks_some_of(self, batch: StoredBatch) -> bool:
        """Tell whether outcomes of a batch may be gone with days that were dropped."""
        day, horizon = batch.earliest_day, self.horizon
        if batch.event_count <= len(batch.documents):
            return False
        if any(day <= dropped <= batch.latest_day for dropped in self.dropped):
            return True
        while day <= batch.latest_day and (horizon is None or day < horizon):
            if day not in self.days:
                return True
            day += _DAY_LENGTH
        return False


Take = Callable[[StoredBatch], None]
TakeLeftOver = Callable[[Day, bytes], None]


async def list_days(connection: Connection) -> list[Day]:
    """List the days that have a partition, or batches, in their order."""
    made = {row["begin"].date() for row in await connection.fetch(_DAYS) if row["begin"] is not None}
    named = {row["day"] for row in await connection.fetch(_LEDGER_DAYS)}
    dropped = {row["day"] for row in await connection.fetch(_DROPPED_DAYS)}
    return [Day(date, date in made, date in dropped) for date in sorted(named | made)]


def partitions_of(days: list[Day]) -> Partitions:
    made = frozenset(day.date for day in days if day.has_partition)
    return Partitions(made, frozenset(day.date for day in days if day.was_dropped))


async def read_batches(
    connection: Connection, days: list[Day], take: Take, take_left_over: TakeLeftOver
) -> None:
    """Hand over each batch once, and the rows at the end of a day that belong to none; within a transaction."""
    await connection.execute(_SORT_IN_MEMORY)
    divided: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    for day in days:
        mark = secrets.token_hex(16)
        splitter = _Splitter(day.date, mark.encode(), divided, take)
        await _copy(connection, _rows_of(day, mark), splitter.feed)
        if left_over := splitter.end():
            take_left_over(day, left_over)


def _rows_of(day: Day, mark: str) -> str:
    since, until = day.date.isoformat(), (day.date + _DAY_LENGTH).isoformat()
    rows = _DAY.format(since=since, until=until) if day.has_partition else ""
    # Named here: where the day has no partition, the mark's expressions have no names to sort by.
    columns = ", ".join(OUTCOME_COLUMNS)
    inner = _ROWS.format(rows=rows, mark=mark, since=since, until=until)
    return f"SELECT {columns} FROM ({inner}) AS row ({columns}) ORDER BY {_ORDER}"


async def _copy(connection: Connection, query: str, feed: Callable[[bytes], None]) -> None:
    pieces: list[bytes] = []
    size = 0

    async def take(data: bytes) -> None:
        nonlocal size
        pieces.append(data)
        size += len(data)
        if size >= _PIECE_BYTES:
            feed(b"".join(pieces))
            pieces.clear()
            size = 0

    await connection.copy_from_query(query, output=take, format="binary")
    feed(b"".join(pieces))


class _Splitter:
    """Finds the batches in a stream of rows."""

    def __init__(
        self, day: date, mark: bytes, divided: dict[tuple[int, int], list[bytes]], take: Take
    ) -> None:
        self._day = day
        self._mark = mark
        self._divided = divided
        self._take = take
        self._data = bytearray()
        self._begun = False
        self._searched = 0

    def feed(self, piece: bytes) -> None:
        self._data += piece
        if not self._begun:
            del self._data[:HEADER_BYTES]
            self._begun = True
        done = 0
        while (place := self._data.find(self._mark, self._searched)) >= 0:
            end = self._end_of_mark(place)
            if end is None:
                break
            self._searched = end
            self._finish(done, place)
            done = end
        else:
            self._searched = max(len(self._data) - len(self._mark) + 1, self._searched)
        del self._data[:done]
        self._searched -= done

    def _end_of_mark(self, place: int) -> int | None:
        """Tell where the row of a mark ends; None if the rest of it is still to come."""
        end = place + len(self._mark)
        for _ in range(3):
            if len(self._data) < end + 4:
                return None
            (length,) = _LENGTH(self._data, end)
            end += 4 + max(length, 0)
        return end if len(self._data) >= end else None

    def _finish(self, begin: int, place: int) -> None:
        start = place - _BEFORE_MARK
        _, writer_id, _, last_seq, _, batch_no = _NAME(self._data, start)
        rows = bytes(self._data[begin:start])
        facts, documents = self._read_mark(place + len(self._mark))
        first_seq, event_count, format_, earliest, latest, digest, previous_digest, seal = facts.split()
        earlier = self._divided.pop((writer_id, batch_no), None)
        if to_datetime(int(latest)).date() != self._day:
            self._divided[writer_id, batch_no] = [*(earlier or ()), rows]
            return
        self._take(
            StoredBatch(
                writer_id,
                batch_no,
                int(first_seq),
                last_seq,
                int(event_count),
                int(format_),
                int(earliest),
                int(latest),
                bytes.fromhex(digest),
                None if previous_digest == "-" else bytes.fromhex(previous_digest),
                None if seal == "-" else bytes.fromhex(seal),
                rows if earlier is None else b"".join([*earlier, rows]),
                documents,
                is_divided=earlier is not None,
            )
        )

    def _read_mark(self, place: int) -> tuple[str, list[dict[str, Any]]]:
        (length,) = _LENGTH(self._data, place)
        facts = self._data[place + 4 : place + 4 + length].decode()
        place += 4 + length
        (length,) = _LENGTH(self._data, place)
        if length < 0:
            return facts, []
        return facts, json.loads(self._data[place + 4 : place + 4 + length].decode())

    def end(self) -> bytes:
        """Give what comes after the last batch."""
        return bytes(self._data).removesuffix(TRAILER)
