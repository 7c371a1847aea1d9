from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker_store.core.wording import counted, hour_of_day, listed, moment, quoted, shortened, size, span

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("length_us", "text"),
    [
        (0, "0 ms"),
        (999, "0 ms"),
        (12_999, "12 ms"),
        (SECOND, "1 s"),
        (3_290_000, "3.2 s"),
        (59_999_999, "59.9 s"),
        (60 * SECOND, "1 min"),
        (61 * SECOND, "1 min 1 s"),
        (3_600 * SECOND, "1 h"),
        (86_399 * SECOND, "23 h 59 min"),
        (86_400 * SECOND, "1 day"),
        (2 * 86_400 * SECOND - 1, "1 day 23 h"),
        (6 * 86_400 * SECOND, "6 days"),
    ],
)
def test_a_span_is_cut_to_its_two_largest_units(length_us, text):
    assert span(length_us) == text


def test_a_moment_is_in_utc_to_the_second():
    assert moment(1_764_126_729_999_999) == "2025-11-26 03:12:09 UTC"


@pytest.mark.parametrize("hour", [0, 3, 23])
def test_the_hour_of_the_day_is_that_of_utc(hour):
    assert hour_of_day((86_400 * 400 + hour * 3_600 + 3_599) * SECOND) == hour


def test_what_is_counted_has_its_plural():
    assert [counted(number, "probe") for number in (0, 1, 2_000)] == ["0 probes", "1 probe", "2,000 probes"]
    assert counted(2, "success", "successes") == "2 successes"


def test_a_list_ends_with_and():
    assert [listed(texts) for texts in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_what_would_steer_a_terminal_or_turn_the_text_around_is_escaped():
    assert quoted("a\n\x1b[2J\u202eb", 20) == r'"a\n\x1b[2J\u202eb"'


@given(st.text(), st.integers(1, 50))
def test_a_foreign_text_is_printable_and_cut_before_it_is_escaped(text, limit):
    shown = shortened(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit * len(r"\U0010ffff")
    if text.isprintable():
        assert shown == (text if len(text) <= limit else f"{text[: limit - 1]}…")


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1 kB"),
        (1_234_567, "1.23 MB"),
        (999_499, "999 kB"),
        (999_600, "1 MB"),
        (171 * 10**9, "171 GB"),
        (12_345 * 10**15, "12,345 PB"),
    ],
)
def test_sizes_have_three_digits_and_a_unit(count: int, written: str) -> None:
    assert size(count) == written
