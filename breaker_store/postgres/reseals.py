"""What erasures did to batches: each that held something of the person was sealed again.

The event that tells of an erasure has a digest of all of its batches, before and after, and is a link of the chain. So it
can be followed from the first seal to the last, and none can be put in later.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from breaker_store.core.events import EventId
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.findings import Findings

_RESEALED: Final = """
SELECT writer_id, batch_no, erasure_writer_id, erasure_writer_seq, digest_before, digest_after FROM resealed_batches
"""

_ERASURES: Final = """
SELECT writer_id, writer_seq, details ->> 'erasure_digest' FROM breaker_transitions
WHERE kind = 19 AND position IS NOT NULL
"""

Reseal = tuple[bytes, bytes]
"""The digests of a batch's contents before and after."""


@dataclass(frozen=True, slots=True)
class Reseals:
    """The seals that batches got again, by batch (writer and number) and by erasure."""

    _of_batches: dict[tuple[int, int], list[Reseal]] = field(default_factory=lambda: defaultdict(list))
    _of_erasures: dict[EventId, list[tuple[int, int, bytes, bytes]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, writer_id: int, batch_no: int, erasure: EventId, before: bytes, after: bytes) -> None:
        self._of_batches[writer_id, batch_no].append((before, after))
        self._of_erasures[erasure].append((writer_id, batch_no, before, after))

    def of(self, writer_id: int, batch_no: int) -> Sequence[Reseal]:
        return self._of_batches.get((writer_id, batch_no), ())

    def check(self, findings: Findings, read_told: Callable[[EventId], str | None]) -> None:
        """Compare them with what the erasures' events tell; `read_told` gives the digest, None if there is no event."""
        for erasure, reseals in self._of_erasures.items():
            if read_told(erasure) != erasure_digest(reseals):
                findings.add(
                    f"batches were sealed again by an erasure, {erasure}, that tells of others or is not in the log"
                )


async def read_reseals(connection: Connection) -> Reseals:
    reseals = Reseals()
    for writer_id, batch_no, *erasure, before, after in await connection.fetch(_RESEALED):
        reseals.add(writer_id, batch_no, EventId(*erasure), before, after)
    return reseals


async def check_reseals(connection: Connection, findings: Findings, reseals: Reseals) -> None:
    """Compare them with the erasures in the log, within the caller's snapshot."""
    told = {EventId(*event_id): digest for *event_id, digest in await connection.fetch(_ERASURES)}
    reseals.check(findings, told.get)


def erasure_digest(reseals: Iterable[tuple[int, int, bytes, bytes]]) -> str:
    """Give what the event of an erasure says of the batches (writer, number, digest before, after) it sealed again."""
    digest = hashlib.sha256()
    for writer_id, batch_no, before, after in sorted(reseals):
        digest.update(
            writer_id.to_bytes(8, "big", signed=True)
            + batch_no.to_bytes(8, "big", signed=True)
            + before
            + after
        )
    return digest.hexdigest()
