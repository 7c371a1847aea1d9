from __future__ import annotations

import gzip
import io
import os
import sys
import threading
from pathlib import Path

import pytest

from breaker_store.importing.formats import DamagedInputError, read_outcomes
from breaker_store.importing.ndjson import NdjsonFormat
from breaker_store.importing.opening import open_input

LINES = [b'{"user_id": %d, "at": %d, "outcome": "success"}\n' % (i * i, 5_000_000 - i) for i in range(20_000)]
TEXT = b"".join(LINES)


def ignore(*facts: object) -> None:
    """Listen to nothing."""


def read(path: Path) -> int:
    with open_input(path, ignore) as stream:
        return len(read_outcomes(stream, NdjsonFormat(), ignore))


def test_names_do_not_matter(tmp_path: Path) -> None:
    """Whether a file is packed is told by its first bytes, not by its name."""
    (tmp_path / "packed.txt").write_bytes(gzip.compress(TEXT))
    (tmp_path / "plain.gz").write_bytes(TEXT)
    assert read(tmp_path / "packed.txt") == read(tmp_path / "plain.gz") == len(LINES)


def test_packed_pieces(tmp_path: Path) -> None:
    """A file to which packed pieces were appended is read to its end."""
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(TEXT) + gzip.compress(TEXT))
    assert read(path) == 2 * len(LINES)


@pytest.mark.parametrize(
    "data", [b"", b"\x1f", b"{", gzip.compress(b"")], ids=["none", "half", "one", "packed"]
)
def test_hardly_any_bytes(tmp_path: Path, data: bytes) -> None:
    """A file of fewer bytes than tell whether it is packed, or with nothing packed in it, has no outcomes."""
    path = tmp_path / "log"
    path.write_bytes(data)
    assert read(path) == 0


@pytest.mark.parametrize("packed", [False, True])
def test_progress(tmp_path: Path, packed: bool) -> None:
    """Progress begins with 0, rises, and ends with the bytes that the file has on disk."""
    path = tmp_path / "log"
    path.write_bytes(gzip.compress(TEXT) if packed else TEXT)
    seen: list[tuple[int, int | None]] = []
    with open_input(path, lambda done, total: seen.append((done, total))) as stream:
        read_outcomes(stream, NdjsonFormat(), ignore)
    size = path.stat().st_size
    assert seen[0] == (0, size)
    assert seen[-1] == (size, size)
    assert seen == sorted(set(seen))


def test_pipe(tmp_path: Path) -> None:
    """A pipe is read to its end, also when its first byte comes alone; its total is not known."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    totals: set[int | None] = set()
    packed = gzip.compress(TEXT)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            pipe.write(packed[:1])
            pipe.write(packed[1:])

    writer = threading.Thread(target=write)
    writer.start()
    with open_input(path, lambda _, total: totals.add(total)) as stream:
        outcomes = read_outcomes(stream, NdjsonFormat(), ignore)
    writer.join()
    assert len(outcomes) == len(LINES)
    assert totals == {None}


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is the standard input, packed or not, which is left open."""
    for data in (TEXT, gzip.compress(TEXT)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        with open_input("-", ignore) as stream:
            assert len(read_outcomes(stream, NdjsonFormat(), ignore)) == len(LINES)
        assert not sys.stdin.buffer.closed


def test_no_such_file(tmp_path: Path) -> None:
    """A file that is not there is the system's own error."""
    with pytest.raises(FileNotFoundError), open_input(tmp_path / "none", ignore):
        pass


def read_damaged(path: Path, data: bytes) -> DamagedInputError:
    path.write_bytes(data)
    with pytest.raises(DamagedInputError) as caught:
        read(path)
    return caught.value


def test_truncated(tmp_path: Path) -> None:
    """Of a packed file that was cut short, all whole lines before the cut are kept, sorted."""
    packed = gzip.compress(TEXT)
    damage = read_damaged(tmp_path / "log.gz", packed[: len(packed) // 2])
    assert 5_000 < damage.lines_read < len(LINES)
    assert len(damage.outcomes) == damage.lines_read
    assert damage.outcomes[-1].at_us == 5_000_000 * 1_000_000
    assert f"after line {damage.lines_read}: " in str(damage)
    assert "ended before" in str(damage)


def test_cut_by_a_few_bytes(tmp_path: Path) -> None:
    """A packed file that lacks only its last bytes loses no line."""
    damage = read_damaged(tmp_path / "log.gz", gzip.compress(TEXT)[:-8])
    assert damage.lines_read == len(LINES)


def test_overwritten(tmp_path: Path) -> None:
    """Damage in the middle of a packed file, or other bytes after it, are told, and the lines before are kept."""
    packed = bytearray(gzip.compress(TEXT))
    packed[len(packed) // 2 : len(packed) // 2 + 50] = b"\xff" * 50
    damage = read_damaged(tmp_path / "middle.gz", bytes(packed))
    # A bit that is wrong may show only at the sum at the end: then all lines were read, some of them bad.
    assert damage.lines_read > 5_000
    assert read_damaged(tmp_path / "after.gz", gzip.compress(TEXT) + b"more").lines_read == len(LINES)


def test_wrong_checksum(tmp_path: Path) -> None:
    """A packed file whose sum is wrong is told after all its lines."""
    packed = bytearray(gzip.compress(TEXT))
    packed[-8] ^= 1
    damage = read_damaged(tmp_path / "log.gz", bytes(packed))
    assert damage.lines_read == len(LINES)
    assert "CRC" in str(damage)
