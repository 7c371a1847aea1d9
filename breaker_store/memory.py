"""A log of events in memory, for tests: ours, and those of bot developers who want to see what was recorded.

It keeps the promises of the log in Postgres (the same contract suite runs against both), and nothing beyond the
process. It is for one event loop.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from uuid import UUID

from breaker_store.core.events import (
    CircuitState,
    EventId,
    Kind,
    Outcome,
    OutcomeKind,
    Permit,
    StoredEvent,
    Transition,
    Verdict,
)
from breaker_store.core.policy import Policy
from breaker_store.core.rebuild import ChainHead, rebuild
from breaker_store.errors import LedgerError
from breaker_store.ports import (
    Batch,
    Fate,
    Gap,
    LedgerHead,
    OutcomeRow,
    RecorderReport,
    StoredBreaker,
    StoredTransition,
    UserTransition,
)
from breaker_store.runtime.clock import Clock

_KINDS: dict[int, OutcomeKind] = {1: Kind.SUCCESS, 2: Kind.FAILURE, 3: Kind.REJECTED}


@dataclass(frozen=True, slots=True)
class MemoryBatch:
    """A batch and the digest of its events."""

    batch: Batch
    digest: bytes


class MemoryEventLog:
    """Keeps the promises of `EventLog`, and is never away.

    Attributes:
        events: by user, in the order of arrival; transitions that won carry their position.
        batches: the ledger, by writer and number.
        gaps: what is missing, by writer, in the order in which it was told.
        reports: the last one of each writer.

    """

    def __init__(self, clock: Clock | None = None) -> None:
        """Make an empty log; `clock` is the registry's, so that waits are told as it sees them."""
        self.events: defaultdict[int, list[StoredEvent]] = defaultdict(list)
        self.batches: dict[tuple[int, int], MemoryBatch] = {}
        self.gaps: defaultdict[int, list[Gap]] = defaultdict(list)
        self.reports: dict[int, RecorderReport] = {}
        self._ledger_heads: dict[int, LedgerHead] = {}
        self._clock = clock or Clock()
        self._heads: defaultdict[int, ChainHead] = defaultdict(ChainHead)
        self._chain: list[UserTransition] = []
        self._fates: dict[EventId, Fate] = {}
        self._lines: set[UUID] = set()

    @property
    def correction_us(self) -> int:
        return 0

    def seal(self, batch: Batch) -> MemoryBatch:
        content = repr((list(batch.outcomes), list(batch.transitions)))
        return MemoryBatch(batch, hashlib.sha256(content.encode(errors="surrogatepass")).digest())

    async def append(self, sealed: MemoryBatch) -> list[Fate]:
        batch = sealed.batch
        if not self._is_stored(batch, sealed.digest):
            self._check_that_it_follows(batch)
            self._store(sealed)
        numbers = sorted(each.transition.event_id for each in batch.transitions)
        return [self._fates[event_id] for event_id in numbers]

    async def ledger_head(self, writer_id: int) -> LedgerHead | None:
        return self._ledger_heads.get(writer_id)

    async def report(self, report: RecorderReport) -> None:
        self.reports[report.writer_id] = report

    async def read_breaker(self, user_id: int, policy: Policy) -> StoredBreaker | None:
        if user_id not in self.events:
            return None
        state = rebuild(policy, self.events[user_id])
        waits = state.state is CircuitState.OPEN and state.retry_at is not None
        return StoredBreaker(user_id, state, state.remaining_us(self._clock.now_us()) if waits else None)

    async def last_position(self) -> int:
        return len(self._chain)

    async def transitions_after(self, position: int, limit: int) -> list[StoredTransition]:
        now = self._clock.now_us()
        return [
            StoredTransition(
                *each, None if each.transition.retry_at is None else each.transition.retry_at - now
            )
            for each in self._chain[position : position + limit]
        ]

    async def keep_time(self) -> None:
        """Do nothing: the log's clock is the registry's."""

    def _is_stored(self, batch: Batch, digest: bytes) -> bool:
        stored = self.batches.get((batch.writer_id, batch.batch_no))
        if stored is not None and stored.digest != digest:
            raise LedgerError(f"batch {batch.batch_no} of {batch.writer_id} is stored with other contents")
        return stored is not None

    def _check_that_it_follows(self, batch: Batch) -> None:
        before = self.batches.get((batch.writer_id, batch.batch_no - 1))
        digest, last_seq = (None, 0) if before is None else (before.digest, before.batch.last_seq)
        if (
            (batch.batch_no == 1) != (before is None)
            or digest != batch.previous_digest
            or last_seq >= batch.first_seq
        ):
            raise LedgerError(f"batch {batch.batch_no} of {batch.writer_id} does not follow what is stored")
        if not self._lines.isdisjoint(batch.lines):
            raise LedgerError("a line of this import is stored already")

    def _store(self, sealed: MemoryBatch) -> None:
        batch = sealed.batch
        self.batches[batch.writer_id, batch.batch_no] = sealed
        self._ledger_heads[batch.writer_id] = LedgerHead(batch.batch_no, batch.last_seq, sealed.digest)
        self._lines.update(batch.lines)
        self.gaps[batch.writer_id].extend(batch.gaps)
        for row in batch.outcomes:
            self.events[row[1]].append(_outcome(batch.writer_id, row))
        for user_id, transition in batch.transitions:
            self._store_transition(user_id, transition)

    def _store_transition(self, user_id: int, transition: Transition) -> None:
        if self._heads[user_id].admits(transition):
            transition = replace(transition, position=len(self._chain) + 1)
            self._heads[user_id] = ChainHead(transition.version, transition.event_id)
            self._chain.append(UserTransition(user_id, transition))
        self.events[user_id].append(transition)
        event_id = transition.event_id
        self._fates[event_id] = Fate(user_id, event_id.writer_seq, transition.position)


def _outcome(writer_id: int, row: OutcomeRow) -> Outcome:
    at, _, seq, duration_us, generation, era, kind, verdict, probe, count, attempt, trace_id, *texts = row
    outcome = Outcome(_KINDS[kind], EventId(writer_id, seq), at, Permit(generation, era, probe or 0))
    outcome = replace(
        outcome, verdict=Verdict(verdict), duration_us=duration_us, count=count, attempt=attempt
    )
    operation, error_type, message = texts
    return replace(
        outcome, trace_id=trace_id, operation=operation, error_type=error_type, error_message=message
    )
