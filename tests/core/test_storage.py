"""When the disk is full, and what is advised, from figures alone."""

from __future__ import annotations

import pytest

from breaker_store.core.storage import (
    Part,
    Storage,
    advise_interval,
    advise_retention,
    days_until_full,
)

GB, MB = 10**9, 10**6


def part(name: str = "outcomes", size: int = 0, a_day: float = GB, keep_days: int | None = None) -> Part:
    return Part(name, size, a_day, keep_days)


@pytest.mark.parametrize(
    ("parts", "free", "days"),
    [
        ([part()], 10 * GB, 10),
        ([part()], 10 * GB + 1, 10),
        ([part()], 10 * GB - 1, 9),
        ([part()], 0, 0),
        ([part(), part("ledger")], 10 * GB, 5),
        ([part(a_day=0)], 1, None),
        ([part(keep_days=30)], 31 * GB, None),
        ([part(keep_days=30)], 31 * GB - 1, 30),
        ([part(size=31 * GB, keep_days=30)], 0, None),
        ([part(size=90 * GB, keep_days=30)], 0, None),
        ([part(size=31 * GB, keep_days=30), part("ledger", a_day=GB / 10)], GB, 10),
    ],
)
def test_the_disk_is_full_when_what_grows_has_taken_the_room(
    parts: list[Part], free: int, days: int | None
) -> None:
    """What a policy holds at its size grows until it has come to it, and no more."""
    assert days_until_full(parts, free) == days


def storage(events: float, history: float, memory: int = 128 * MB) -> Storage:
    return Storage(0, events, 7, None, None, None, history, memory, [])


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        (storage(0, 0), "no event was stored lately"),
        (storage(100, 5_000), "weeks would do, but days cost next to nothing"),
        (storage(10**6, 50 * MB), "partitions of a day fit"),
        (storage(10**8, 5 * GB), "raise shared_buffers to 15 GB"),
    ],
)
def test_whether_days_fit_is_told_with_the_reason(measured: Storage, told: str) -> None:
    assert told in advise_interval(measured)


def test_a_policy_is_advised_for_what_grows_and_is_kept_for_ever() -> None:
    parts = [
        *(part("outcomes"), part("minutes", a_day=10), part("hours", keep_days=400)),
        *(part("days"), part("ledger"), part("transitions")),
    ]
    assert advise_retention(parts) == [
        "outcomes are kept for ever: `breaker-store retention set outcomes 30d` would hold them at about 31 GB"
    ]
