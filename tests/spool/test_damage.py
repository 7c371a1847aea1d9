"""Whatever happens to a file: what is whole comes back, in order and once, and what is not is counted, named and kept."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breaker_store.core.policy import Policy
from breaker_store.ports import Batch
from breaker_store.spool import Damage, Spool, SpoolWriter
from breaker_store.spool.records import GREATEST_PAYLOAD, LENGTH_MASK, MARK, frame, pack_prefix, seed_of
from tests.depth import DEPTH, step
from tests.spool.batches import (
    GAP,
    NOON,
    OWN_POLICY,
    STARTED,
    WRITER,
    Written,
    batch_of,
    content,
    failed,
    first_failure_mark,
    one_of_each_kind,
    opening,
    read_all,
    seqs,
    spool_files,
    success,
    write_all,
)
from tests.spool.conftest import Reopen

GARBAGE_BYTES = 4 << 20
CHANGES: dict[str, Callable[[int], int]] = {
    "inverted": lambda byte: byte ^ 0xFF,
    "zero": lambda byte: 0,
    "all ones": lambda byte: 0xFF,
}


class Left:
    """A directory with what a process left, one file of which is damaged again and again."""

    def __init__(self, directory: Path, batches: Sequence[Batch]) -> None:
        spool = Spool(directory)
        self.written = write_all(spool.begin(WRITER, STARTED), batches)
        spool.close()
        self.directory = directory
        (self.path,) = spool_files(directory)
        self.whole = self.path.read_bytes()
        assert len(self.whole) == self.written[-1].end

    def read(self, data: bytes) -> tuple[list[Batch], list[Damage]]:
        self.path.write_bytes(data)
        spool = Spool(self.directory)
        leftovers = spool.leftovers()
        found = [batch for left in leftovers for batch in read_all(left, limit=4)]
        damaged = [damage for left in leftovers for damage in left.damaged]
        spool.close()
        return found, damaged

    def check(self, data: bytes, touched: Written | None, damaged_bytes: bytes, case: object) -> None:
        """Check that all comes back but what was touched, which is counted as one event and kept."""
        found, damaged = self.read(data)
        expected = content(
            each.batch for each in self.written if each is not touched and each.end <= len(data)
        )
        assert content(found)._replace(newcomers=expected.newcomers) == expected, case
        assert content(found).newcomers.keys() >= expected.newcomers.keys(), case
        if touched is None:
            assert damaged == [], case
            return
        ((path, offset, length, events, kept_in),) = damaged
        assert (path, offset, length, events) == (self.path, touched.start, len(damaged_bytes), 1), case
        assert kept_in is not None
        with kept_in.open("rb") as kept:
            kept.seek(offset)
            assert kept.read(length) == damaged_bytes, case


@pytest.fixture
def left() -> Iterator[Left]:
    """A file with everything in it; in memory where that can be, since it is read again some thousand times."""
    memory = Path("/dev/shm")  # noqa: S108 - the directory in it has a name of its own
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Left(Path(directory), one_of_each_kind())


def test_a_file_cut_at_any_byte_gives_what_is_whole(left: Left) -> None:
    for size in range(len(left.whole) + 1):
        cut = next((each for each in left.written if each.start < size < each.end), None)
        left.check(left.whole[:size], cut, left.whole[cut.start : size] if cut else b"", size)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_any_byte_costs_its_record_alone(left: Left, name: str) -> None:
    change, places = CHANGES[name], 1 if name == "inverted" else step(4)
    for each in left.written:
        for position in range(each.start, each.end, places):
            damaged = bytearray(left.whole)
            damaged[position] = change(damaged[position])
            touched = None if damaged == left.whole else each
            left.check(bytes(damaged), touched, bytes(damaged[each.start : each.end]), position)


def test_bytes_taken_out_at_any_place_cost_what_they_touch(left: Left) -> None:
    for size in (1, 7, 150):
        for position in range(0, len(left.whole) - size, 11):
            found, damaged = left.read(left.whole[:position] + left.whole[position + size :])
            whole = [each for each in left.written if each.end <= position or each.start >= position + size]
            assert seqs(found) == seqs(each.batch for each in whole)
            at_the_end = whole[-1:] != left.written[-1:]
            missing = len(left.written) - len(whole)
            assert sum(damage.events for damage in damaged) == missing or (at_the_end and damaged)


def test_bytes_put_in_between_records_cost_nothing(left: Left, caplog: pytest.LogCaptureFixture) -> None:
    for each in left.written:
        found, damaged = left.read(left.whole[: each.start] + b"foreign" + left.whole[each.start :])
        assert seqs(found) == seqs(each.batch for each in left.written)
        assert damaged == []
        assert "0 events missing; kept in" in caplog.text
        caplog.clear()


def test_a_record_that_is_there_twice_comes_once(left: Left) -> None:
    for each in left.written:
        record = left.whole[each.start : each.end]
        found, damaged = left.read(left.whole[: each.end] + record + left.whole[each.end :] + record)
        assert seqs(found) == seqs(each.batch for each in left.written)
        # What follows the last record can't be told from an event.
        assert sum(damage.events for damage in damaged) == 1


def test_records_of_another_file_are_not_taken_for_this_ones(directory: Path) -> None:
    batches = [batch_of(success(seq)) for seq in range(1, 9)]
    left = Left(directory, batches)
    other = directory / left.path.name.replace("-000001.", "-000002.")
    left.path.rename(other)
    left.path = other
    found, damaged = left.read(left.whole)
    assert found == []
    assert [(damage.offset, damage.length) for damage in damaged] == [(0, len(left.whole))]


@pytest.mark.parametrize("first", [0, 3, 7])
def test_several_damaged_records_in_a_row_are_counted_exactly(directory: Path, first: int) -> None:
    left = Left(directory, [batch_of(success(2 * seq)) for seq in range(1, 12)])
    start, end = left.written[first].start + 5, left.written[first + 3].end - 5
    found, damaged = left.read(left.whole[:start] + os.urandom(end - start) + left.whole[end:])
    assert seqs(found) == [2 * seq for seq in range(1, 12) if not first < seq <= first + 4]
    assert [damage.events for damage in damaged] == [4 if first < 7 else 1]


def test_damage_in_several_places_is_told_for_each(left: Left) -> None:
    damaged_file = bytearray(left.whole)
    for each in left.written[1::2]:
        damaged_file[each.start + 20] ^= 1
    found, damaged = left.read(bytes(damaged_file))
    assert seqs(found) == seqs(each.batch for each in left.written[::2])
    assert [damage.offset for damage in damaged] == [each.start for each in left.written[1::2]]
    assert len({damage.kept_in for damage in damaged}) == 1


def test_damage_is_logged_with_its_place(left: Left, caplog: pytest.LogCaptureFixture) -> None:
    _, (damage,) = left.read(left.whole[:5] + b"?" + left.whole[6:])
    assert f"{left.path} is damaged at byte 0: {damage.length} bytes, 1 events missing" in caplog.text
    assert str(damage.kept_in) in caplog.text


@pytest.mark.parametrize("event", [opening(2), failed(2)], ids=["a transition", "a mark"])
def test_after_damage_the_rows_of_users_are_not_taken_for_granted(directory: Path, event: object) -> None:
    marks = [first_failure_mark(2)] if isinstance(event, tuple) and len(event) > 2 else []
    left = Left(directory, [batch_of(success(1), newcomers={101: OWN_POLICY}), batch_of(event, marks=marks)])
    found, _ = left.read(b"?" + left.whole[1:])
    assert content(found).newcomers == {101: Policy()}
    found, _ = left.read(left.whole)
    assert content(found).newcomers == {101: OWN_POLICY}


def test_after_damage_the_policy_that_a_newcomer_is_named_with_holds(directory: Path) -> None:
    left = Left(directory, [batch_of(success(1)), batch_of(opening(2), newcomers={101: OWN_POLICY})])
    found, _ = left.read(b"?" + left.whole[1:])
    assert content(found).newcomers == {101: OWN_POLICY}


def test_a_record_that_is_whole_but_makes_no_sense_is_damage(directory: Path) -> None:
    left = Left(directory, [batch_of(success(1))])
    for kind, data in (
        (1, b""),
        (2, b"{"),
        (2, b"[]"),
        (2, b"\xff"),
        (3, b'{"gaps":[[99]]}'),
        (200, b"later"),
    ):
        odd = frame(pack_prefix(kind, 2, 2, 2) + data, _seed(left))
        after = frame(pack_prefix(3, 2, 3, 3) + b"{}", _seed(left))
        found, damaged = left.read(left.whole + odd + after)
        assert seqs(found) == [1]
        assert [damage.events for damage in damaged] == [1]


def _seed(left: Left) -> int:
    return seed_of(WRITER, 1)


def test_damage_before_a_record_that_makes_no_sense_is_counted_once(directory: Path) -> None:
    left = Left(directory, [batch_of(success(1)), batch_of(success(2))])
    odd = frame(pack_prefix(2, 3, 3, 3) + b"{", _seed(left))
    after = frame(pack_prefix(3, 3, 4, 4) + b"{}", _seed(left))
    damaged_record = b"?" + left.whole[left.written[1].start + 1 :]
    found, damaged = left.read(left.whole[: left.written[0].end] + damaged_record + odd + after)
    assert seqs(found) == [1]
    assert sum(damage.events for damage in damaged) == 2


def announcing(length: int) -> bytes:
    """Give the head of a record of some length, again and again."""
    head = MARK + length.to_bytes(4, "little") + (length ^ LENGTH_MASK).to_bytes(4, "little") + bytes(4)
    return head * (GARBAGE_BYTES // len(head))


GARBAGE: dict[str, Callable[[], bytes]] = {
    "noise": lambda: random.Random(7).randbytes(GARBAGE_BYTES),
    "zeros": lambda: bytes(GARBAGE_BYTES),
    "marks": lambda: MARK * (GARBAGE_BYTES // 2),
    "long records announced": lambda: announcing(GREATEST_PAYLOAD - 1),
    "short records announced": lambda: announcing(4_000),
}


@pytest.mark.parametrize("make", GARBAGE.values(), ids=GARBAGE.keys())
def test_megabytes_of_garbage_are_passed_over_in_linear_time(
    directory: Path, make: Callable[[], bytes]
) -> None:
    data = make()
    left = Left(directory, [batch_of(success(1)), batch_of(success(2))])
    middle = left.written[0].end
    began = time.process_time()
    found, damaged = left.read(left.whole[:middle] + data + left.whole[middle:])
    assert time.process_time() - began < 10, "a quadratic search takes minutes"
    assert seqs(found) == [1, 2]
    assert damaged == []
    found, damaged = left.read(data)
    assert found == []
    assert [(damage.length, damage.events) for damage in damaged] == [(len(data), 1)]
    assert damaged[0].kept_in is not None
    assert damaged[0].kept_in.read_bytes()[: len(data)] == data


def test_what_is_stored_already_is_not_missing(directory: Path, reopen: Reopen) -> None:
    """Those whose numbers are not above the one that the log has are in the log, or told as missing there."""
    left = Left(directory, one_of_each_kind())
    left.path.write_bytes(left.whole[:30] + b"?" + left.whole[31:])
    (writer,) = reopen().leftovers()
    assert seqs(read_all(writer, after_seq=2)) == [3, 5, 6, 9, 11, 13, 14, 15]
    assert writer.damaged == []


def test_damage_on_both_sides_of_what_is_stored_counts_what_is_not(directory: Path, reopen: Reopen) -> None:
    left = Left(directory, [batch_of(success(seq)) for seq in range(1, 11)])
    start, end = left.written[2].start + 1, left.written[6].end - 1
    left.path.write_bytes(left.whole[:start] + bytes(end - start) + left.whole[end:])
    (writer,) = reopen().leftovers()
    assert seqs(read_all(writer, after_seq=5)) == [8, 9, 10]
    assert [damage.events for damage in writer.damaged] == [2]


def test_damage_is_not_counted_again_when_a_file_is_read_again(directory: Path, reopen: Reopen) -> None:
    left = Left(directory, one_of_each_kind())
    left.path.write_bytes(
        left.whole[: left.written[3].start] + b"?" + left.whole[left.written[3].start + 1 :]
    )
    (writer,) = reopen().leftovers()
    for after_seq in (0, 3, 0):
        assert seqs(read_all(writer, after_seq)) == [
            seq for seq in (1, 2, 3, 6, 9, 11, 13, 14, 15) if seq > after_seq
        ]
    assert len(writer.damaged) == 1


def segmented(directory: Path) -> list[Path]:
    """Leave four files or more, of three events each."""
    spool = Spool(directory, limit_bytes=20 * 300)
    writer = spool.begin(WRITER, STARTED)
    for seq in range(1, 13):
        writer.write_success(seq, 101, NOON, 5, 0, 0, "send_message")
    spool.close()
    paths = spool_files(directory)
    assert len(paths) == 4
    return paths


@pytest.mark.parametrize(
    ("gone", "missing"), [([1], [3]), ([1, 2], [5, 1]), ([0], []), ([0, 1], []), ([3], [])]
)
def test_files_that_are_missing_at_the_start_are_counted_by_those_around(
    directory: Path, reopen: Reopen, gone: list[int], missing: list[int]
) -> None:
    paths = segmented(directory)
    for place in gone:
        paths[place].unlink()
    (writer,) = reopen().leftovers()
    assert seqs(read_all(writer)) == [seq for seq in range(1, 13) if (seq - 1) // 3 not in gone]
    assert sum(damage.events for damage in writer.damaged) == sum(missing)


@pytest.mark.parametrize(
    ("gone", "missing"),
    [([1], [3]), ([1, 2], [5, 1]), ([0], [1]), ([0, 1], [1, 1]), ([3], [1]), ([0, 1, 2, 3], [1] * 4)],
)
def test_files_that_vanish_while_they_are_needed_are_counted_and_passed_over(
    directory: Path, reopen: Reopen, gone: list[int], missing: list[int]
) -> None:
    paths = segmented(directory)
    spool = reopen()
    (writer,) = spool.leftovers()
    for place in gone:
        paths[place].unlink()
    assert seqs(read_all(writer)) == [seq for seq in range(1, 13) if (seq - 1) // 3 not in gone]
    assert [(damage.path, damage.events) for damage in writer.damaged] == [
        (paths[place], events) for place, events in zip(gone, missing, strict=True)
    ]
    assert all(damage.kept_in is None for damage in writer.damaged)
    assert spool.used_bytes == sum(path.stat().st_size for path in spool_files(directory))


def test_a_file_that_cannot_be_read_is_kept_as_it_is(directory: Path, reopen: Reopen) -> None:
    paths = segmented(directory)
    spool = reopen()
    (writer,) = spool.leftovers()
    data = paths[1].read_bytes()
    paths[1].unlink()
    paths[1].symlink_to(paths[0])  # links are not followed
    assert seqs(read_all(writer)) == [1, 2, 3, *range(7, 13)]
    ((path, offset, length, events, kept_in),) = writer.damaged
    assert (path, offset, length, events) == (paths[1], 0, len(data), 3)
    assert kept_in is not None
    assert kept_in.is_symlink()
    writer.remove()
    assert kept_in.is_symlink()
    assert spool.used_bytes == 0


def test_a_file_cut_between_records_is_noticed_by_the_next(directory: Path, reopen: Reopen) -> None:
    paths = segmented(directory)
    size = paths[1].stat().st_size
    os.truncate(paths[1], size // 3)
    (writer,) = reopen().leftovers()
    assert seqs(read_all(writer)) == [1, 2, 3, 4, *range(7, 13)]
    assert [damage.events for damage in writer.damaged] == [2]


def test_damage_at_the_end_of_one_file_and_the_start_of_the_next_is_told_apart(
    directory: Path, reopen: Reopen
) -> None:
    paths = segmented(directory)
    record = paths[0].stat().st_size // 3
    os.truncate(paths[0], 2 * record - 1)
    paths[1].write_bytes(b"?" + paths[1].read_bytes()[1:])
    (writer,) = reopen().leftovers()
    assert seqs(read_all(writer)) == [1, *range(5, 13)]
    assert [(damage.path, damage.offset, damage.events) for damage in writer.damaged] == [
        (paths[0], record, 2),
        (paths[1], 0, 1),
    ]


def test_damage_in_the_file_that_is_being_written_is_counted_exactly(
    writer: SpoolWriter, directory: Path
) -> None:
    write_all(writer, [batch_of(success(seq)) for seq in range(1, 6)])
    (path,) = spool_files(directory)
    with path.open("r+b") as file:
        file.seek(writer.size // 5 * 3 + 3)
        file.write(b"?" * (writer.size // 5 * 2 - 3))
    assert seqs(read_all(writer)) == [1, 2, 3]
    assert [damage.events for damage in writer.damaged] == [2]
    writer.write(batch_of(success(6)))
    assert seqs(read_all(writer, 5)) == [6]
    assert len(writer.damaged) == 1


def test_damage_at_a_place_that_was_damaged_before_is_counted_when_the_file_was_emptied_since(
    writer: SpoolWriter, directory: Path
) -> None:
    for seq in (1, 2):
        writer.write(batch_of(success(seq)))
        with spool_files(directory)[0].open("r+b") as file:
            file.write(b"?")
        assert read_all(writer, seq - 1) == []
        assert sum(damage.events for damage in writer.damaged) == seq
        writer.forget(seq)


def test_damage_in_what_is_stored_is_not_counted_in_the_file_that_is_being_written(
    writer: SpoolWriter, directory: Path
) -> None:
    write_all(writer, [batch_of(success(1)), batch_of(success(2))])
    os.truncate(spool_files(directory)[0], writer.size - 1)
    assert read_all(writer, 2) == []
    assert writer.damaged == []


def test_a_file_that_is_cut_while_it_is_being_written_costs_what_was_cut(
    writer: SpoolWriter, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_all(writer, [batch_of(success(seq)) for seq in range(1, 6)])
    os.truncate(spool_files(directory)[0], writer.size // 5 * 2)
    assert seqs(read_all(writer)) == [1, 2]
    assert [damage.events for damage in writer.damaged] == [3]
    writer.write(batch_of(success(6), opening(7)))
    assert seqs(read_all(writer, 5)) == [6, 7]
    assert [damage.events for damage in writer.damaged] == [3]
    assert len(caplog.records) == 1


def test_the_file_that_is_being_written_is_read_although_somebody_deleted_it(
    writer: SpoolWriter, directory: Path
) -> None:
    writer.write(batch_of(success(1)))
    spool_files(directory)[0].unlink()
    writer.write(batch_of(success(2), gaps=[GAP]))
    assert seqs(read_all(writer)) == [1, 2]
    assert writer.damaged == []


def test_damaged_bytes_that_cannot_be_kept_are_counted_all_the_same(left: Left) -> None:
    (left.directory / "aside").write_text("in the way")
    found, ((_, _, _, events, kept_in),) = left.read(left.whole[:-1])
    assert len(seqs(found)) == len(seqs(each.batch for each in left.written)) - 1
    assert (events, kept_in) == (1, None)


@settings(max_examples=40 * DEPTH, deadline=None)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 239), st.binary(min_size=1, max_size=120)), max_size=5
    ),
    limit=st.integers(1, 13),
)
def test_whatever_is_written_over_several_files_costs_what_it_touches(
    edits: list[tuple[int, int, bytes]], limit: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paths = segmented(directory)
        whole = [path.read_bytes() for path in paths]
        damaged = [bytearray(data) for data in whole]
        for place, offset, data in edits:
            damaged[place][offset : offset + len(data)] = data
        size = len(whole[0]) // 3
        untouched = [
            3 * place + number + 1
            for place in range(4)
            for number in range(3)
            if damaged[place][number * size : number * size + size] == whole[place][number * size :][:size]
            and len(damaged[place]) >= number * size + size
        ]
        for path, data in zip(paths, damaged, strict=True):
            path.write_bytes(data)
        spool = Spool(directory)
        (left,) = spool.leftovers()
        assert seqs(read_all(left, limit=limit)) == untouched
        missing = sum(damage.events for damage in left.damaged)
        spool.close()
        if untouched[-1:] == [12] and any(seq <= 3 for seq in untouched):
            assert missing == 12 - len(untouched)
        else:
            # How many were before the first and after the last that is whole is not known.
            assert bool(missing) == (len(untouched) < 12)
            assert missing <= 12 - len(untouched)
