"""What has happened and is not stored yet: in order, numbered, bounded.

The journal is the meeting place of the breakers, which append and never wait, and the recorder, which takes. An
event's number is its place in the journal, so it is known when it happens and costs nothing to draw.

Four kinds of entries stand in it, told apart by their type and length:

- `(breaker, state, started_ns, ended_ns, operation)`, a success that changed nothing: nearly all of them;
- the same with the id of a trace behind it, if calls are traced;
- `[breaker, state, first_ns, last_ns, count]`, refusals that are still being counted together;
- `(breaker, event, mark)`, any other event as it was decided, and what it means for the stored row, if anything.
"""

from __future__ import annotations

import logging
import os
import random
import weakref
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from breaker_store.core.events import CircuitState, EventId, Failure, Kind, Outcome, StoredEvent, Transition
from breaker_store.core.state import BreakerState
from breaker_store.errors import NotCommittedError
from breaker_store.ports import MarkKind
from breaker_store.settings import Durability

if TYPE_CHECKING:
    from breaker_store.runtime.breaker import CircuitBreaker

logger = logging.getLogger(__name__)

DEFAULT_QUEUE_LIMIT = 100_000
_GIVEN_UP = -1

LONGEST_REFUSALS_NS = 60 * 1_000_000_000
"""How long the refusals of one entry may span: while nothing can be stored, no flush ends one."""

_NAMES = {Kind.SUCCESS: "successes", Kind.FAILURE: "failures", Kind.REJECTED: "refusals"}


class Marking(NamedTuple):
    """What an outcome means for its breaker's stored row; at the end of a run also the last failure that counted."""

    kind: MarkKind
    last_failure: Failure | None = None


def marking_of(before: BreakerState, after: BreakerState, event: Outcome | Transition) -> Marking | None:
    """Tell what the breaker's row must hear of: what a closed one counts, and what ends the count.

    Every failure is marked, not only the first of a run: others may have ended what this process goes on with.
    """
    if isinstance(event, Transition) or after is before:
        return None
    if after.state is CircuitState.HALF_OPEN:
        return Marking(MarkKind.PROBE_SUCCEEDED) if event.kind is Kind.SUCCESS else None
    if after.calm:
        return Marking(MarkKind.RUN_ENDED, after.last_failure)
    return Marking(MarkKind.FAILED, after.last_failure)


CalmSuccess: TypeAlias = "tuple[CircuitBreaker, BreakerState, int, int, object]"
TracedSuccess: TypeAlias = "tuple[CircuitBreaker, BreakerState, int, int, object, int]"
Refusals: TypeAlias = list[Any]
Noted: TypeAlias = "tuple[CircuitBreaker, StoredEvent, Marking | None]"
Entry: TypeAlias = "CalmSuccess | TracedSuccess | Refusals | Noted"


class Keeper(Protocol):
    """Who takes what waits: the recorder."""

    @property
    def has_spool(self) -> bool:
        """Whether an event can be journaled."""

    def wake_later(self) -> None:
        """Hear that an entry has arrived in an empty journal."""

    def hurry(self) -> None:
        """Hear that something can't wait."""

    def write_through(self) -> None:
        """Write what waits to local disk, if there is a spool."""

    def committed(self) -> Awaitable[None]:
        """Wait until what waits is stored."""

    def leave_to_parent(self) -> None:
        """Let go of what a forked child shares with its parent."""


_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


class Journal:
    """The events of one writer that wait for the recorder.

    Without a recorder nothing is kept. With one, at most `limit` entries wait. When the queue is full, successes and
    refusals give way first; failures and transitions have a quarter of the limit more.

    Attributes:
        quick_limit: while fewer entries wait, and at least one, whoever has one may append it to `pending` himself.
        durability: the store's, also after its end: what was promised is not there then, and that is said.
        ended: whether there was a recorder, and there is none any more.
        write_through: has what waits written to local disk, if there is a spool.
        missed: how many events gave way, by the names of `Gap`, since the recorder last looked.

    """

    __slots__ = (
        "__weakref__",
        "_keeper",
        "_random",
        "_read_trace_id",
        "durability",
        "ended",
        "had_recorder",
        "kept_last",
        "limit",
        "missed",
        "pending",
        "quick_limit",
        "taken",
        "write_through",
        "writer_id",
    )

    def __init__(self) -> None:
        self.pending: deque[Entry] = deque()
        self.limit = 0
        self.had_recorder = self.ended = False
        self.durability = Durability.BEHIND
        self.missed: Counter[str] = Counter()
        self._keeper: Keeper | None = None
        self._read_trace_id: Callable[[], int | None] | None = None
        self.begin()
        _journals.add(self)

    def begin(self) -> None:
        """Become a new writer with nothing waiting, and with no recorder."""
        self.ended = self.ended or self._keeper is not None
        self.had_recorder = self.had_recorder or self._keeper is not None
        self._random = random.Random(os.urandom(16))  # noqa: S311 - seeded apart from the user's own
        self.writer_id = self._random.randrange(1, 2**63)
        self.taken = 0
        self.kept_last = True
        self.missed.clear()
        self.pending.clear()
        self.limit = self.quick_limit = 0
        self._keeper = None
        self.write_through: Callable[[], None] = _do_nothing

    def attach(self, keeper: Keeper, limit: int, durability: Durability = Durability.BEHIND) -> None:
        """Begin to keep entries, for a recorder."""
        self.begin()
        self.had_recorder = self.ended = False
        self._keeper, self.limit, self.durability = keeper, limit, durability
        self.write_through = keeper.write_through
        self._set_quick_limit()

    def trace(self, read_trace_id: Callable[[], int | None] | None) -> None:
        """Have each success keep the id of its trace; None ends that.

        Then no success takes the quick way, so that while nobody traces nothing has to be asked there.
        """
        self._read_trace_id = read_trace_id
        self._set_quick_limit()

    def _set_quick_limit(self) -> None:
        is_quick = self.durability is Durability.BEHIND and self._read_trace_id is None
        self.quick_limit = self.limit if is_quick else 0

    def stop(self) -> None:
        """Take no more entries: what waits is the last that is stored."""
        self.limit, self.quick_limit = -1, 0

    @property
    def is_stopped(self) -> bool:
        return self.limit < 0

    @property
    def kept(self) -> bool:
        return self._keeper is not None

    @property
    def can_journal(self) -> bool:
        """Tell whether events can be written to local disk; without a recorder nothing is asked of them."""
        return self._keeper is None or self._keeper.has_spool

    @property
    def last_seq(self) -> int:
        """The number of the newest entry; 0 if there was none."""
        return self.taken + len(self.pending)

    def next_id(self) -> EventId:
        """Tell the id that the next entry will have; a number below 1 if there is no room for it."""
        waiting = len(self.pending)
        if self.kept and waiting >= self.limit + self.limit // 4:
            return EventId(self.writer_id, _GIVEN_UP)
        return EventId(self.writer_id, self.taken + waiting + 1)

    def draw_era(self) -> int:
        """Draw a random signed 32-bit number that is not 0."""
        return self._random.getrandbits(32) - 2**31 or 1

    def add(self, entry: CalmSuccess | Refusals) -> bool:
        """Append an entry that may give way; the way in for a journal that is empty, full or not kept."""
        self.kept_last = False
        if not self.kept:
            self._pass_by()
        elif len(self.pending) >= self.limit:
            self.missed["refusals" if isinstance(entry, list) else "successes"] += 1
        elif self._read_trace_id is None or isinstance(entry, list):
            self._append(entry)
        else:
            trace_id = self._read_trace_id()
            self._append(entry if trace_id is None else (*entry, trace_id))
        return self.kept_last

    def note(self, entry: Noted) -> None:
        """Append an event that was decided; its id says whether there was room for it."""
        self.kept_last = False
        if not self.kept:
            self._pass_by()
        elif entry[1].event_id.writer_seq <= 0:
            self.missed[_NAMES.get(entry[1].kind, "transitions")] += 1
        else:
            self._append(entry)

    async def commit(self, result: object = None) -> None:
        """Wait until the newest entry is stored; where there never was a recorder there is nothing to wait for.

        Raises:
            NotCommittedError: it was not kept, or the recorder ends before it is stored.

        """
        if self._keeper is None:
            if self.ended:
                raise NotCommittedError("the store was closed before the call ended", result)
            return
        if not self.kept_last:
            raise NotCommittedError("the event found no room and was not kept", result)
        try:
            await self._keeper.committed()
        except NotCommittedError as error:
            error.result = result
            raise

    def _pass_by(self) -> None:
        self.taken += 1
        if self.had_recorder:
            self.had_recorder = False
            logger.warning(
                "the store of these breakers was closed, or is another process's: nothing is stored any more"
            )

    def hurry(self) -> None:
        """Have what waits stored at once."""
        if self._keeper is not None:
            self._keeper.hurry()

    def leave_to_parent(self) -> None:
        """Begin anew in a forked child: what waits, and the spool, are its parent's."""
        if self._keeper is not None:
            self._keeper.leave_to_parent()
        self.begin()

    def _append(self, entry: Entry) -> None:
        self.kept_last = True
        self.pending.append(entry)
        if len(self.pending) == 1 and self._keeper is not None:
            self._keeper.wake_later()


def _do_nothing() -> None:
    pass


def _begin_anew_after_fork() -> None:
    """Keep a forked child from storing its parent's events, or its own under its parent's name."""
    for journal in list(_journals):
        journal.leave_to_parent()


os.register_at_fork(after_in_child=_begin_anew_after_fork)
