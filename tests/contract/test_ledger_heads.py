"""Every log tells what it has last of a writer, so that what the writer left can be delivered after it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breaker_store import LedgerError
from breaker_store.ports import LedgerHead
from tests.contract.writing import USER, Writer


async def test_of_a_writer_that_stored_nothing_there_is_no_last_batch(writer: Writer, other: Writer) -> None:
    await other.succeed()
    await other.send()
    assert await writer.log.ledger_head(writer.writer_id) is None


async def test_the_last_batch_of_a_writer_is_told_as_it_was_sent(writer: Writer, other: Writer) -> None:
    for times in (3, 70, 2):
        await writer.succeed(USER, times)
        sealed = writer.log.seal(writer.cut())
        await writer.append(sealed.batch)
        await other.succeed(USER, 100)
        await other.send()
    assert await other.log.ledger_head(writer.writer_id) == LedgerHead(3, 75, sealed.digest)


async def test_somebody_else_goes_on_after_a_writers_last_batch(writer: Writer, other: Writer) -> None:
    """As a new process does with what a dead one left on disk."""
    await writer.fail(times=1)
    await writer.send()
    await writer.fail(times=1)
    left = writer.cut()
    head = await other.log.ledger_head(writer.writer_id)
    assert head is not None
    sealed = other.log.seal(replace(left, batch_no=head.batch_no + 1, previous_digest=head.digest))
    assert [fate.position for fate in await other.log.append(sealed)] == [1]
    assert await other.log.ledger_head(writer.writer_id) == LedgerHead(2, 3, sealed.digest)


async def test_what_lands_late_shows_in_the_last_batch_that_is_read_again(
    writer: Writer, other: Writer
) -> None:
    """The dead process's last transaction may be committed after its heir has asked."""
    await writer.succeed()
    late = writer.log.seal(writer.cut())
    await writer.succeed()
    left = writer.cut()
    assert await other.log.ledger_head(writer.writer_id) is None
    await writer.log.append(late)
    with pytest.raises(LedgerError):
        await other.append(left)
    head = await other.log.ledger_head(writer.writer_id)
    assert head == LedgerHead(1, 1, late.digest)
    await other.append(replace(left, batch_no=2, previous_digest=head.digest))
