"""The check that outcomes and transitions are those that were sealed in their batches, and all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from breaker_store.core.events import EventId
from breaker_store.ports import SALT_BYTES
from breaker_store.postgres.codec import (
    FORMAT,
    batch_digest,
    contents_digest,
    countable_digest,
    to_datetime,
)
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.copied_rows import CopiedRow, sorted_rows, split_rows
from breaker_store.postgres.findings import Findings
from breaker_store.postgres.ledger_checks import check_ledger
from breaker_store.postgres.outcome_days import Day, DroppedDays, check_partitions, dropped_days_of, list_days
from breaker_store.postgres.reseals import Reseal, Reseals, check_reseals, read_reseals
from breaker_store.postgres.sealed_batches import StoredBatch, read_batches

_EVENTS: Final = "SELECT coalesce(sum(event_count), 0)::bigint FROM writer_batches"

_UNSEALED_FORMAT: Final = 1


@dataclass(slots=True)
class BatchReport:
    """How much was checked.

    Attributes:
        events, batches: whose contents are those that were sealed, or not.
        old_batches: of format 1, whose contents no check covers.
        dropped_batches: whose outcomes are gone with their days, all or some, which retention drops from the oldest on.
        resealed_batches: from which somebody was erased.

    """

    events: int = 0
    batches: int = 0
    old_batches: int = 0
    dropped_batches: int = 0
    resealed_batches: int = 0


async def check_batches(
    connection: Connection, findings: Findings, on_progress: Callable[[int, int | None], None]
) -> BatchReport:
    """Check the ledger, and every event against it, within the caller's snapshot."""
    await check_ledger(connection, findings)
    await check_partitions(connection, findings)
    reseals = await read_reseals(connection)
    await check_reseals(connection, findings, reseals)
    total = await connection.fetchval(_EVENTS)
    days = await list_days(connection)
    check = BatchCheck(findings, reseals, dropped_days_of(days), lambda done: on_progress(done, total))
    await read_batches(connection, days, check.take, check.take_left_over)
    return check.report


class BatchCheck:
    """Compares batches with what they were sealed as, one after the other.

    Attributes:
        report: what was checked so far.

    """

    def __init__(
        self, findings: Findings, reseals: Reseals, dropped: DroppedDays, on_done: Callable[[int], None]
    ) -> None:
        self._findings = findings
        self._reseals = reseals
        self._dropped = dropped
        self._on_done = on_done
        self.report = BatchReport()

    def take(self, batch: StoredBatch) -> None:
        report, reseals = self.report, self._reseals.of(batch.writer_id, batch.batch_no)
        report.batches += 1
        report.events += batch.event_count
        report.resealed_batches += bool(reseals)
        if report.batches % 256 == 0:
            self._on_done(report.events)
        if batch.format == _UNSEALED_FORMAT:
            report.old_batches += 1
        elif batch.format != FORMAT:
            self._findings.add(
                f"batch {batch.batch_no} of writer {batch.writer_id} has a format that is not known"
            )
        elif as_sealed(batch, reseals) is not None:
            return
        elif is_dropped(batch, self._dropped):
            report.dropped_batches += 1
        else:
            self._findings.add(explain(batch))

    def take_left_over(self, day: Day, rows: bytes) -> None:
        for row in split_rows(rows):
            self._findings.add(f"event {_name(row)} of {day.date} belongs to no batch of the ledger")


def as_sealed(batch: StoredBatch, reseals: Sequence[Reseal]) -> StoredBatch | None:
    """Give a batch, its rows in the order in which they were sealed; None if it is not what was sealed.

    reseals: of the erasures that it went through, the digests of its contents before and after.
    """
    if _is_as_sealed(batch, reseals):
        return batch
    if batch.is_divided:
        # Days don't follow the order of the numbers: an import's batch may have times in any order.
        in_order = replace(batch, rows=b"".join(row.data for row in sorted_rows(batch.rows)))
        return in_order if _is_as_sealed(in_order, reseals) else None
    return None


def _is_as_sealed(batch: StoredBatch, reseals: Sequence[Reseal]) -> bool:
    if batch.seal is None:
        return False
    contents = contents_digest(batch.seal[:SALT_BYTES], batch.rows, batch.documents)
    if reseals:
        return _is_as_sealed_again(batch, contents, reseals)
    return _digest_of(batch, contents) == batch.digest


def _is_as_sealed_again(batch: StoredBatch, contents: bytes, reseals: Sequence[Reseal]) -> bool:
    """Follow the seals from the first to the last, and see that what is countable is as it was."""
    follow = dict(reseals)
    last = next((before for before in follow if _digest_of(batch, before) == batch.digest), None)
    if last is None or batch.seal is None:
        return False
    for _ in reseals:
        last = follow.get(last, last)
    countable = b"".join(row.countable for row in split_rows(batch.rows))
    return last == contents and batch.seal[SALT_BYTES:] == countable_digest(countable, batch.documents)


def _digest_of(batch: StoredBatch, contents: bytes) -> bytes:
    return batch_digest(batch.head, batch.previous_digest, batch.seal or b"", contents)


def is_dropped(batch: StoredBatch, dropped: DroppedDays) -> bool:
    """Tell whether outcomes of a batch may be gone with days that were dropped."""
    return batch.has_outcomes and dropped.lacks_some(batch.earliest_day, batch.latest_day)


def explain(batch: StoredBatch) -> str:
    """Say of a batch what is not as it was sealed, as narrowly as can be told."""
    rows = sorted_rows(batch.rows)
    if strays := [row for row in rows if not _belongs(row, batch)]:
        return f"event {_name(strays[0])} belongs to no batch of the ledger"
    name = f"batch {batch.batch_no} of writer {batch.writer_id}"
    numbers = [row.writer_seq for row in rows] + [document["seq"] for document in batch.documents]
    span = range(batch.first_seq, batch.last_seq + 1)
    if len(numbers) < batch.event_count:
        missing = sorted(set(span) - set(numbers)) if batch.event_count == len(span) else []
        which = f", the first is {EventId(batch.writer_id, missing[0])}" if missing else ""
        return (
            f"{name}: {batch.event_count - len(numbers)} of its {batch.event_count} events are missing{which}"
        )
    if len(numbers) > batch.event_count:
        return f"{name} has {len(numbers)} events and was sealed with {batch.event_count}"
    return (
        f"{name} is not as it was sealed: an event of {EventId(batch.writer_id, batch.first_seq)} to "
        f"{EventId(batch.writer_id, batch.last_seq)}, of {batch.latest_day}, was altered, or its row of the ledger"
    )


def _belongs(row: CopiedRow, batch: StoredBatch) -> bool:
    return row.writer_id == batch.writer_id and batch.first_seq <= row.writer_seq <= batch.last_seq


def _name(row: CopiedRow) -> str:
    return (
        f"{EventId(row.writer_id, row.writer_seq)} ({to_datetime(row.at).isoformat(timespec='milliseconds')})"
    )
