"""Events are read on where reading was, while others are written at the end and those that are stored go."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from breaker_store.core.policy import Policy
from breaker_store.ports import Batch
from breaker_store.spool import Spool, SpoolWriter
from breaker_store.spool.records import CHUNK, GREATEST_PAYLOAD
from tests.spool.batches import (
    GAP,
    NOON,
    OWN_POLICY,
    STARTED,
    WRITER,
    batch_of,
    content,
    opening,
    read_all,
    seqs,
    spool_files,
    success,
)
from tests.spool.conftest import Reopen

OTHER_GAP = GAP._replace(failures=9)


def write_successes(writer: SpoolWriter, first: int, last: int) -> None:
    for seq in range(first, last + 1):
        writer.write_success(seq, 101, NOON + seq, 5, 0, 0, "send_message")


def numbers(batch: Batch | None) -> list[int]:
    return [] if batch is None else seqs([batch])


def test_nothing_is_read_where_nothing_was_written(writer: SpoolWriter) -> None:
    assert writer.read(0, 10) is None
    assert writer.last_seq == 0


def test_what_was_written_a_moment_ago_is_read(writer: SpoolWriter) -> None:
    for seq in range(1, 200):
        write_successes(writer, seq, seq)
        assert numbers(writer.read(seq - 1, 10)) == [seq]
        assert writer.read(seq, 10) is None


def test_what_is_not_above_the_number_is_passed_over(writer: SpoolWriter) -> None:
    write_successes(writer, 1, 10)
    assert numbers(writer.read(7, 2)) == [8, 9]
    assert numbers(writer.read(9, 2)) == [10]
    assert writer.read(10, 2) is None


def test_reading_goes_on_through_all_files_while_more_are_begun(reopen: Reopen, directory: Path) -> None:
    writer = reopen(limit_bytes=20 * 300).begin(WRITER, STARTED)
    read: list[int] = []
    for seq in range(1, 100):
        write_successes(writer, seq, seq)
        if seq % 7 == 0:
            read += numbers(writer.read(read[-1] if read else 0, 5))
    assert len(spool_files(directory)) == 33
    assert read + seqs(read_all(writer, read[-1])) == list(range(1, 100))


def test_a_smaller_number_goes_back_to_what_is_still_there(reopen: Reopen) -> None:
    writer = reopen(limit_bytes=20 * 300).begin(WRITER, STARTED)
    write_successes(writer, 1, 20)
    assert seqs(read_all(writer, 0)) == list(range(1, 21))
    assert numbers(writer.read(10, 2)) == [11, 12]
    writer.forget(10)
    assert seqs(read_all(writer, 3)) == list(range(10, 21))
    assert writer.damaged == []


def test_going_back_in_what_a_process_left_deletes_nothing_that_was_not_read(reopen: Reopen) -> None:
    write_successes(reopen(limit_bytes=20 * 300).begin(WRITER, STARTED), 1, 20)
    (left,) = reopen().leftovers()
    assert numbers(left.read(0, 11)) == list(range(1, 12))
    assert numbers(left.read(0, 2)) == [1, 2]
    left.forget(11)
    assert seqs(read_all(left, 2))[-9:] == list(range(12, 21))
    assert left.damaged == []


def test_events_that_went_without_having_been_read_are_not_taken_for_damage(reopen: Reopen) -> None:
    writer = reopen(limit_bytes=20 * 300).begin(WRITER, STARTED)
    write_successes(writer, 1, 2)
    assert seqs(read_all(writer)) == [1, 2]
    write_successes(writer, 3, 20)
    writer.forget(15)
    assert seqs(read_all(writer, 15)) == [16, 17, 18, 19, 20]
    writer.forget(20)
    write_successes(writer, 21, 22)
    assert seqs(read_all(writer, 20)) == [21, 22]
    assert writer.damaged == []


def test_a_long_past_of_stored_events_is_not_gone_through_again(
    writer: SpoolWriter, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Damage in it would be logged."""
    for seq in range(1, 2_001):
        write_successes(writer, seq, seq)
        writer.forget(seq - 1)
    (path,) = spool_files(directory)
    with path.open("r+b") as file:
        file.write(b"?" * (writer.size // 2))
    assert seqs(read_all(writer, 1_999)) == [2_000]
    assert caplog.text == ""


def test_gaps_without_events_come_with_the_events_after_them(writer: SpoolWriter) -> None:
    write_successes(writer, 1, 2)
    writer.write(batch_of(gaps=[GAP]))
    write_successes(writer, 3, 4)
    writer.write(batch_of(success(5), gaps=[OTHER_GAP]))
    assert [(numbers(batch), batch.gaps) for batch in read_all(writer, limit=2)] == [
        ([1, 2], []),
        ([3, 4], [GAP]),
        ([5], [OTHER_GAP]),
    ]


def test_gaps_after_the_last_event_come_with_it_or_alone(writer: SpoolWriter) -> None:
    write_successes(writer, 1, 2)
    writer.write(batch_of(gaps=[GAP]))
    (batch,) = read_all(writer, limit=3)
    assert (numbers(batch), batch.gaps) == ([1, 2], [GAP])
    writer.write(batch_of(gaps=[OTHER_GAP]))
    alone = writer.read(2, 3)
    assert alone is not None
    assert (alone.event_count, alone.first_seq, alone.last_seq, alone.gaps) == (0, 3, 2, [OTHER_GAP])
    assert (alone.earliest, alone.latest) == (OTHER_GAP.first_at, OTHER_GAP.last_at)
    assert writer.read(2, 3) is None


def test_gaps_that_nobody_has_read_are_not_forgotten_with_the_events_before(writer: SpoolWriter) -> None:
    write_successes(writer, 1, 2)
    assert numbers(writer.read(0, 10)) == [1, 2]
    writer.write(batch_of(gaps=[GAP]))
    writer.forget(2)
    alone = writer.read(2, 10)
    assert alone is not None
    assert alone.gaps == [GAP]
    writer.forget(2)
    assert writer.size == 0


@pytest.mark.parametrize("is_read", [True, False])
def test_gaps_at_the_end_of_a_file_stay_until_they_are_read_or_the_next_event_is_stored(
    reopen: Reopen, directory: Path, is_read: bool
) -> None:
    writer = reopen(limit_bytes=20 * 270).begin(WRITER, STARTED)
    write_successes(writer, 1, 2)
    writer.write(batch_of(gaps=[GAP]))
    write_successes(writer, 3, 3)
    first, _ = spool_files(directory)
    writer.forget(2)
    assert first.exists()
    if is_read:
        assert content(read_all(writer, 2)).gaps == [GAP]
    writer.forget(2 if is_read else 3)
    assert not first.exists()


def test_gaps_that_an_earlier_process_left_stay_until_they_are_read_again(reopen: Reopen) -> None:
    writer = reopen(limit_bytes=20 * 270).begin(WRITER, STARTED)
    writer.write(batch_of(*(success(seq) for seq in range(1, 10))))
    writer.write(batch_of(gaps=[GAP]))
    (left,) = reopen().leftovers()
    assert content(read_all(left, limit=10)).gaps == [GAP]
    assert numbers(left.read(0, 9)) == list(range(1, 10))
    left.forget(9)
    assert content(read_all(left, 9)).gaps == [GAP]


def test_gaps_in_a_long_past_of_stored_events_are_not_passed_over(writer: SpoolWriter) -> None:
    for seq in range(1, 1_001):
        write_successes(writer, seq, seq)
    writer.write(batch_of(gaps=[GAP]))
    writer.forget(999)
    write_successes(writer, 1_001, 1_001)
    writer.forget(1_000)
    assert content(read_all(writer, 1_000)).gaps == [GAP]


def test_gaps_survive_the_process_that_told_them(reopen: Reopen) -> None:
    writer = reopen(limit_bytes=20 * 300).begin(WRITER, STARTED)
    write_successes(writer, 1, 3)
    writer.write(batch_of(gaps=[GAP]))
    write_successes(writer, 4, 6)
    writer.write(batch_of(gaps=[OTHER_GAP]))
    writer.forget(3)
    assert content(read_all(reopen().leftovers()[0], 3)).gaps == [GAP, OTHER_GAP]
    # Whoever has event 4 has been told of what was missing before it.
    assert content(read_all(reopen().leftovers()[0], 4)).gaps == [OTHER_GAP]


def test_what_belongs_to_no_event_of_its_batch_is_kept_as_well(writer: SpoolWriter) -> None:
    writer.write(batch_of(newcomers={5: OWN_POLICY}))
    writer.write(batch_of(success(1), newcomers={6: Policy()}))
    assert content(read_all(writer)).newcomers == {5: OWN_POLICY, 6: Policy()}


def test_the_last_number_of_an_earlier_process_is_known_when_it_is_read_through(reopen: Reopen) -> None:
    write_successes(reopen().begin(WRITER, STARTED), 1, 5)
    (left,) = reopen().leftovers()
    for after_seq, known in ((0, 0), (3, 0), (5, 5)):
        left.read(after_seq, 3)
        assert left.last_seq == known


def test_reading_holds_a_chunk_and_the_limits_events_in_memory(directory: Path, reopen: Reopen) -> None:
    writer = reopen().begin(WRITER, STARTED)
    write_successes(writer, 1, 20_000)
    (left,) = reopen().leftovers()
    tracemalloc.start()
    after_seq = 0
    while (batch := left.read(after_seq, 500)) is not None:
        after_seq = batch.last_seq
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after_seq == 20_000
    assert peak < 2 * CHUNK + 500 * 1_000


def test_garbage_is_not_held_in_memory(directory: Path, reopen: Reopen) -> None:
    writer = reopen().begin(WRITER, STARTED)
    write_successes(writer, 1, 1)
    writer.write(batch_of(opening(2)))
    (path,) = spool_files(directory)
    reopen().close()
    with path.open("ab") as file:
        file.write(b"?" * (16 << 20))
    spool = Spool(directory)
    (left,) = spool.leftovers()
    tracemalloc.start()
    assert seqs(read_all(left)) == [1, 2]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    spool.close()
    assert peak < GREATEST_PAYLOAD + 4 * CHUNK
