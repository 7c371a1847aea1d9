"""What a process says of its recording: reports, and batches that only tell what is missing."""

from __future__ import annotations

from dataclasses import replace

from breaker_store.ports import Batch, Gap, RecorderReport, Source
from tests.contract.writing import START, Writer

CALM = RecorderReport(
    writer_id=1,
    host="bots-1",
    pid=4_711,
    started_at=START,
    durability="behind",
    queued=0,
    flushed=12,
    spooled=0,
    set_aside=0,
    lost=0,
    lost_why=None,
    oldest_waiting_us=None,
    last_error=None,
)
TROUBLED = replace(
    CALM,
    pid=2**22,
    started_at=START + 7,
    durability="journaled",
    queued=1,
    flushed=2**40,
    spooled=3,
    set_aside=4,
    lost=5,
    lost_why="the queue was full",
    oldest_waiting_us=2**40,
    last_error="Postgres can't be reached: no route to host",
    ended=True,
)


def gaps_alone(writer: Writer, after: Batch | None, *gaps: Gap, last_seq: int | None = None) -> Batch:
    """Make a batch that has no events: its first number is the one after its last."""
    done = after.last_seq if after is not None else 0
    return Batch(
        writer_id=writer.writer_id,
        batch_no=1 if after is None else after.batch_no + 1,
        first_seq=done + 1,
        last_seq=done if last_seq is None else last_seq,
        source=Source.LIVE,
        previous_digest=None if after is None else writer.log.seal(after).digest,
        earliest=min(gap.first_at for gap in gaps),
        latest=max(gap.last_at for gap in gaps),
        outcomes=(),
        gaps=gaps,
    )
