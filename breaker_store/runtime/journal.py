"""What has happened and is not stored yet: in order, numbered, bounded.

The journal is the meeting place of the breakers, which append and never wait, and the recorder, which takes. An
event's number is its place in the journal, so it is known when it happens and costs nothing to draw.

Three kinds of entries stand in it, told apart by their type and length:

- `(breaker, state, started_ns, ended_ns, operation)`, a success that changed nothing: nearly all of them;
- `[breaker, state, first_ns, last_ns, count]`, refusals that are still being counted together;
- `(breaker, event, mark)`, any other event as it was decided, and what it means for the stored row, if anything.
"""

from __future__ import annotations

import logging
import os
import random
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from breaker_store.core.events import EventId, Failure, StoredEvent
from breaker_store.core.state import BreakerState
from breaker_store.ports import MarkKind

if TYPE_CHECKING:
    from breaker_store.runtime.breaker import CircuitBreaker

logger = logging.getLogger(__name__)

DEFAULT_QUEUE_LIMIT = 100_000
_GIVEN_UP = -1


class Marking(NamedTuple):
    """What an outcome means for its breaker's stored row; at the end of a run also the last failure that counted."""

    kind: MarkKind
    last_failure: Failure | None = None


CalmSuccess: TypeAlias = "tuple[CircuitBreaker, BreakerState, int, int, object]"
Refusals: TypeAlias = list[Any]
Noted: TypeAlias = "tuple[CircuitBreaker, StoredEvent, Marking | None]"
Entry: TypeAlias = "CalmSuccess | Refusals | Noted"

_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


class Journal:
    """The events of one writer that wait for the recorder.

    Without a recorder nothing is kept. With one, at most `limit` entries wait. When the queue is full, successes and
    refusals give way first; failures and transitions have a quarter of the limit more. What gave way is counted in
    `given_up`.
    """

    __slots__ = (
        "__weakref__",
        "_hurry",
        "_on_first",
        "_random",
        "given_up",
        "had_recorder",
        "limit",
        "pending",
        "taken",
        "writer_id",
    )

    def __init__(self) -> None:
        self.pending: deque[Entry] = deque()
        self.limit = 0
        self.given_up = 0
        self._hurry: Callable[[], None] | None = None
        self.had_recorder = False
        self._on_first: Callable[[], None] | None = None
        self.begin()
        _journals.add(self)

    def begin(self) -> None:
        """Become a new writer with nothing waiting, and with no recorder."""
        self.had_recorder = self.had_recorder or self._on_first is not None
        self._random = random.Random(os.urandom(16))  # noqa: S311 - seeded apart from the user's own
        self.writer_id = self._random.randrange(1, 2**63)
        self.taken = self.given_up = 0
        self.pending.clear()
        self.limit = 0
        self._on_first = self._hurry = None

    def attach(self, on_first: Callable[[], None], hurry: Callable[[], None], limit: int) -> None:
        """Begin to keep entries; `on_first` is told when one arrives in an empty journal, `hurry` when one can't wait."""
        self.begin()
        self.had_recorder = False
        self._on_first, self._hurry, self.limit = on_first, hurry, limit

    @property
    def kept(self) -> bool:
        return self._on_first is not None

    def next_id(self) -> EventId:
        """Tell the id that the next entry will have; a number below 1 if there is no room for it."""
        waiting = len(self.pending)
        if self.kept and waiting >= self.limit + self.limit // 4:
            return EventId(self.writer_id, _GIVEN_UP)
        return EventId(self.writer_id, self.taken + waiting + 1)

    def draw_era(self) -> int:
        """Draw a random signed 32-bit number that is not 0."""
        return self._random.getrandbits(32) - 2**31 or 1

    def add(self, entry: Entry) -> bool:
        """Append an entry that may give way; the way in for a journal that is empty, full or not kept."""
        if not self.kept:
            self._pass_by()
            return False
        if len(self.pending) >= self.limit:
            self.given_up += 1
            return False
        self._append(entry)
        return True

    def note(self, entry: Noted) -> None:
        """Append an event that was decided; its id says whether there was room for it."""
        if not self.kept:
            self._pass_by()
        elif entry[1].event_id.writer_seq <= 0:
            self.given_up += 1
        else:
            self._append(entry)

    def _pass_by(self) -> None:
        self.taken += 1
        if self.had_recorder:
            self.had_recorder = False
            logger.warning(
                "the store of these breakers was closed, or is another process's: nothing is stored any more"
            )

    def hurry(self) -> None:
        """Have what waits stored at once."""
        if self._hurry is not None:
            self._hurry()

    def _append(self, entry: Entry) -> None:
        self.pending.append(entry)
        if len(self.pending) == 1 and self._on_first is not None:
            self._on_first()


def _begin_anew_after_fork() -> None:
    """Keep a forked child from storing its parent's events, or its own under its parent's name."""
    for journal in list(_journals):
        journal.begin()


os.register_at_fork(after_in_child=_begin_anew_after_fork)
