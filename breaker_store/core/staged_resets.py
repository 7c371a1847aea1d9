"""What a staged reset is: many breakers are reset one after the other, no more than so many a second.

Which breakers they are is settled when it is staged, and each is reset only while it is still in the trouble that was
seen then. That trouble goes on while probes fail: a breaker that went half-open and opened again has not been well in
between, its version alone has moved, and it is just what the operator asked to reset. The same holds where only its
rules changed, or its count was carried over. Anything else (it closed, a person reset it, released it, forced it open or
suspended its bot) is a new state of affairs, which nobody saw when this was asked for: such a breaker has moved on, and
is passed over.

A breaker that a person forced open, or whose bot they suspended, is not staged either: no error opened it, and whoever
did it can end it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from breaker_store.core.cleaning import TEXT_LIMIT, clean_text
from breaker_store.core.events import IMMATERIAL, CircuitState, Kind

NOT_CLOSED: Final = frozenset({CircuitState.OPEN, CircuitState.HALF_OPEN})
"""The states in which a breaker can be staged."""

SAME_TROUBLE: Final = frozenset({Kind.OPENED, Kind.HALF_OPENED}) | IMMATERIAL
"""The kinds of transitions after which an open or half-open breaker is still in the trouble that it was in before."""

SLOWEST_PER_SECOND: Final = 0.1
FASTEST_PER_SECOND: Final = 100.0

_NAME_ROOM: Final = 40


class StagedResetState(IntEnum):
    """How a staged reset stands. The numbers are stored. One that is stopped or done stays so."""

    RUNNING = 0
    STOPPED = 1
    DONE = 2

    @property
    def label(self) -> str:
        return self.name.lower()


class Settlement(IntEnum):
    """What became of a breaker that was staged. The numbers are stored."""

    WAITING = 0
    RESET = 1
    MOVED_ON = 2
    FAILED = 3


def clean_reason(reason: str | None) -> str | None:
    """Hide secrets in a reason, and cut it so that the name of the staged reset still fits behind it."""
    return None if reason is None else clean_text(reason, TEXT_LIMIT - _NAME_ROOM)


def reason_of(staged_reset_id: int, reason: str | None) -> str:
    """Give the reason that each of its resets has in the log."""
    name = f"staged reset {staged_reset_id}"
    return f"{reason} ({name})" if reason else name
