"""What the callers of one process were told, and how much of that must outlive it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from breaker_store.core.events import EventId
from breaker_store.settings import Durability


@dataclass(frozen=True)
class Told:
    """What somebody knows: that a call is over, or was refused; and the breaker's last transition."""

    name: str | None
    refused_user: int | None
    transition: EventId | None


@dataclass
class History:
    """One process's.

    What was written down holds everything before it as well: all of that is certain. A call that waited for its commit
    is certain, with all that was told before it was over, and not what came in between.

    Attributes:
        told: in its order.
        committed: the names of calls that waited for their commit.
        waiting: the names of calls that are over, and of which nobody was told.
        certain_count: so many of the first in `told` must be kept.

    """

    told: list[Told] = field(default_factory=list)
    committed: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    certain_count: int = 0

    def end_call(self, name: str) -> int:
        """Note that a call is over; give how much was told before it."""
        self.waiting.add(name)
        return len(self.told)

    def tell(self, news: Told, durability: Durability, told_before: int) -> None:
        if news.name is not None:
            self.waiting.remove(news.name)
        if durability is Durability.COMMITTED and news.name is not None:
            self.committed.add(news.name)
            self.certain_count = max(self.certain_count, told_before)
            return
        self.told.append(news)
        if durability is not Durability.BEHIND:
            self.certain_count = len(self.told)

    def be_certain(self) -> None:
        """Note that the process came to its end: nothing may be missing."""
        self.certain_count = len(self.told)

    @property
    def certain(self) -> list[Told]:
        return self.told[: self.certain_count]

    @property
    def certain_names(self) -> set[str]:
        return {each.name for each in self.certain if each.name is not None} | self.committed

    @property
    def names(self) -> set[str]:
        return {each.name for each in self.told if each.name is not None} | self.committed

    @property
    def certain_transitions(self) -> set[EventId]:
        return {each.transition for each in self.certain if each.transition is not None}


def count_refusals(told: list[Told]) -> Counter[int]:
    return Counter(each.refused_user for each in told if each.refused_user is not None)
