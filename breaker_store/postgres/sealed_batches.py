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
from datetime import date
from typing import Any, Final

from breaker_store.postgres.codec import (
    OUTCOME_COLUMNS,
    UNUSED_BY_OUTCOMES,
    BatchHead,
    iso_sql,
    microseconds_sql,
    to_datetime,
)
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.outcome_days import DAY_LENGTH, Day

HEADER_BYTES: Final = 19
TRAILER: Final = b"\xff\xff"

# The server may sort a day in memory; half a gigabyte holds some three million events.
_SORT_IN_MEMORY: Final = "SET LOCAL work_mem = '512MB'"

# The mark of a batch has a time of null, which comes after all others, and the batch's number for a duration.
_ROWS: Final = f"""
{{rows}}
SELECT
    NULL::timestamptz, writer_id, last_seq, batch_no, 0, 0, 0::smallint, 0::smallint, NULL::integer, NULL::integer,
    NULL::smallint, NULL::bigint, '{{mark}}',
    concat_ws(
        ' ', first_seq, event_count, format, {microseconds_sql("earliest")}, {microseconds_sql("latest")},
        encode(digest, 'hex'), coalesce(encode(previous_digest, 'hex'), '-'), coalesce(encode(seal, 'hex'), '-')
    ),
    (
        SELECT jsonb_agg(
            jsonb_build_object(
                'user_id', user_id, 'seq', writer_seq, 'kind', kind, 'version', version, 'generation', generation,
                'era', era, 'details', details,
                'at', {iso_sql("occurred_at")}
            ) ORDER BY writer_seq
        )::text
        FROM breaker_transitions
        WHERE breaker_transitions.writer_id = writer_batches.writer_id
            AND writer_seq BETWEEN first_seq AND last_seq
    ),
    NULL::uuid
FROM writer_batches
WHERE earliest < '{{until}}' AND latest >= '{{since}}'
"""
_ORDER: Final = "writer_id, writer_seq, occurred_at, duration_us"
# An outcome with something in another column is none that was sealed: without its kind it fits no digest.
_SEALED: Final = ", ".join(OUTCOME_COLUMNS).replace(
    "kind", f"CASE WHEN num_nonnulls({', '.join(UNUSED_BY_OUTCOMES)}) = 0 THEN kind END"
)
# By its bounds, not by its name: rights are those of the whole.
_DAY: Final = f"""
SELECT {_SEALED} FROM breaker_outcomes WHERE occurred_at >= '{{since}}' AND occurred_at < '{{until}}'
UNION ALL
"""

# From the beginning of a mark's row to its text: the number of fields, a null, three numbers of 8 bytes, two of 4, two of
# 2, four nulls, the length.
_BEFORE_MARK: Final = 2 + 4 + 3 * 12 + 2 * 8 + 2 * 6 + 4 * 4 + 4
_NAME: Final = struct.Struct(">6xiqiqiq").unpack_from
_LENGTH: Final = struct.Struct(">i").unpack_from
_PIECE_BYTES: Final = 1 << 18


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
    def has_outcomes(self) -> bool:
        return self.event_count > len(self.documents)

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


Take = Callable[[StoredBatch], None]
TakeLeftOver = Callable[[Day, bytes], None]


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
    since, until = day.date.isoformat(), (day.date + DAY_LENGTH).isoformat()
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
