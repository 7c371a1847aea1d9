from __future__ import annotations

import io
import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from breaker_store.importing.formats import MAXIMUM_LINE_BYTES, BadLine, ImportedOutcome, read_outcomes

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class SecondsFormat:
    """Lines such as `12 any text;`: a time in whole seconds, and the rest as the operation."""

    format_name: str = "seconds"
    closing: bytes = b";"

    def __call__(self, line: bytes, identity: bytes) -> ImportedOutcome:
        seconds, _, rest = line.decode("latin-1").partition(" ")
        return ImportedOutcome(1, int(seconds) * 1_000_000, True, None, rest, None, None, identity)


def read(data: bytes, parse: SecondsFormat = SecondsFormat()) -> tuple[list[ImportedOutcome], list[BadLine]]:
    bad_lines: list[BadLine] = []
    return read_outcomes(io.BytesIO(data), parse, bad_lines.append), bad_lines


def identities(data: bytes) -> list[bytes]:
    return [outcome.line for outcome in read(data)[0]]


def test_sorting() -> None:
    """Outcomes come in the order of their times, those of one time in the order of the input."""
    outcomes, _ = read(b"3 a;\n1 b;\n3 c;\n2 d;\n1 e;\n3 f;\n")
    assert [outcome.operation for outcome in outcomes] == ["b;", "e;", "d;", "a;", "c;", "f;"]


def test_empty_input() -> None:
    """An input of no bytes, or of blank lines only, has no outcomes and no bad lines."""
    assert read(b"") == ([], [])
    assert read(b"\n \n\r\n\t\n\n  ") == ([], [])


def test_numbers_of_bad_lines() -> None:
    """A bad line is told with its number among all lines, and the others are read."""
    outcomes, bad_lines = read(b"1 a;\n\nx b;\n2 c;\n")
    assert [outcome.operation for outcome in outcomes] == ["a;", "c;"]
    assert [(bad.number, bad.beginning) for bad in bad_lines] == [(3, "x b;")]


def test_stopping_at_a_bad_line() -> None:
    """What the listener to bad lines raises ends the reading."""

    def stop(bad: BadLine) -> None:
        raise KeyError(bad.number)

    with pytest.raises(KeyError, match="2"):
        read_outcomes(io.BytesIO(b"1 a;\nx\ny\n"), SecondsFormat(), stop)


def test_line_ends() -> None:
    """LF, CR LF, no end at all and a byte order mark make no other line of it."""
    plain = identities(b"1 a;\n2 b;\n")
    assert identities(b"1 a;\r\n2 b;\r\n") == plain
    assert identities(b"1 a;\n2 b;") == plain
    assert identities(b"\xef\xbb\xbf1 a;\n2 b;\n") == plain


def test_half_written_last_line() -> None:
    """A last line without an end is a bad one if it may be half of a line, and good once it is whole."""
    outcomes, bad_lines = read(b"1 a;\n2 b")
    assert len(outcomes) == 1
    assert [bad.number for bad in bad_lines] == [2]
    assert "still being written" in bad_lines[0].reason
    assert len(read(b"1 a;\n2 b\n")[0]) == 2


def test_formats_differ() -> None:
    """The same line in another format has another identity."""
    other, _ = read(b"1 a;\n", SecondsFormat("other"))
    assert [outcome.line for outcome in other] != identities(b"1 a;\n")


def test_identities_never_change() -> None:
    """A line's identity, and that of its repetition, are those that earlier versions stored."""
    assert [identity.hex() for identity in identities(b"1 a;\n1 a;\n")] == [
        "24e3d3b0a850b0aadc9117efcaa5e3e1",
        "577cecfe148a082168c7221de8a6eb20",
    ]


@PATIENT
@given(st.lists(st.sampled_from([b"1 a;", b"1 b;", b"2 a;", b"", b"bad"]), max_size=30), st.integers(0, 30))
def test_a_file_that_grew(lines: list[bytes], cut: int) -> None:
    """What grew has the identities of what it was before, and new ones for its new lines."""
    old = Counter(identities(b"".join(line + b"\n" for line in lines[:cut])))
    grown = Counter(identities(b"".join(line + b"\n" for line in lines)))
    assert all(count == 1 for count in grown.values())
    assert old <= grown
    assert grown.total() - old.total() == sum(line not in {b"", b"bad"} for line in lines[cut:])


@PATIENT
@given(st.lists(st.sampled_from([b"1 a;", b"1 b;", b"2 a;"]), max_size=20), st.randoms(use_true_random=False))
def test_order_of_lines(lines: list[bytes], shuffler: random.Random) -> None:
    """The same lines in another order have the same identities."""
    shuffled = shuffler.sample(lines, len(lines))
    assert Counter(identities(b"\n".join(lines))) == Counter(identities(b"\n".join(shuffled)))


@PATIENT
@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    """Any bytes are read to their end, and each line that is not blank is an outcome or a bad line."""
    outcomes, bad_lines = read(data)
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert len(outcomes) + len(bad_lines) == sum(bool(line) and not line.isspace() for line in lines)


def test_longest_line() -> None:
    """A line of 1 MiB is read, a longer one is bad, and the lines after it are read."""
    longest = b"1 " + b"a" * (MAXIMUM_LINE_BYTES - 3) + b";"
    outcomes, bad_lines = read(longest + b"\r\n" + longest + b"!\r\n" + longest * 3 + b"\n2 b;\n")
    assert [outcome.at_us for outcome in outcomes] == [1_000_000, 2_000_000]
    assert [bad.number for bad in bad_lines] == [2, 3]
    assert all("longer" in bad.reason for bad in bad_lines)


def test_bad_line_on_a_terminal() -> None:
    """A bad line's beginning is short, and has nothing in it that steers a terminal."""
    _, (bad,) = read(b"\x1b[31mred \xff \xc3\xa9 \r\x00" + b"\x00" * 1000 + b"\n")
    assert bad.beginning.startswith("\\x1b[31mred \\xff é \\r\\x00")
    assert len(bad.beginning) == 200
    assert bad.beginning.isprintable()
    assert bad.reason.isprintable()
