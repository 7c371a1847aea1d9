"""The head of a record: a few numbers and a digest that name it as it was at a moment.

It covers the position and the link of the last transition, all batches that were complete then, and what they told to be
missing. Kept elsewhere, it tells later whether the record was made anew as a whole, which nothing within the database can.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from breaker_store.postgres.codec import microseconds_sql
from breaker_store.postgres.connecting import Connection

BATCHES: Final = f"""
SELECT
    'batch' AS proof, writer_id, batch_no, first_seq, last_seq, event_count, format,
    encode(digest, 'hex') AS digest, encode(previous_digest, 'hex') AS previous_digest, encode(seal, 'hex') AS seal,
    {microseconds_sql("earliest")} AS earliest_us,
    {microseconds_sql("latest")} AS latest_us,
    xid::text::bigint AS xid, {microseconds_sql("recorded_at")} AS recorded_at_us
FROM writer_batches
ORDER BY writer_id, batch_no
"""
"""The ledger, as a proof has it."""

GAPS: Final = f"""
SELECT
    'gap' AS proof, writer_id, batch_no, gap_no, reason,
    {microseconds_sql("first_at")} AS first_at_us,
    {microseconds_sql("last_at")} AS last_at_us,
    successes, refusals, failures, transitions, unknown,
    xid::text::bigint AS xid, {microseconds_sql("writer_batches.recorded_at")} AS recorded_at_us
FROM log_gaps
JOIN writer_batches USING (writer_id, batch_no)
ORDER BY writer_id, batch_no, gap_no
"""
"""What the batches told to be missing."""

# Of each, what never changes; an erasure changes seals.
_COVERED: Final = {
    BATCHES: ("writer_id", "batch_no", "first_seq", "last_seq", "event_count", "format", "digest"),
    GAPS: (
        "writer_id", "batch_no", "gap_no", "reason", "first_at_us", "last_at_us", "successes", "refusals", "failures",
        "transitions", "unknown",
    ),
}  # fmt: skip

_COMPLETE: Final = """
SELECT concat_ws(' ', {columns}) FROM ({rows}) AS row
WHERE (xid < {moment.xid} OR xid >= nullif({moment.restored_xid}, 0)) AND recorded_at_us < {moment.at_us}
"""

# Before the snapshot: no batch that comes later was recorded before it.
_MOMENT: Final = """
SELECT
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xid,
    coalesce(min(writer_batches.xid::text::bigint), 0) AS restored_xid,
    (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint AS at_us
FROM writer_batches
WHERE writer_batches.xid >= pg_snapshot_xmax(pg_current_snapshot())
"""


class Moment(NamedTuple):
    """Which batches were complete: those that were recorded before a time, by a transaction that had ended.

    Attributes:
        xid: all transactions before this one had ended.
        restored_xid: those from this one on were none of this server: their batches came with a copy. 0 if there is
            no such batch.
        at_us: Unix microseconds.

    """

    xid: int
    restored_xid: int
    at_us: int

    def has(self, batch: Mapping[str, Any]) -> bool:
        """Tell whether a batch, or a gap, of a proof was complete."""
        xid: int = batch["xid"]
        recorded_at_us: int = batch["recorded_at_us"]
        return (xid < self.xid or 0 < self.restored_xid <= xid) and recorded_at_us < self.at_us


@dataclass(frozen=True, slots=True)
class Head:
    """A state of the record.

    Attributes:
        position: of the last transition.
        moment: which batches belong to it.
        digest: of the last link, the batches' digests and the gaps.

    """

    position: int
    moment: Moment
    digest: str

    def __str__(self) -> str:
        return "-".join(map(str, (self.position, *self.moment, self.digest)))

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `str` gave.

        Raises:
            ValueError: it is none.

        """
        match = re.fullmatch(r"((?:\d{1,18}-){4})([0-9a-f]{64})", text.strip(), re.ASCII)
        if match is None:
            raise ValueError("a head is written as four numbers and 64 hexadecimal digits, joined by -")
        position, *moment = map(int, match[1].split("-")[:-1])
        return cls(position, Moment(*moment), match[2])


async def read_moment(connection: Connection) -> Moment:
    """Give the moment of the caller's snapshot."""
    return Moment(*await connection.fetchrow(_MOMENT))


async def read_head(connection: Connection, position: int, link: bytes, moment: Moment) -> Head:
    """Give the head of what is stored, as it was at a moment, up to a transition with its link."""
    digest = hashlib.sha256(link)

    async def take(data: bytes) -> None:
        digest.update(data)

    for rows, columns in _COVERED.items():
        query = _COMPLETE.format(columns=", ".join(columns), rows=rows, moment=moment)
        await connection.copy_from_query(query, output=take)
    return Head(position, moment, digest.hexdigest())


def head_of_proof(
    position: int,
    link: bytes,
    moment: Moment,
    batches: Iterable[dict[str, Any]],
    gaps: Iterable[dict[str, Any]],
) -> Head:
    """Give the same of the lines of a proof."""
    digest = hashlib.sha256(link)
    for lines, columns in zip((batches, gaps), _COVERED.values(), strict=True):
        for line in filter(moment.has, lines):
            digest.update((" ".join(str(line[column]) for column in columns) + "\n").encode())
    return Head(position, moment, digest.hexdigest())
