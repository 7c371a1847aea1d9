"""How long calls took, in buckets that add up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from breaker_store.core.histogram import Histogram, bucket_begin_us, bucket_of, quantiles_us

durations = some.integers(0, 2**45)


@given(durations)
def test_a_duration_lies_within_its_bucket_of_at_most_an_eighth(duration_us: int) -> None:
    bucket = bucket_of(duration_us)
    begin, end = bucket_begin_us(bucket), bucket_begin_us(bucket + 1)
    assert begin <= max(1, duration_us) < end
    assert end - begin <= begin / 8


@given(some.lists(durations), some.lists(durations))
def test_adding_histograms_is_the_histogram_of_all(one: list[int], other: list[int]) -> None:
    assert Histogram.of(one) + Histogram.of(other) == Histogram.of(one + other)


@given(some.lists(durations, min_size=1), some.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_duration_that_it_estimates(
    found: list[int], share: float
) -> None:
    [estimate] = quantiles_us(Histogram.of(found).packed(), [share])
    exact = next(duration for number, duration in enumerate(sorted(found), 1) if number >= share * len(found))
    bucket = bucket_of(exact)
    assert estimate is not None
    assert bucket_begin_us(bucket) <= estimate <= bucket_begin_us(bucket + 1)


def test_without_calls_there_is_no_quantile() -> None:
    assert quantiles_us(Histogram().packed(), [0.5, 0.9]) == [None, None]


@given(some.lists(durations))
def test_a_histogram_can_be_packed_and_unpacked(found: list[int]) -> None:
    packed = Histogram.of(found).packed()
    assert packed == sorted(packed)
    assert Histogram.unpack(packed) == Histogram.of(found)
