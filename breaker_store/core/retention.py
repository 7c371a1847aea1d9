"""For how long what is kept: nothing goes until somebody says so, and transitions never do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

LONGEST_DAYS: Final = 36_500

_DAYS: Final = re.compile(r"([1-9][0-9]{0,4})d")


class Kept(StrEnum):
    """What a policy is for."""

    OUTCOMES = "outcomes"
    MINUTES = "minutes"
    HOURS = "hours"
    DAYS = "days"
    """The last three are roll-ups."""


ADVISED_DAYS: Final[Mapping[Kept, int | None]] = {
    Kept.OUTCOMES: 30,
    Kept.MINUTES: 7,
    Kept.HOURS: 400,
    Kept.DAYS: None,
}
"""What is advised; None is for ever. A year of hours and a month more, so that one month can be compared with the last."""


def read_days(text: str) -> int:
    """Read a number of days, as in `30d`.

    Raises:
        ValueError: it is none, or not from 1d to 36500d.

    """
    match = _DAYS.fullmatch(text)
    if match is None or int(match[1]) > LONGEST_DAYS:
        raise ValueError(f"a time to keep things is a number of days from 1d to {LONGEST_DAYS}d, as in 30d")
    return int(match[1])
