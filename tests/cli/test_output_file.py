from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from breaker_store.cli.output_file import OutputError, write_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_name_comes_when_the_file_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    with write_file(file, overwrite=False) as write:
        write(b"one\n")
        assert not file.exists()
        write(b"two\n")
    assert (names(tmp_path), file.read_bytes()) == (["lines"], b"one\ntwo\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("before", [None, b"old"])
def test_nothing_is_left_of_a_file_that_is_not_whole(
    tmp_path: Path, error: type[BaseException], before: bytes | None
) -> None:
    """What had its name before stays."""
    file = tmp_path / "lines"
    if before is not None:
        file.write_bytes(before)
    with pytest.raises(error), write_file(file, overwrite=True) as write:
        write(b"half")
        raise error
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([] if before is None else [before])


@contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """Have the operating system refuse what goes beyond; a full disk is refused in the same place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_is_said_and_keeps_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"old")
    reason = os.strerror(errno.EFBIG)
    with (
        limited_file_size(10),
        pytest.raises(OutputError, match=f"can't write {file}: {reason}"),
        write_file(file, overwrite=True) as write,
    ):
        write(b"12345678")
        write(b"12345678")
    assert (names(tmp_path), file.read_bytes()) == (["lines"], b"old")


def test_a_file_is_overwritten_only_when_told(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"old")
    file.chmod(0o600)
    with pytest.raises(OutputError, match="--overwrite replaces it"), write_file(file, overwrite=False):
        pytest.fail("nothing is asked for")
    assert file.read_bytes() == b"old"
    with write_file(file, overwrite=True) as write:
        write(b"new")
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"new", 0o600)


def test_a_file_that_somebody_else_made_meanwhile_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    with pytest.raises(OutputError, match="--overwrite"), write_file(file, overwrite=False) as write:
        write(b"ours")
        file.write_bytes(b"theirs")
    assert (names(tmp_path), file.read_bytes()) == (["lines"], b"theirs")


def test_a_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with write_file(link, overwrite=True) as write:
        write(b"new")
    assert (link.is_symlink(), target.read_bytes()) == (True, b"new")


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(OutputError, match="is no file"), write_file(path, overwrite=True):
            pytest.fail("nothing is asked for")


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "lines"
    with pytest.raises(OutputError, match="No such file or directory"), write_file(file, overwrite=False):
        pytest.fail("nothing is asked for")
