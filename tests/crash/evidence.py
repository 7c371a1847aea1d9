"""What was heard of a process from outside, before it was killed or ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from tests.crash.child import OPENED


class Acknowledgement(NamedTuple):
    """A call that had returned.

    Attributes:
        bot, call_number: whose call it was, and which of the bot's.
        at_us: when it was acknowledged, on the monotonic clock.
        transition: the last of the user's breaker that the process knew of then.

    """

    kind: str
    bot: int
    call_number: int
    at_us: int
    user_id: int
    transition: str | None


@dataclass
class Evidence:
    """All that a process wrote.

    Attributes:
        number: which of the run's processes it was.
        killed_us: when it was killed, on the monotonic clock; None if it was let to end.

    """

    number: int
    said: bytearray = field(default_factory=bytearray)
    killed_us: int | None = None

    @property
    def has_opened(self) -> bool:
        return self.said.startswith(f"{OPENED}\n".encode())

    @property
    def count(self) -> int:
        return max(self.said.count(b"\n") - 1, 0)

    def name(self, acknowledgement: Acknowledgement) -> str:
        return f"{self.number}.{acknowledgement.bot}.{acknowledgement.call_number}"

    def age_us(self, acknowledgement: Acknowledgement) -> float:
        """Tell how long the process lived on; without end if it was let to end."""
        return inf if self.killed_us is None else self.killed_us - acknowledgement.at_us

    def acknowledgements(self) -> Iterator[Acknowledgement]:
        """Give them in their order."""
        for line in self.said.decode().splitlines()[1:]:
            kind, *numbers, transition = line.split(" ")
            yield Acknowledgement(kind, *map(int, numbers), None if transition == "None" else transition)
