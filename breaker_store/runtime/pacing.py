"""How fast a backlog is delivered: so that it gets smaller, and live traffic has room."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

LONGEST_ROOM_SECONDS: Final = 0.2


class Pacing:
    """Leaves the database to others for as long as each batch took, while that makes a backlog no longer.

    Where more arrives in the time of a batch than half of what the batch held, a pause as long would let the backlog grow.
    """

    def __init__(self, pause: Callable[[float], Awaitable[None]]) -> None:
        self._pause = pause
        self._waiting_before = 0

    async def leave_room(self, batch_seconds: float, batch_count: int, waiting: int) -> None:
        """Pause after a batch; `waiting` are the events that wait now."""
        waiting_before, self._waiting_before = self._waiting_before, waiting
        if waiting_before - waiting > batch_count // 2:
            await self._pause(min(batch_seconds, LONGEST_ROOM_SECONDS))
