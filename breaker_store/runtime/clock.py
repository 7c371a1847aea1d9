"""The one clock of a registry: monotonic, shifted once to read like Unix time.

A step of the wall clock neither lengthens nor skips a wait, since the wall clock is read once, when the registry is
made. Times that go into the log are put on the database's clock when their batch is cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable

NANOSECONDS_IN_MICROSECOND = 1_000


class Clock:
    """A clock that starts at the wall clock's time and from then on only follows the monotonic one.

    Args:
        monotonic_ns: nanoseconds on a clock that never runs backwards.
        unix_us: microseconds of Unix time at this moment; None reads the wall clock.

    """

    __slots__ = ("monotonic_ns", "origin_us")

    def __init__(
        self, monotonic_ns: Callable[[], int] = time.monotonic_ns, unix_us: int | None = None
    ) -> None:
        now_us = time.time_ns() // NANOSECONDS_IN_MICROSECOND if unix_us is None else unix_us
        self.monotonic_ns = monotonic_ns
        self.origin_us = now_us - monotonic_ns() // NANOSECONDS_IN_MICROSECOND

    def at_us(self, monotonic_ns: int) -> int:
        """Read this clock at a moment of the monotonic one, in microseconds."""
        return monotonic_ns // NANOSECONDS_IN_MICROSECOND + self.origin_us

    def now_us(self) -> int:
        return self.at_us(self.monotonic_ns())


class ManualClock(Clock):
    """A clock that stands still until it is told to go on, for tests."""

    __slots__ = ("_now_ns",)

    def __init__(self, unix_us: int = 1_700_000_000_000_000) -> None:
        self._now_ns = 0
        super().__init__(lambda: self._now_ns, unix_us)

    def advance(self, seconds: float) -> None:
        """Go on by a number of seconds, not below 0, exact to the microsecond."""
        if seconds < 0:
            raise ValueError("a monotonic clock does not run backwards")
        self._now_ns += round(seconds * 1_000_000) * NANOSECONDS_IN_MICROSECOND
