"""What the log takes on disk, how that grows, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from breaker_store.core.retention import ADVISED_DAYS, Kept
from breaker_store.core.wording import size

FAR_DAYS: Final = 36_500

_MEGABYTE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """A part of what is stored.

    Attributes:
        bytes: on disk now, with indexes.
        bytes_a_day: by how much it grew on the last days.
        keep_days: after so many days it grows no more; None for ever.

    """

    name: str
    bytes: int
    bytes_a_day: float
    keep_days: int | None = None

    def bytes_after(self, days: float) -> float:
        """Tell how large it will be after so many days like the last ones."""
        grown = self.bytes + self.bytes_a_day * days
        if self.keep_days is None:
            return grown
        # The day that runs is there beside those that are kept. What is there already goes in the course of time.
        return min(grown, max(self.bytes_a_day * (self.keep_days + 1), self.bytes))


@dataclass(frozen=True, slots=True)
class Storage:
    """What is stored, how much of it, and how it grows.

    Attributes:
        outcomes: about how many rows of outcomes are kept.
        events_a_day: on the last days.
        days_measured: how many whole days that was; 0 if there is none yet, and then today stands for a day.
        table_bytes, index_bytes, ledger_bytes: of an event; None if there is none to measure.
        history_bytes_a_day: the index of a user's history, of a day's outcomes.
        shared_buffers: what the server keeps in memory for itself.

    """

    outcomes: int
    events_a_day: float
    days_measured: int
    table_bytes: float | None
    index_bytes: float | None
    ledger_bytes: float | None
    history_bytes_a_day: float
    shared_buffers: int
    parts: Sequence[Part]

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)

    @property
    def bytes_a_day(self) -> float:
        return sum(part.bytes_a_day for part in self.parts)


def days_until_full(parts: Sequence[Part], free_bytes: int) -> int | None:
    """Tell after how many whole days like the last ones there is no room left; None if not within a century."""
    begun = sum(part.bytes for part in parts)

    def fits(days: int) -> bool:
        return sum(part.bytes_after(days) for part in parts) - begun <= free_bytes

    if fits(FAR_DAYS):
        return None
    first, last = 0, FAR_DAYS
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (middle, last) if fits(middle) else (first, middle)
    return first


def advise_interval(storage: Storage) -> str:
    """Say whether partitions of a day fit the volume: one sentence with its reason."""
    index, memory = storage.history_bytes_a_day, storage.shared_buffers
    if storage.events_a_day == 0:
        return "no event was stored lately, so nothing can be said of the partitions"
    if index > memory / 2:
        return (
            f"a day's history index is {size(round(index))}, and shared_buffers {size(memory)}: appends will wait for "
            f"the disk towards evening, so raise shared_buffers to {size(round(3 * index))}, or split users over "
            "several databases"
        )
    if index < _MEGABYTE:
        return (
            f"a day's history index is {size(round(index))}: weeks would do, but days cost next to nothing and let "
            "retention be exact"
        )
    return f"partitions of a day fit: a day's history index, {size(round(index))}, stays in shared_buffers, {size(memory)}"


def advise_retention(parts: Sequence[Part]) -> list[str]:
    """Say of what is kept for ever, against advice, how large it would stay; nothing of what hardly grows."""
    told = []
    for part in parts:
        if part.name not in set(Kept) or part.keep_days is not None or part.bytes_a_day < _MEGABYTE:
            continue
        kind = Kept(part.name)
        days = ADVISED_DAYS[kind]
        if days is not None:
            told.append(
                f"{kind} are kept for ever: `breaker-store retention set {kind} {days}d` would hold them at about "
                f"{size(round(part.bytes_a_day * (days + 1)))}"
            )
    return told
