"""The spans of time by which a history is told."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from breaker_store.core.buckets import Bucket, Span, join
from breaker_store.postgres.codec import microseconds, to_datetime


@pytest.mark.parametrize(
    ("bucket", "begin"),
    [
        (Bucket.MINUTE, datetime(1969, 12, 31, 23, 59, tzinfo=UTC)),
        (Bucket.HOUR, datetime(1969, 12, 31, 23, tzinfo=UTC)),
        (Bucket.DAY, datetime(1969, 12, 31, tzinfo=UTC)),
    ],
)
def test_a_bucket_begins_with_a_whole_minute_hour_or_day(bucket: Bucket, begin: datetime) -> None:
    assert to_datetime(bucket.begin(-1)) == begin
    assert bucket.begin(microseconds(begin)) == microseconds(begin)


def test_a_span_is_made_of_its_buckets() -> None:
    hour = Span(0, Bucket.HOUR.length_us)
    assert list(join(Bucket.MINUTE, hour.starts(Bucket.MINUTE))) == [hour]


def test_buckets_that_do_not_follow_one_another_stay_apart() -> None:
    minute = Bucket.MINUTE.length_us
    starts = [0, minute, 5 * minute]
    assert list(join(Bucket.MINUTE, starts)) == [Span(0, 2 * minute), Span(5 * minute, 6 * minute)]
    assert list(join(Bucket.MINUTE, [])) == []


@pytest.mark.parametrize(("other", "overlaps"), [((1, 2), False), ((0, 1), True), ((-5, 0), False)])
def test_a_span_ends_before_its_end(other: tuple[int, int], overlaps: bool) -> None:
    assert Span(0, 1).overlaps(Span(*other)) is overlaps
