"""A file is gone through a chunk at a time, wherever the chunks end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from breaker_store.spool.records import CHUNK, GREATEST_PAYLOAD, Scan, Stretch, frame, pack_prefix

SEED = 5
SHORT = pack_prefix(1, 1, 1, 1)
LONGEST = SHORT + bytes(GREATEST_PAYLOAD - len(SHORT))


class File:
    """Bytes that are read like a file's; `size` is how many there seem to be."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[int] = []

    def read_at(self, count: int, offset: int) -> bytes:
        self.reads.append(count)
        return self.data[offset : offset + count]

    def scan(self, size: int | None = None) -> list[bytes | Stretch]:
        scan = Scan(self.read_at, len(self.data) if size is None else size, SEED)
        return list(iter(scan.next, None))


@pytest.mark.parametrize("payload", [SHORT, LONGEST], ids=["short", "longest"])
@pytest.mark.parametrize("at", [*range(CHUNK - 3, CHUNK + 50), 2 * CHUNK + 27, 2 * CHUNK + 26])
def test_a_record_is_found_wherever_a_chunk_ends_in_it(payload: bytes, at: int) -> None:
    data = b"?" * at + frame(payload, SEED)
    assert File(data).scan() == [Stretch(0, at), payload]
    whole = frame(bytes(SHORT) + bytes(at - len(frame(SHORT, SEED))), SEED)
    assert len(whole) == at
    assert File(whole + frame(payload, SEED)).scan()[1:] == [payload]


@pytest.mark.parametrize("make", [lambda: b"?" * (8 * CHUNK), lambda: frame(SHORT, SEED) * 20_000])
def test_no_more_than_a_chunk_is_read_at_once(make: Callable[[], bytes]) -> None:
    file = File(make())
    file.scan()
    assert max(file.reads) <= CHUNK + 100
    assert sum(file.reads) < len(file.data) * 1.1 + CHUNK


def test_a_file_that_is_shorter_than_it_should_be_ends_where_it_ends() -> None:
    record = frame(SHORT, SEED)
    file = File(record + b"?")
    assert file.scan(size=50 * CHUNK) == [SHORT, Stretch(len(record), 1)]
    assert len(file.reads) < 5


@pytest.mark.parametrize("payload", [b"", SHORT[:-1], LONGEST + b"x"], ids=["empty", "too short", "too long"])
def test_what_no_record_can_be_is_none(payload: bytes) -> None:
    data = frame(payload, SEED)
    assert File(data).scan() == [Stretch(0, len(data))]
