"""How many retries a whole fleet may make, so that they don't make an outage worse.

Each call that is made adds a share of a retry, and each second adds a few, for a fleet with few calls; a retry takes a
whole one. So when everything fails, the service sees no more than its usual load and that share of it, however many
attempts each call would like. The idea is Finagle's `RetryBudget` (com.twitter.finagle.service).

No bot may have taken more of late than there is left for all: so one whose calls fail all the time, or come too fast,
leaves others theirs, and one that is alone in having trouble still gets nearly all there is. (Switches share their memory
among ports by this rule: Choudhury and Hahne, "Dynamic queue length thresholds", 1998.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

NANOSECONDS = 1_000_000_000
LATE_SECONDS = 10.0


@dataclass(slots=True)
class Taken:
    """How many retries one bot has taken of late: each weighs less with time, after ten seconds a third."""

    retries: float = 0.0
    at_ns: int = 0

    def fade(self, now_ns: int) -> None:
        self.retries *= math.exp((self.at_ns - now_ns) / NANOSECONDS / LATE_SECONDS)
        self.at_ns = now_ns


class RetryBudget:
    """The retries that a fleet has left.

    Args:
        share: retries for each call that is made, 0 to 1.
        per_second: retries that there are besides, from 0.
        most: how many may be saved up, from 1.
        monotonic_ns: the clock of the registry.

    Raises:
        ValueError: one of them is out of its bounds.

    """

    __slots__ = ("_left", "_looked_ns", "_monotonic_ns", "_most", "_per_second", "_share")

    def __init__(
        self,
        monotonic_ns: Callable[[], int],
        *,
        share: float = 0.1,
        per_second: float = 5.0,
        most: float = 100.0,
    ) -> None:
        if not 0 <= share <= 1 or not per_second >= 0 or not most >= 1:
            raise ValueError(
                f"a budget has a share of 0 to 1, 0 or more a second and at most 1 or more, not {share}, "
                f"{per_second} and {most}"
            )
        self._share, self._per_second, self._most = share, per_second, most
        self._monotonic_ns = monotonic_ns
        self._looked_ns = monotonic_ns()
        self._left = min(most, max(1.0, 2 * per_second)) if share or per_second else 0.0

    @property
    def left(self) -> float:
        """How many retries could be made now."""
        now_ns = self._monotonic_ns()
        gained = (now_ns - self._looked_ns) / NANOSECONDS * self._per_second
        self._looked_ns = now_ns
        self._left = min(self._most, self._left + gained)
        return self._left

    def earn(self) -> None:
        """Hear of a call that is made."""
        self._left += self._share

    def spend(self, taken: Taken) -> bool:
        """Take a retry if there is one left for a bot that has taken so many."""
        left = self.left
        taken.fade(self._looked_ns)
        if left < 1 or taken.retries + 1 > left:
            return False
        taken.retries += 1
        self._left -= 1
        return True
