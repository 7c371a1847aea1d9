"""What is stored takes up no room: files go as a whole, and the last one is emptied when nothing is left in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from breaker_store.errors import SpoolError
from breaker_store.spool import Spool, SpoolWriter
from tests.spool.batches import STARTED, WRITER, batch_of, read_all, seqs, spool_files, success
from tests.spool.conftest import Reopen
from tests.spool.test_reading_on import write_successes


@pytest.fixture
def small(reopen: Reopen) -> Spool:
    """A spool whose files hold three successes each."""
    return reopen(limit_bytes=20 * 300)


@pytest.fixture
def writer(small: Spool) -> SpoolWriter:
    return small.begin(WRITER, STARTED)


def sizes(directory: Path) -> list[int]:
    return [path.stat().st_size for path in spool_files(directory)]


def test_a_file_is_begun_when_the_last_one_is_full(writer: SpoolWriter, directory: Path) -> None:
    write_successes(writer, 1, 10)
    names = [path.name for path in spool_files(directory)]
    assert names == [f"{STARTED}-{WRITER:016x}-00000{number}.spool" for number in (1, 2, 3, 4)]
    assert all(size <= 300 for size in sizes(directory))
    assert {path.stat().st_mode & 0o777 for path in spool_files(directory)} == {0o600}


def test_a_batch_that_is_longer_than_a_file_has_one_of_its_own(writer: SpoolWriter, directory: Path) -> None:
    write_successes(writer, 1, 1)
    for first in (2, 52):
        writer.write(batch_of(*(success(seq) for seq in range(first, first + 50))))
    write_successes(writer, 102, 102)
    assert len(sizes(directory)) == 4
    assert seqs(read_all(writer, limit=20)) == list(range(1, 103))


def test_files_go_when_all_in_them_is_stored(writer: SpoolWriter, small: Spool, directory: Path) -> None:
    write_successes(writer, 1, 10)
    for through_seq, files in ((2, 4), (3, 3), (8, 2), (9, 1)):
        writer.forget(through_seq)
        assert len(sizes(directory)) == files
        assert small.used_bytes == sum(sizes(directory))
    assert seqs(read_all(writer, 9)) == [10]


def test_the_last_file_is_emptied_when_all_is_stored(
    writer: SpoolWriter, small: Spool, directory: Path
) -> None:
    write_successes(writer, 1, 5)
    writer.forget(5)
    assert sizes(directory) == [0]
    assert small.used_bytes == 0
    write_successes(writer, 6, 7)
    assert seqs(read_all(writer, 5)) == [6, 7]
    assert small.used_bytes == sum(sizes(directory))


def test_what_is_not_stored_stays(writer: SpoolWriter, directory: Path) -> None:
    write_successes(writer, 1, 3)
    before = sizes(directory)
    writer.forget(2)
    assert sizes(directory) == before
    assert seqs(read_all(writer, 2)) == [3]


def test_forgetting_before_anything_is_written_does_nothing(writer: SpoolWriter, directory: Path) -> None:
    writer.forget(10)
    assert sizes(directory) == []


def test_an_earlier_processs_files_go_when_they_are_read_and_stored(reopen: Reopen, directory: Path) -> None:
    write_successes(reopen(limit_bytes=20 * 300).begin(WRITER, STARTED), 1, 10)
    spool = reopen()
    (left,) = spool.leftovers()
    left.forget(100)
    assert len(sizes(directory)) == 4
    assert left.read(0, 4) is not None
    left.forget(4)
    assert len(sizes(directory)) == 3
    assert seqs(read_all(left, 4)) == [5, 6, 7, 8, 9, 10]
    left.forget(10)
    assert sizes(directory) == []
    assert spool.used_bytes == 0
    assert spool.leftovers() == []


def test_removing_deletes_all_files_of_a_writer_and_of_no_other(reopen: Reopen, directory: Path) -> None:
    write_successes(reopen(limit_bytes=20 * 300).begin(WRITER, STARTED), 1, 10)
    spool = reopen()
    other = spool.begin(WRITER + 1, STARTED + 1)
    write_successes(other, 1, 1)
    (left,) = spool.leftovers()
    assert left.read(0, 2) is not None
    left.remove()
    assert spool.leftovers() == []
    assert left.read(2, 2) is None
    assert [path.name[17:33] for path in spool_files(directory)] == [f"{WRITER + 1:016x}"]
    assert spool.used_bytes == sum(sizes(directory))


def test_a_writer_whose_files_were_removed_begins_anew(writer: SpoolWriter, small: Spool) -> None:
    write_successes(writer, 1, 10)
    assert seqs(read_all(writer)) == list(range(1, 11))
    writer.remove()
    assert small.used_bytes == 0
    write_successes(writer, 11, 12)
    assert seqs(read_all(writer, 10)) == [11, 12]
    assert writer.damaged == []


def test_a_file_that_vanished_is_forgotten_like_any_other(
    writer: SpoolWriter, small: Spool, directory: Path
) -> None:
    write_successes(writer, 1, 10)
    spool_files(directory)[1].unlink()
    writer.forget(10)
    assert small.used_bytes == 0


def test_a_name_that_is_taken_is_passed_over(writer: SpoolWriter, small: Spool, directory: Path) -> None:
    taken = directory / f"{STARTED}-{WRITER:016x}-000001.spool"
    taken.write_bytes(b"somebody else's")
    write_successes(writer, 1, 2)
    assert taken.read_bytes() == b"somebody else's"
    assert seqs(read_all(writer)) == [1, 2]


def test_an_earlier_processs_files_are_not_written_to(reopen: Reopen) -> None:
    write_successes(reopen().begin(WRITER, STARTED), 1, 1)
    (left,) = reopen().leftovers()
    with pytest.raises(SpoolError, match="an earlier process's"):
        write_successes(left, 2, 2)
