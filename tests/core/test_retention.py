from __future__ import annotations

import pytest

from breaker_store.core.retention import LONGEST_DAYS, read_days


def test_days_are_written_with_their_unit() -> None:
    assert [read_days(text) for text in ("1d", "30d", f"{LONGEST_DAYS}d")] == [1, 30, LONGEST_DAYS]


@pytest.mark.parametrize("text", ["", "30", "0d", "030d", "-1d", "1.5d", "30 d", "30D", "2h", "36501d", "٣d"])
def test_what_is_no_number_of_days_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ValueError, match="as in 30d"):
        read_days(text)
