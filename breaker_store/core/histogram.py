"""How long calls took, as counts in fixed buckets that add up exactly.

The buckets are log-linear: each power of two of microseconds is divided into eight, so that a bucket is at most an
eighth wide of where it begins. They are the same everywhere and for ever: two histograms are added bucket by bucket,
and nothing is lost by adding first. A bucket's number is what the exponent and the first three bits of the mantissa of
the IEEE 754 double say; Postgres finds it among the buckets' beginnings, which are doubles without a remainder, so that
both count the same.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Self, TypeVar

BUCKETS_IN_DOUBLING: Final = 8
COUNT_BITS: Final = 40
COUNT_MASK: Final = 2**COUNT_BITS - 1
_BITS: Final = 3

Key = TypeVar("Key", int, str)
_EXPONENT_OF_ONE: Final = 1_023 << _BITS


def bucket_of(duration_us: int) -> int:
    """Give the number of the bucket that a duration falls into, from 0; all below 2 microseconds share the first eight."""
    [leading] = struct.unpack_from(">H", struct.pack(">d", max(1, duration_us)))
    return int(leading >> 1) - _EXPONENT_OF_ONE


def bucket_begin_us(bucket: int) -> float:
    """Give where a bucket begins; it ends where the next one begins."""
    doublings, eighths = divmod(bucket, BUCKETS_IN_DOUBLING)
    return math.ldexp(1 + eighths / BUCKETS_IN_DOUBLING, doublings)


def add_counts(counts: Mapping[Key, int], more: Mapping[Key, int]) -> dict[Key, int]:
    """Add what was counted by the same keys; as two Counters are added, in a third of the time."""
    added = dict(counts)
    for key, count in more.items():
        added[key] = added.get(key, 0) + count
    return added


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many calls fell into which bucket; buckets without any are left out."""

    counts: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, durations_us: Iterable[int]) -> Self:
        return cls(Counter(map(bucket_of, durations_us)))

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(add_counts(self.counts, other.counts))

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def packed(self) -> list[int]:
        """Give it as roll-ups keep it: for each bucket that has calls, in ascending order, ``bucket * 2^40 + calls``."""
        return [(bucket << COUNT_BITS) + self.counts[bucket] for bucket in sorted(self.counts)]

    @classmethod
    def unpack(cls, packed: Iterable[int]) -> Self:
        """Read what `packed` gave."""
        return cls({number >> COUNT_BITS: number & COUNT_MASK for number in packed})


BUCKET_BEGINS_US: Final = [bucket_begin_us(bucket) for bucket in range(64 * BUCKETS_IN_DOUBLING + 1)]
"""Where each bucket begins that a column of 64 bits can need, and where the last one ends."""


def quantiles_us(packed: Sequence[int], shares: Sequence[float]) -> list[float | None]:
    """Give the durations that so great shares of a histogram's calls did not exceed; None if there were none.

    Within the bucket, at most an eighth wide, the calls are taken to lie evenly (as Prometheus' ``histogram_quantile`` does).
    It takes the packed form, since of a history there are hundreds, and of each a few buckets matter.

    shares: above 0 and up to 1.
    """
    # Added up as they are: below the buckets stands how many calls there were so far.
    seen = list(accumulate(packed))
    if not seen:
        return [None] * len(shares)
    found: list[float | None] = []
    for share in shares:
        wanted = share * (seen[-1] & COUNT_MASK)
        place = bisect_left(seen, wanted, key=COUNT_MASK.__and__)
        bucket, count = packed[place] >> COUNT_BITS, packed[place] & COUNT_MASK
        begin, end = BUCKET_BEGINS_US[bucket], BUCKET_BEGINS_US[bucket + 1]
        found.append(end - (end - begin) * ((seen[place] & COUNT_MASK) - wanted) / count)
    return found
