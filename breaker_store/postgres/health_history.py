"""The history of a bot's or a fleet's health, in buckets: which of them an answer lists, and what it tells of each.

Every bucket of the range is listed, so that gaps are there as gaps: one without calls, one that is not counted yet, and
one of which nothing is kept are told apart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final, TypeAlias, TypeVar

from breaker_store.core.buckets import Bucket, Span
from breaker_store.core.health import Tally
from breaker_store.core.histogram import COUNT_MASK, quantiles_us
from breaker_store.errors import StoreError
from breaker_store.postgres.codec import microseconds, to_datetime

LARGEST_HISTORY: Final = 1_500
"""How many buckets an answer has at most: a day of minutes, two months of hours, four years of days."""

DEFAULT_LENGTHS: Final = {Bucket.MINUTE: 60, Bucket.HOUR: 24, Bucket.DAY: 30}
"""How many buckets a history has that does not say since when."""

QUANTILES: Final = (0.5, 0.95, 0.99)

Figures: TypeAlias = tuple[
    int | None,
    int | None,
    int | None,
    int | None,
    float | None,
    float | None,
    float | None,
    float | None,
    float | None,
    dict[str, int] | None,
]
NOTHING_KNOWN: Final[Figures] = (None, None, None, None, None, None, None, None, None, None)

_EARLIEST: Final = microseconds(datetime.min.replace(tzinfo=UTC))


class HistoryRangeError(StoreError):
    """A history would have too many buckets for one answer.

    Attributes:
        bucket: how long each would be.
        count: how many there would be.

    """

    def __init__(self, bucket: Bucket, count: int) -> None:
        super().__init__(bucket, count)
        self.bucket = bucket
        self.count = count

    def __str__(self) -> str:
        return (
            f"that would be {self.count:,} parts of a {self.bucket}, and an answer has at most {LARGEST_HISTORY:,}: "
            "ask for less time, or for longer parts"
        )


class Coverage(StrEnum):
    """What the figures of a bucket cover.

    COMPLETE: all that happened in it. RUNNING: it is not over, and this is all so far. PENDING: something is still to be
    counted, and the figures are what was counted so far, or null. NOT_KEPT: nothing is kept that would tell; the figures are null.
    """

    COMPLETE = "complete"
    RUNNING = "running"
    PENDING = "pending"
    NOT_KEPT = "not_kept"


@dataclass(frozen=True, slots=True)
class HistoryRange:
    """Which buckets: from the one that holds `since` up to the one that holds what is before `until`.

    Attributes:
        since: None is a usual length before `until`; see `DEFAULT_LENGTHS`.
        until: None, or a time to come, is now: buckets that have not begun are not listed.

    """

    bucket: Bucket
    since: datetime | None = None
    until: datetime | None = None

    def span(self, now: int) -> Span:
        """Give the whole buckets that it is made of.

        Raises:
            HistoryRangeError: they are too many.

        """
        length = self.bucket.length_us
        last = now if self.until is None else min(now, microseconds(self.until) - 1)
        end = self.bucket.begin(last) + length
        usual = end - DEFAULT_LENGTHS[self.bucket] * length
        begin = max(usual, _EARLIEST) if self.since is None else self.bucket.begin(microseconds(self.since))
        span = Span(begin, max(begin, end))
        if len(span.starts(self.bucket)) > LARGEST_HISTORY:
            raise HistoryRangeError(self.bucket, len(span.starts(self.bucket)))
        return span


# Not frozen: that would make it four times as slow to make, and a history has hundreds.
@dataclass(slots=True)
class HistoryItem:
    """One bucket of a history.

    Attributes:
        coverage: what the figures cover; where nothing is known they are null.
        total_requests: refused ones among them.
        refused_requests: by the breaker: no failures.
        error_rate: failures among the calls that were made, 0 to 1; null if there was none.
        mean_ms, p50_ms, p95_ms, p99_ms: how long calls took; null if of none it is known.
        error_types: of failures that have one.

    """

    started_at: datetime
    coverage: Coverage
    total_requests: int | None
    successful_requests: int | None
    failed_requests: int | None
    refused_requests: int | None
    error_rate: float | None
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    error_types: dict[str, int] | None


Item = TypeVar("Item", bound=HistoryItem)

FIGURES_AS_JSON: Final = """
CROSS JOIN LATERAL (
    SELECT
        successes + failures + refusals AS total_requests,
        successes AS successful_requests,
        failures AS failed_requests,
        refusals AS refused_requests,
        failures::float8 / nullif(successes + failures, 0) AS error_rate,
        duration_us::float8 / nullif(timed_calls, 0) / 1000 AS mean_ms,
        p50_us / 1000 AS p50_ms,
        p95_us / 1000 AS p95_ms,
        p99_us / 1000 AS p99_ms,
        coalesce(error_types, '{}') AS error_types
) AS figures
"""
"""Joins the figures to the roll-ups of hours, of days or of a fleet, in the order of a `HistoryItem`."""

_NAMES: Final = tuple(HistoryItem.__dataclass_fields__)[2:]
_compact: Final = json.JSONEncoder(separators=(",", ":")).encode


def write_figures(told: Figures) -> str:
    """Write figures as JSON, as `FIGURES_AS_JSON` gives them."""
    return _compact(dict(zip(_NAMES, told, strict=True)))


def write_item(start: int, coverage: Coverage, told: str) -> str:
    """Write a `HistoryItem` as JSON, of figures that are written already."""
    return f'{{"started_at":"{_write_start(start)}","coverage":"{coverage}",{told[1:]}'


# Answers are mostly of the same times.
@lru_cache(2 * LARGEST_HISTORY)
def _write_start(start: int) -> str:
    # Buckets begin with a second.
    return f"{to_datetime(start).isoformat()[:19]}Z"


def read_item(kind: type[Item], text: str) -> Item:
    """Read what was written as JSON."""
    fields = json.loads(text)
    started_at, coverage = fields.pop("started_at"), fields.pop("coverage")
    return kind(datetime.fromisoformat(started_at), Coverage(coverage), **fields)


def figures(tally: Tally | None) -> Figures:
    """Give the fields of a `HistoryItem` that tell what happened."""
    if tally is None:
        return NOTHING_KNOWN
    sums = tally.successes, tally.failures, tally.refusals, tally.duration_us
    return make_figures(*sums, tally.durations.packed(), dict(tally.error_types))


def make_figures(  # noqa: PLR0913, PLR0917 - each is another fact
    successes: int,
    failures: int,
    refusals: int,
    duration_us: int,
    durations: Sequence[int],
    error_types: dict[str, int],
) -> Figures:
    """Give the same from what a roll-up has; `durations` is the packed histogram."""
    calls = successes + failures
    p50, p95, p99 = quantiles_us(durations, QUANTILES)
    timed = sum(durations) & COUNT_MASK
    return (
        calls + refusals,
        successes,
        failures,
        refusals,
        failures / calls if calls else None,
        duration_us / timed / 1_000 if timed else None,
        None if p50 is None else p50 / 1_000,
        None if p95 is None else p95 / 1_000,
        None if p99 is None else p99 / 1_000,
        error_types,
    )
