"""Every log keeps what is missing in it, with the batch that told so and exactly as often."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breaker_store import LedgerError
from breaker_store.ports import Gap, GapReason
from tests.contract.reporting import gaps_alone
from tests.contract.writing import SECOND, START, USER, ReadGaps, Writer

SMALL, LARGE = 3, 120
FULL = Gap(GapReason.QUEUE_FULL, START, START + SECOND, successes=80, refusals=5)
DAMAGED = Gap(GapReason.DAMAGED, START - SECOND, START - SECOND, failures=1, transitions=2, unknown=2**40)


@pytest.mark.parametrize("count", [SMALL, LARGE])
async def test_gaps_are_stored_with_the_events_that_they_come_with(
    writer: Writer, other: Writer, read_gaps: ReadGaps, count: int
) -> None:
    await writer.succeed(USER, count)
    await writer.append(replace(writer.cut(), gaps=[FULL, DAMAGED]))
    await other.succeed(USER, count)
    await other.send()
    assert await read_gaps(writer.writer_id) == [FULL, DAMAGED]
    assert await read_gaps(other.writer_id) == []


@pytest.mark.parametrize("count", [SMALL, LARGE])
async def test_gaps_of_a_batch_that_is_sent_again_are_stored_once(
    writer: Writer, read_gaps: ReadGaps, count: int
) -> None:
    await writer.succeed(USER, count)
    sealed = writer.log.seal(replace(writer.cut(), gaps=[FULL, FULL]))
    for _ in range(3):
        await writer.log.append(sealed)
    assert await read_gaps(writer.writer_id) == [FULL, FULL]


@pytest.mark.parametrize("count", [SMALL, LARGE])
async def test_gaps_of_a_batch_that_is_not_stored_are_not_stored(
    writer: Writer, read_gaps: ReadGaps, count: int
) -> None:
    await writer.succeed(USER, count)
    await writer.send()
    await writer.succeed(USER, count)
    with pytest.raises(LedgerError):
        await writer.append(replace(writer.cut(), previous_digest=bytes(32), gaps=[FULL]))
    assert await read_gaps(writer.writer_id) == []


async def test_gaps_are_no_part_of_what_a_batch_is_known_by(writer: Writer) -> None:
    await writer.succeed()
    batch = writer.cut()
    assert writer.log.seal(replace(batch, gaps=[FULL])).digest == writer.log.seal(batch).digest


async def test_a_gap_whose_times_are_the_wrong_way_round_does_not_hold_up_events(
    writer: Writer, read_gaps: ReadGaps
) -> None:
    """Two measurements of the log's clock may make it so."""
    await writer.succeed()
    await writer.append(replace(writer.cut(), gaps=[FULL._replace(last_at=START - SECOND)]))
    (gap,) = await read_gaps(writer.writer_id)
    assert (gap.event_count, {gap.first_at, gap.last_at}) == (85, {START, START - SECOND})
    assert await writer.log.ledger_head(writer.writer_id) is not None


async def test_gaps_may_come_without_events_before_between_and_after_them(
    writer: Writer, read_gaps: ReadGaps
) -> None:
    first = gaps_alone(writer, None, FULL)
    assert await writer.append(first) == []
    await writer.succeed(USER, 2)
    second = writer.cut()
    await writer.append(second)
    third = gaps_alone(writer, second, DAMAGED, FULL)
    for _ in range(2):
        await writer.append(third)
    await writer.fail(times=2)
    assert [fate.position for fate in await writer.send()] == [1]
    assert await read_gaps(writer.writer_id) == [FULL, DAMAGED, FULL]
    head = await writer.log.ledger_head(writer.writer_id)
    assert head is not None
    assert (head.batch_no, head.last_seq) == (4, 5)


async def test_a_batch_without_events_may_tell_that_numbers_are_done_with(
    writer: Writer, read_gaps: ReadGaps
) -> None:
    """What the log refused is never sent again, not even by an heir."""
    await writer.succeed()
    first = writer.cut()
    await writer.append(first)
    await writer.succeed()
    refused, next_seq = writer.cut(), 3
    gap = Gap(GapReason.REFUSED, refused.earliest, refused.latest, successes=1)
    await writer.append(gaps_alone(writer, first, gap, last_seq=refused.last_seq))
    head = await writer.log.ledger_head(writer.writer_id)
    assert head is not None
    assert (head.batch_no, head.last_seq) == (2, next_seq - 1)
    await writer.succeed()
    await writer.send()
    assert await read_gaps(writer.writer_id) == [gap]
