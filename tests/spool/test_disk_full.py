"""A disk that refuses in the middle of a write leaves the file as it was."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from breaker_store.errors import SpoolError
from breaker_store.spool import Spool, SpoolWriter
from tests.spool.batches import NOON, STARTED, WRITER, batch_of, failed, read_all, seqs, spool_files, success
from tests.spool.conftest import Program, Reopen

# The kernel cuts a write short at the limit and refuses the next one, as it does on a full disk.
LIMITED = r"""
import resource, sys
from pathlib import Path
from breaker_store.errors import SpoolError
from breaker_store.spool import Spool, SpoolWriter
from tests.spool.batches import batch_of, failed

resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
spool = Spool(Path(sys.argv[1]))
writer = spool.begin(77, 1_700_000_000_000_000)
refused = 0
for seq in range(1, 400):
    size = writer.size
    try:
        if seq % 3:
            writer.write_success(seq, 101, seq, 5, 0, 0, "send_message")
        else:
            writer.write(batch_of(failed(seq)))
    except SpoolError as error:
        assert writer.size == size
        refused += 1
        print(error, flush=True)
        if refused > 3:
            break
    else:
        print(seq, flush=True)
sys.stdin.read()
"""


def test_a_file_that_may_not_grow_keeps_what_it_holds(
    directory: Path, start_program: Program, reopen: Reopen
) -> None:
    program = start_program(LIMITED, directory)
    assert program.stdout is not None
    lines: list[str] = []
    while sum(not line.isdigit() for line in lines) < 4:
        lines.append(program.stdout.readline().strip())
    program.kill()
    program.wait()
    refusals = [line for line in lines if not line.isdigit()]
    (path,) = spool_files(directory)
    assert set(refusals) == {f"{path}: {os.strerror(errno.EFBIG)}"}
    (left,) = reopen().leftovers()
    assert seqs(read_all(left, limit=50)) == [int(line) for line in lines if line.isdigit()]
    assert left.damaged == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a disk can't be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(writer: SpoolWriter, first: int) -> tuple[list[int], SpoolError]:
    """Write until the disk refuses; give what was written."""
    written = []
    for seq in range(first, first + 10_000):
        try:
            if seq % 10:
                writer.write_success(seq, 101, NOON + seq, 5, 0, 0, "send_message")
            else:
                writer.write(batch_of(failed(seq)))
        except SpoolError as error:
            return written, error
        written.append(seq)
    raise AssertionError("the disk is never full")


def test_a_full_disk_is_an_error_that_says_so_and_costs_nothing(tiny_disk: Path) -> None:
    spool = Spool(tiny_disk / "spool")
    writer = spool.begin(WRITER, STARTED)
    written, error = fill(writer, 1)
    (path,) = spool_files(spool.directory)
    assert str(error) == f"{path}: {os.strerror(errno.ENOSPC)}"
    assert path.stat().st_size == spool.used_bytes
    with pytest.raises(SpoolError):
        writer.write(batch_of(*(success(seq) for seq in range(written[-1] + 1, written[-1] + 900))))
    assert path.stat().st_size == spool.used_bytes
    spool.close()

    spool = Spool(tiny_disk / "spool")  # the next process starts although the disk is full
    (left,) = spool.leftovers()
    assert seqs(read_all(left, limit=100)) == written
    assert left.damaged == []
    with pytest.raises(SpoolError, match=os.strerror(errno.ENOSPC)):
        spool.set_aside(batch_of(*(success(seq) for seq in range(1, 900))), "because")
    assert list((spool.directory / "aside").iterdir()) == []
    left.remove()
    spool.close()


def test_writing_goes_on_when_there_is_room_again(tiny_disk: Path) -> None:
    spool = Spool(tiny_disk / "spool")
    writer = spool.begin(WRITER, STARTED)
    written, _ = fill(writer, 1)
    writer.forget(written[-1])
    more, _ = fill(writer, written[-1] + 1)
    assert len(more) >= len(written) - 5
    assert seqs(read_all(writer, written[-1], limit=100)) == more
    assert writer.damaged == []
    spool.close()


def test_a_file_that_cannot_be_begun_leaves_the_last_one_in_use(tiny_disk: Path) -> None:
    spool = Spool(tiny_disk / "spool", limit_bytes=20 * 4_096)
    writer = spool.begin(WRITER, STARTED)
    written, _ = fill(writer, 1)
    assert len(spool_files(spool.directory)) > 10
    assert seqs(read_all(writer, limit=100)) == written
    writer.forget(written[len(written) // 2])
    more, _ = fill(writer, written[-1] + 1)
    assert more
    assert seqs(read_all(writer, written[-1], limit=100)) == more
    assert writer.damaged == []
    spool.close()


def test_damage_is_counted_although_there_is_no_room_to_keep_it(tiny_disk: Path) -> None:
    spool = Spool(tiny_disk / "spool")
    writer = spool.begin(WRITER, STARTED)
    written, _ = fill(writer, 1)
    (path,) = spool_files(spool.directory)
    spool.close()
    with path.open("r+b") as file:
        file.write(b"?" * 30_000)
    spool = Spool(tiny_disk / "spool")
    (left,) = spool.leftovers()
    found = seqs(read_all(left, limit=100))
    assert found == written[-len(found) :]
    assert [(damage.events, damage.kept_in) for damage in left.damaged] == [(len(written) - len(found), None)]
    spool.close()
