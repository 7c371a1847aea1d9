"""Outcomes that happened elsewhere, read from lines of text: what all formats have in common.

A line's identity is its content and its ordinal among equal lines of the input, in 16 bytes. So an input that is
read again gives the same identities, and one that grew gives its new lines as new ones. Identities are stored for
ever: what goes into them (`LineIdentities`, and where a line ends) must not change.

A line ends with LF or CR LF, which are no part of its content; neither is a byte order mark before the first line.
The input may be a file that is being written. Its last line, if it has no line end, counts only if it shows by
itself that it is whole: half of a line, taken for a whole one, would be a line of another identity, and the whole
line would be imported beside it next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from operator import attrgetter
from typing import BinaryIO, Protocol

from breaker_store.errors import BreakerStoreError

IDENTITY_BYTES = 16
MAXIMUM_LINE_BYTES = 1 << 20
SHOWN_CHARACTERS = 200

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_END_US = (datetime(2200, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ImportedOutcome:
    """What became of one call, as a line tells it.

    Attributes:
        user_id: signed 64 bits.
        at_us: end of the call, in microseconds since the Unix epoch (UTC), from 1970 up to the end of 2199.
        duration_us: not negative, signed 64 bits; None if the line does not say.
        operation, error_type, error_message: neither cleaned of secrets nor cut, since a secret that is cut in
            half is no longer recognized; they may hold NUL and lone surrogates. None if the line does not say.
        line: the line's identity, 16 bytes.

    """

    user_id: int
    at_us: int
    succeeded: bool
    duration_us: int | None
    operation: str | None
    error_type: str | None
    error_message: str | None
    line: bytes


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that gave no outcome.

    Attributes:
        number: of the line in the input, from 1; blank lines are numbered too.
        reason, beginning: at most 200 characters, printable (all others as backslash escapes), not cleaned of secrets.

    """

    number: int
    reason: str
    beginning: str


class DamagedInputError(BreakerStoreError):
    """The input is damaged or broke off; what could be read before is not lost.

    Attributes:
        lines_read: whole lines that could be read, bad and blank ones too.
        outcomes: of those lines, sorted as `read_outcomes` sorts them.

    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lines_read = 0
        self.outcomes: list[ImportedOutcome] = []

    def __str__(self) -> str:
        return f"the input is damaged after line {self.lines_read}: {self.reason}"


class LineParser(Protocol):
    """One format of lines."""

    @property
    def format_name(self) -> str:
        """At most 16 ASCII characters; a part of each line's identity."""

    @property
    def closing(self) -> bytes:
        """What a whole line ends with, as far as the format has such a mark."""

    def __call__(self, line: bytes, identity: bytes) -> ImportedOutcome:
        """Read one line, given without its end.

        Raises:
            ValueError: the line tells no outcome; the text is the reason. Nothing else is raised.

        """


class LineIdentities:
    """Gives out the identities of one input's lines, in the input's order.

    Keeps about 100 bytes for each line that differs from all before it.
    """

    __slots__ = ("_format", "_times_seen")

    def __init__(self, format_name: str) -> None:
        self._format = format_name.encode("ascii")
        self._times_seen: dict[bytes, int] = {}

    def take_next(self, line: bytes) -> bytes:
        content = blake2b(line, digest_size=IDENTITY_BYTES, person=self._format).digest()
        ordinal = self._times_seen.get(content, 0)
        self._times_seen[content] = ordinal + 1
        if ordinal == 0:
            return content
        again = content + ordinal.to_bytes(8, "big")
        return blake2b(again, digest_size=IDENTITY_BYTES, person=self._format, salt=b"ordinal").digest()


def read_outcomes(
    stream: BinaryIO, parse: LineParser, on_bad_line: Callable[[BadLine], None]
) -> list[ImportedOutcome]:
    """Read all outcomes, sorted by time; those of one time stay in the input's order.

    Blank lines are ignored. Lines of more than 1 MiB are bad. Takes memory for each line: about 400 bytes, and its
    texts, of which equal operations are mostly shared.

    `on_bad_line` hears of each bad line while reading; what it raises ends the reading.

    Raises:
        DamagedInputError: the input broke off; the error carries the outcomes of the lines before.

    """
    outcomes: list[ImportedOutcome] = []
    identities = LineIdentities(parse.format_name)
    number = 0
    try:
        for line in _whole_lines(stream):
            number += 1
            content = _strip_end(line)
            if not content or content.isspace():
                continue
            try:
                _check_whole(line, content, parse.closing)
                outcomes.append(parse(content, identities.take_next(content)))
            except ValueError as problem:
                on_bad_line(_describe_bad_line(number, str(problem), content))
    except DamagedInputError as damage:
        damage.lines_read = number
        damage.outcomes = _sort_by_time(outcomes)
        raise
    return _sort_by_time(outcomes)


def count_microseconds(moment: datetime) -> int:
    """Count microseconds from the Unix epoch to an aware datetime, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def check_time(at_us: int) -> int:
    """Give the time back if the log has a place for it: from 1970 up to the end of 2199; else ValueError."""
    if not 0 <= at_us < _END_US:
        raise ValueError("the time is not from 1970 up to the end of 2199")
    return at_us


def _whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield lines with their ends; of one that is too long only the beginning."""
    line = stream.readline(MAXIMUM_LINE_BYTES + 2).removeprefix(_BYTE_ORDER_MARK)
    while line:
        yield line
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAXIMUM_LINE_BYTES)
        line = stream.readline(MAXIMUM_LINE_BYTES + 2)


def _strip_end(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _check_whole(line: bytes, content: bytes, closing: bytes) -> None:
    if len(content) > MAXIMUM_LINE_BYTES:
        raise ValueError(f"the line is longer than {MAXIMUM_LINE_BYTES} bytes")
    if not line.endswith((b"\n", closing)):
        raise ValueError(
            "the last line has no line end, and may be half of a line that is still being written"
        )


def _describe_bad_line(number: int, reason: str, content: bytes) -> BadLine:
    # Four bytes are the longest character of UTF-8.
    beginning = content[: 4 * SHOWN_CHARACTERS].decode("utf-8", "backslashreplace")
    return BadLine(number, _cut_printable(reason), _cut_printable(beginning))


def _cut_printable(text: str) -> str:
    """Escape what would steer a terminal."""
    printable = (
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text[:SHOWN_CHARACTERS]
    )
    return "".join(printable)[:SHOWN_CHARACTERS]


def _sort_by_time(outcomes: list[ImportedOutcome]) -> list[ImportedOutcome]:
    return sorted(outcomes, key=attrgetter("at_us"))
