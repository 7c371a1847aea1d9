"""The spans of time by which a history of health is told: whole minutes, hours and days, all in UTC.

Times are Unix microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from enum import StrEnum
from typing import Final, NamedTuple

_MINUTE_US: Final = 60_000_000


class Bucket(StrEnum):
    """How long the parts of a history are."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def length_us(self) -> int:
        return _LENGTHS_US[self]

    @property
    def length(self) -> timedelta:
        return timedelta(microseconds=self.length_us)

    @property
    def finer(self) -> Bucket | None:
        """What it is made of; None for a minute."""
        return _FINER[self]

    def begin(self, at: int) -> int:
        """Give where the one that holds an instant begins."""
        return at - at % self.length_us


_LENGTHS_US: Final = {Bucket.MINUTE: _MINUTE_US, Bucket.HOUR: 60 * _MINUTE_US, Bucket.DAY: 1_440 * _MINUTE_US}
_FINER: Final = {Bucket.MINUTE: None, Bucket.HOUR: Bucket.MINUTE, Bucket.DAY: Bucket.HOUR}


class Span(NamedTuple):
    """From an instant up to another, without it."""

    begin: int
    end: int

    def starts(self, bucket: Bucket) -> range:
        """Give where the buckets begin that it consists of; it begins with one."""
        return range(self.begin, self.end, bucket.length_us)

    def overlaps(self, other: Span) -> bool:
        return self.begin < other.end and other.begin < self.end


def join(bucket: Bucket, starts: Iterable[int]) -> Iterator[Span]:
    """Put buckets that follow one another together; they come in order."""
    span: Span | None = None
    for start in starts:
        if span is not None and span.end != start:
            yield span
            span = None
        span = Span(start if span is None else span.begin, start + bucket.length_us)
    if span is not None:
        yield span
