"""What the runtime needs of a log of events. Postgres is one, memory is another; a contract suite runs against both."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar
from uuid import UUID

from breaker_store.core.events import Failure, Transition
from breaker_store.core.policy import Policy
from breaker_store.core.state import BreakerState


class Source(IntEnum):
    """Where a writer's events come from. The numbers are stored."""

    LIVE = 0
    IMPORT = 1
    OPERATOR = 2


OutcomeRow: TypeAlias = tuple[
    int,  # occurred_at: Unix microseconds on the database's clock
    int,  # user_id
    int,  # writer_seq
    int | None,  # duration_us
    int,  # generation
    int,  # era
    int,  # kind
    int,  # verdict
    int | None,  # probe
    int | None,  # count, of refusals
    int | None,  # attempt
    UUID | None,  # trace_id
    str | None,  # operation
    str | None,  # error_type
    str | None,  # error_message
]
"""An outcome as it is stored. A plain tuple: to name the fields would cost half a microsecond for each event."""


class GapReason(IntEnum):
    """Why events were not kept. The numbers are stored."""

    QUEUE_FULL = 1
    SPOOL_FULL = 2
    REFUSED = 3
    DAMAGED = 4
    CONTRADICTED = 5
    FORGOTTEN = 6
    ENDED = 7

    @property
    def in_words(self) -> str:
        """Go on after "events were lost: "."""
        return _WHY_NOT_KEPT[self]


_WHY_NOT_KEPT = {
    GapReason.QUEUE_FULL: "the queue was full",
    GapReason.SPOOL_FULL: "the spool was full",
    GapReason.REFUSED: "the database refused them",
    GapReason.DAMAGED: "the spool was damaged",
    GapReason.CONTRADICTED: "the ledger contradicted them",
    GapReason.FORGOTTEN: "the database has forgotten them",
    GapReason.ENDED: "the store was closed before they could be stored",
}


class Gap(NamedTuple):
    """Events that happened and are not in the log, so that the log itself tells that they are missing.

    Attributes:
        first_at, last_at: Unix microseconds on the database's clock between which they happened.
        unknown: how many of them could not be read, so that their kind is not known.

    """

    reason: GapReason
    first_at: int
    last_at: int
    successes: int = 0
    refusals: int = 0
    failures: int = 0
    transitions: int = 0
    unknown: int = 0

    @property
    def event_count(self) -> int:
        return self.successes + self.refusals + self.failures + self.transitions + self.unknown


class UserTransition(NamedTuple):
    """A transition and whose it is, on the database's clock."""

    user_id: int
    transition: Transition


class StoredTransition(NamedTuple):
    """A transition as it was read; `remaining_us` is how long its breaker then still refused, None without an end."""

    user_id: int
    transition: Transition
    remaining_us: int | None


class MarkKind(IntEnum):
    """What an outcome means for the breaker's row; see the table `breaker_states`."""

    FAILED = 1
    RUN_ENDED = 2
    PROBE_SUCCEEDED = 3


class Mark(NamedTuple):
    """An outcome that the breaker's row must hear of although it is no transition."""

    user_id: int
    writer_seq: int
    kind: MarkKind
    at: int
    era: int
    last_failure: Failure | None


SALT_BYTES: Final = 16


def _draw_salt() -> bytes:
    return secrets.token_bytes(SALT_BYTES)


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of one flush: cut once, sent and sent again as the same bytes.

    Attributes:
        first_seq, last_seq: the numbers of its events; one that was set aside leaves a gap.
        newcomers: users of whom nothing has been stored yet, as far as the writer knows, with the policy in force.
        earliest, latest: of the events' times.
        gaps: what was not kept before these events; stored with them.
        salt: random bytes that go into the digest, so that it tells nothing of a text once they are forgotten.

    """

    writer_id: int
    batch_no: int
    first_seq: int
    last_seq: int
    source: Source
    previous_digest: bytes | None
    earliest: int
    latest: int
    outcomes: Sequence[OutcomeRow]
    transitions: Sequence[UserTransition] = ()
    marks: Sequence[Mark] = ()
    newcomers: Mapping[int, Policy] = field(default_factory=dict)
    lines: Sequence[UUID] = ()
    gaps: Sequence[Gap] = ()
    salt: bytes = field(default_factory=_draw_salt, compare=False, repr=False)

    @property
    def event_count(self) -> int:
        return len(self.outcomes) + len(self.transitions)


def operators_batch(user_id: int, transition: Transition) -> Batch:
    """Make the batch of what an operator did: the only one of its writer, with nothing else in it."""
    event_id = transition.event_id
    return Batch(
        writer_id=event_id.writer_id,
        batch_no=1,
        first_seq=event_id.writer_seq,
        last_seq=event_id.writer_seq,
        source=Source.OPERATOR,
        previous_digest=None,
        earliest=transition.at,
        latest=transition.at,
        outcomes=(),
        transitions=(UserTransition(user_id, transition),),
    )


class SealedBatch(Protocol):
    """A batch with its bytes and their digest."""

    @property
    def batch(self) -> Batch: ...

    @property
    def digest(self) -> bytes: ...


class Fate(NamedTuple):
    """What became of a transition in the log: its position, or None if it lost and is superseded."""

    user_id: int
    writer_seq: int
    position: int | None


class LedgerHead(NamedTuple):
    """The last batch of a writer that is stored."""

    batch_no: int
    last_seq: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class RecorderReport:
    """How a process's recording goes, as it leaves it in the database every few seconds.

    Attributes:
        started_at: Unix microseconds on the database's clock.
        durability: the store's: behind, journaled or committed.
        queued: events that wait in memory.
        flushed: events that are stored.
        spooled: events that wait on disk alone.
        set_aside: events that were put into a file of their own, for a person to look at.
        lost: events that are nowhere; `lost_why` says the last reason, None while there are none.
        oldest_waiting_us: how long the oldest event that is not stored has waited; None if none does.
        last_error: what the log or the spool last complained of.
        ended: whether the recorder has said goodbye.

    """

    writer_id: int
    host: str
    pid: int
    started_at: int
    durability: str
    queued: int
    flushed: int
    spooled: int
    set_aside: int
    lost: int
    lost_why: str | None
    oldest_waiting_us: int | None
    last_error: str | None
    ended: bool = False


class StoredBreaker(NamedTuple):
    """A breaker as the log has it, on the database's clock, and how long it still refuses."""

    user_id: int
    state: BreakerState
    remaining_us: int | None


Sealed = TypeVar("Sealed", bound=SealedBatch)


class EventLog(Protocol[Sealed]):
    """An append-only log of events.

    Errors that pass by themselves are `LogUnavailableError`; an event that can't be stored is `EventRefusedError`.
    """

    @property
    def correction_us(self) -> int:
        """What to add to the registry's clock to get the log's, as last measured."""

    async def keep_time(self) -> None:
        """Measure the log's clock again if that was a while ago; nothing happens while the log is away."""

    def seal(self, batch: Batch) -> Sealed:
        """Encode a batch. Pure: the same batch gives the same bytes."""

    async def append(self, sealed: Sealed) -> list[Fate]:
        """Store a batch, once, however often it is sent; give the fates of its transitions."""

    async def ledger_head(self, writer_id: int) -> LedgerHead | None:
        """Give the last batch of a writer that is stored; None if there is none."""

    async def report(self, report: RecorderReport) -> None:
        """Leave a report where others see it, in place of this writer's last one."""

    async def read_breaker(self, user_id: int, policy: Policy) -> StoredBreaker | None:
        """Give one breaker; `policy` holds where the user has none."""

    async def last_position(self) -> int:
        """Give the position of the last transition that won; 0 if there was none."""

    async def transitions_after(self, position: int, limit: int) -> list[StoredTransition]:
        """Give the transitions that follow a position, in the order of positions, which has no gap."""
