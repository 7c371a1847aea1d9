"""A spool's directory belongs to one process, and tells the next one what the last one left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest

from breaker_store.errors import ConfigurationError, SpoolBusyError, SpoolError
from breaker_store.spool import Spool, SpoolWriter
from tests.spool.batches import STARTED, WRITER, batch_of, read_all, seqs, spool_files, success
from tests.spool.conftest import Program, Reopen
from tests.spool.test_reading_on import write_successes

HOLDER = r"""
import sys
from pathlib import Path
from breaker_store.spool import Spool
spool = Spool(Path(sys.argv[1]))
print("has it", flush=True)
sys.stdin.read()
"""

FORKING = r"""
import os, signal, sys
from pathlib import Path
from breaker_store.spool import Spool
spool = Spool(Path(sys.argv[1]))
writer = spool.begin(77, 1_700_000_000_000_000)
writer.write_success(1, 101, 5, 5, 0, 0, None)
writer.read(0, 1)
if os.fork() == 0:
    spool.leave_to_parent()
    os.write(1, b"%d\n" % os.getpid())
    signal.pause()
os.write(1, b"%d\n" % os.getpid())
signal.pause()
"""


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the program has ended"
    return line.strip()


def test_the_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    spool.close()


def test_a_second_process_is_told_who_has_the_directory(directory: Path, start_program: Program) -> None:
    holder = start_program(HOLDER, directory)
    assert line_of(holder) == "has it"
    with pytest.raises(SpoolBusyError, match=f"belongs to the process {holder.pid}") as caught:
        Spool(directory)
    assert (caught.value.pid, caught.value.directory) == (holder.pid, directory)
    assert isinstance(caught.value, ConfigurationError)


def test_a_second_spool_in_one_process_is_refused_as_well(spool: Spool) -> None:
    with pytest.raises(SpoolBusyError, match=f"{os.getpid()}"):
        Spool(spool.directory)


def test_a_killed_process_lets_go_of_the_directory(directory: Path, start_program: Program) -> None:
    holder = start_program(HOLDER, directory)
    assert line_of(holder) == "has it"
    holder.kill()
    holder.wait()
    Spool(directory).close()


def test_a_closed_spool_lets_go_of_the_directory(spool: Spool) -> None:
    spool.close()
    Spool(spool.directory).close()
    spool.close()


def test_a_forked_child_that_leaves_the_spool_does_not_keep_it(
    directory: Path, start_program: Program
) -> None:
    parent = start_program(FORKING, directory)
    pids = {int(line_of(parent)), int(line_of(parent))}
    (child,) = pids - {parent.pid}
    try:
        with pytest.raises(SpoolBusyError):
            Spool(directory)
        parent.kill()
        parent.wait()
        spool = Spool(directory)
    finally:
        os.kill(child, signal.SIGKILL)  # it was alive until now
    assert [seqs(read_all(left)) for left in spool.leftovers()] == [[1]]
    spool.close()


def test_a_spool_that_was_left_to_the_parent_touches_nothing(spool: Spool, writer: SpoolWriter) -> None:
    write_successes(writer, 1, 2)
    assert writer.read(0, 1) is not None
    descriptors = set(Path("/proc/self/fd").iterdir())
    before = spool_files(spool.directory)[0].read_bytes()
    spool.leave_to_parent()
    assert len(descriptors - set(Path("/proc/self/fd").iterdir())) == 2
    with pytest.raises(SpoolError, match="closed"):
        writer.write(batch_of(success(3)))
    with pytest.raises(SpoolError, match="closed"):
        write_successes(writer, 3, 3)
    assert writer.read(1, 1) is None
    writer.forget(2)
    writer.remove()
    spool.close()
    assert spool_files(spool.directory)[0].read_bytes() == before


def test_leftovers_come_oldest_first(reopen: Reopen) -> None:
    started = [STARTED + 5, STARTED, STARTED + 9, STARTED + 5]
    writers = [4, 9, 1, 3]
    spool = reopen()
    for started_us, writer_id in zip(started, writers, strict=True):
        write_successes(spool.begin(writer_id, started_us), 1, 2)
    assert spool.leftovers() == []
    assert [left.writer_id for left in reopen().leftovers()] == [9, 3, 4, 1]


def test_leftovers_are_those_of_earlier_processes_alone(reopen: Reopen) -> None:
    write_successes(reopen().begin(WRITER, STARTED), 1, 2)
    spool = reopen()
    write_successes(spool.begin(WRITER + 1, STARTED), 1, 2)
    assert [left.writer_id for left in spool.leftovers()] == [WRITER]


def test_a_process_that_left_nothing_leaves_no_file(reopen: Reopen, directory: Path) -> None:
    spool = reopen()
    writer = spool.begin(WRITER, STARTED)
    write_successes(writer, 1, 2)
    writer.forget(2)
    spool.close()
    assert spool_files(directory) == []


def test_an_empty_file_is_no_leftover(directory: Path, reopen: Reopen) -> None:
    directory.mkdir()
    (directory / f"{STARTED}-{WRITER:016x}-000001.spool").touch()
    assert reopen().leftovers() == []
    assert spool_files(directory) == []


@pytest.mark.parametrize(
    "name",
    [
        "notes.spool",
        f"{STARTED}-{WRITER:016x}-0000001.spool",
        f"{STARTED}-{2**64 - 1:016x}-000001.spool",
        f"{STARTED}-{0:016x}-000001.spool",
    ],
)
def test_a_file_that_is_nobodys_is_set_aside(directory: Path, reopen: Reopen, name: str) -> None:
    for content in ("one", "another"):
        directory.mkdir(exist_ok=True)
        (directory / name).write_text(content)
        assert reopen().leftovers() == []
    assert sorted(path.read_text() for path in (directory / "aside").iterdir()) == ["another", "one"]


def test_other_files_are_left_alone(directory: Path, reopen: Reopen) -> None:
    directory.mkdir()
    (directory / "README").write_text("hands off")
    assert reopen().leftovers() == []
    assert (directory / "README").read_text() == "hands off"


def test_a_directory_in_a_files_place_is_set_aside(directory: Path, reopen: Reopen) -> None:
    (directory / f"{STARTED}-{WRITER:016x}-000001.spool").mkdir(parents=True)
    assert reopen().leftovers() == []
    assert len(list((directory / "aside").iterdir())) == 1


def test_the_room_that_is_used_is_known_from_the_start(reopen: Reopen, directory: Path) -> None:
    write_successes(reopen().begin(WRITER, STARTED), 1, 20)
    size = spool_files(directory)[0].stat().st_size
    spool = reopen(limit_bytes=2 * size)
    assert (spool.used_bytes, spool.full_share) == (size, 0.5)
    write_successes(spool.begin(WRITER + 1, STARTED), 1, 20)
    assert spool.full_share == 1.0


def test_what_is_set_aside_takes_up_no_room(spool: Spool) -> None:
    spool.set_aside(batch_of(success(1)), "because")
    assert spool.used_bytes == 0


@pytest.mark.parametrize("limit_bytes", [0, -1])
def test_a_limit_that_is_no_room_at_all_is_an_error(directory: Path, limit_bytes: int) -> None:
    with pytest.raises(ConfigurationError, match="limit"):
        Spool(directory, limit_bytes=limit_bytes)


def test_a_directory_that_cannot_be_made_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError, match=str(directory)) as caught:
            Spool(directory)
        assert os.strerror(errno.ENOTDIR) in str(caught.value) or os.strerror(errno.EEXIST) in str(
            caught.value
        )


def test_a_link_in_the_locks_place_is_not_followed(directory: Path, tmp_path: Path) -> None:
    directory.mkdir()
    (tmp_path / "precious").write_text("precious")
    (directory / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigurationError):
        Spool(directory)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is forbidden to root")
def test_a_directory_that_cannot_be_written_is_an_error(directory: Path) -> None:
    directory.mkdir(mode=0o500)
    with pytest.raises(ConfigurationError):
        Spool(directory)


def test_a_directory_that_is_gone_is_an_error_of_the_disk(writer: SpoolWriter, directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    with pytest.raises(SpoolError, match=f"{directory}.*{os.strerror(errno.ENOENT)}"):
        write_successes(writer, 1, 1)
    directory.mkdir()
    write_successes(writer, 1, 1)
    assert seqs(read_all(writer)) == [1]
