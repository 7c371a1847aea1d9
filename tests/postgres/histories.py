"""Histories at any times, made by the rules themselves, and stored as their writers would have sent them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store import Policy
from breaker_store.core.commands import (
    Abandon,
    Admit,
    CarryOver,
    ChangePolicy,
    Report,
    Reset,
    Resume,
    Suspend,
)
from breaker_store.core.events import (
    PERMANENT_REASON,
    EventId,
    Kind,
    Outcome,
    OutcomeKind,
    Permit,
    StoredEvent,
    Transition,
)
from breaker_store.core.policy import MICROSECONDS
from breaker_store.ports import Batch, Source, UserTransition
from breaker_store.postgres.codec import microseconds
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.reading import create_engine, reading
from breaker_store.runtime.cutting import outcome_row
from tests.core.writers import DEFAULT, Log, Writer

MIDNIGHT = datetime(2024, 3, 2, tzinfo=UTC)
# Histories go on past midnight: into another partition.
START = microseconds(MIDNIGHT) - 2 * MICROSECONDS
OWN = Policy(failure_threshold=3, timeout_seconds=0.5, success_threshold=2)

STEPS = [
    "succeed", "fail", "fail", "fail", "trip", "trip", "revoke", "hurry", "begin", "end", "break", "deny", "slow", "cancel", "tick", "rest", "wait", "wait", "send",
    "send_one", "hear", "share", "share", "probe", "probe", "reset", "set_policy",
    "suspend", "resume", "resume", "carry_over",
]  # fmt: skip


_ENDINGS = {"end": "succeed", "break": "fail", "deny": "revoke", "slow": "hurry"}

_OUTCOMES: dict[str, dict[str, Any]] = {
    "succeed": {"kind": Kind.SUCCESS},
    "fail": {"kind": Kind.FAILURE},
    "revoke": {"kind": Kind.FAILURE, "error_type": "Unauthorized", "opens_at_once": PERMANENT_REASON},
    "hurry": {"kind": Kind.SUCCESS, "error_type": "RetryAfter", "counts": False},
}


def run(text: str) -> list[tuple[int, str]]:
    """Write a history shorter: the process's number and its step, divided by spaces."""
    return [(int(step[0]), step[1:]) for step in text.split()]


class Processes:
    """Three processes whose clocks differ, over one log in memory."""

    def __init__(self, user_id: int, skew_us: int) -> None:
        self.log = Log()
        self.writers = [Writer(10 * user_id + number) for number in range(3)]
        self.skews_us = [0, skew_us, -skew_us]
        self.now = START
        self.eras = 0

    def live_through(self, history: Sequence[tuple[int, str]]) -> list[StoredEvent]:
        for number, step in history:
            self.take(number, step)
        for writer in self.writers:
            writer.flush(self.log, len(writer.queue))
        return self.log.stored

    def take(self, number: int, step: str) -> None:  # noqa: PLR0912 - one case for each step
        writer = self.writers[number]
        match step:
            case "succeed" | "fail" | "revoke" | "hurry":
                self.begin(number)
                self.now += 1
                self.end(number, step, newest=True)
            case "probe":
                self.now += MICROSECONDS
                self.begin(number)
            case "trip":
                for _ in range(writer.state.policy.failure_threshold):
                    self.take(number, "fail")
            case "begin":
                self.begin(number)
            case "end" | "break" | "deny" | "slow" | "cancel":
                self.end(number, _ENDINGS.get(step, step))
            case "tick":
                self.now += 1
            case "wait":
                self.now += MICROSECONDS
            case "rest":
                self.now += 7_200 * MICROSECONDS
            case "send" | "send_one":
                writer.flush(self.log, 1 if step == "send_one" else len(writer.queue))
            case "hear":
                writer.follow(self.log)
            case "share":
                writer.flush(self.log, len(writer.queue))
                for each in self.writers:
                    each.follow(self.log)
            case "reset" if writer.state.suspension is None:
                writer.run(Reset(*self.identity(number)))
            case "suspend":
                writer.run(Suspend(*self.identity(number), "ann", "unpaid bill"))
            case "resume" if writer.state.suspension is not None:
                writer.run(Resume(*self.identity(number), "bob"))
            case "carry_over":
                writer.run(CarryOver(*self.identity(number), "they are old"))
            case "set_policy":
                writer.run(ChangePolicy(*self.identity(number)[:2], OWN))

    def begin(self, number: int) -> None:
        writer = self.writers[number]
        permit = writer.run(Admit(*self.identity(number)))
        if permit is not None:
            writer.in_flight.append(permit)

    def end(self, number: int, step: str, *, newest: bool = False) -> None:
        writer = self.writers[number]
        if not writer.in_flight:
            return
        permit = writer.in_flight.pop(-1 if newest else 0)
        fields = _OUTCOMES.get(step)
        writer.run(
            Abandon(permit)
            if fields is None
            else Report(*self.identity(number), permit=permit, duration_us=1, **fields)
        )

    def identity(self, number: int) -> tuple[int, EventId, int]:
        writer = self.writers[number]
        self.eras += 1
        at = self.now + self.skews_us[number]
        return at, EventId(writer.writer_id, writer.writer_seq), self.eras


class Past:
    """Stores events in Postgres as their writers would have sent them, in the order of their arrival."""

    def __init__(self, log: PostgresEventLog) -> None:
        self._log = log
        self._sent: dict[int, tuple[int, bytes | None]] = {}
        self.histories: dict[int, list[StoredEvent]] = {}

    async def store(self, user_id: int, events: Sequence[StoredEvent], policy: Policy = DEFAULT) -> None:
        self.histories.setdefault(user_id, []).extend(events)
        for _, together in itertools.groupby(events, key=lambda event: event.event_id.writer_id):
            await self._send(user_id, list(together), policy)

    async def _send(self, user_id: int, events: Sequence[StoredEvent], policy: Policy) -> None:
        first = events[0].event_id
        batch_no, digest = self._sent.get(first.writer_id, (0, None))
        outcomes = [event for event in events if isinstance(event, Outcome)]
        transitions = [event for event in events if isinstance(event, Transition)]
        batch = Batch(
            writer_id=first.writer_id,
            batch_no=batch_no + 1,
            first_seq=first.writer_seq,
            last_seq=events[-1].event_id.writer_seq,
            source=Source.LIVE,
            previous_digest=digest,
            earliest=events[0].at,
            latest=events[-1].at,
            outcomes=[outcome_row(user_id, event, event.at) for event in outcomes],
            transitions=[UserTransition(user_id, event) for event in transitions],
            newcomers={user_id: policy},
        )
        sealed = self._log.seal(batch)
        fates = await self._log.append(sealed)
        won = [transition.position is not None for transition in transitions]
        assert [fate.position is not None for fate in fates] == won
        self._sent[first.writer_id] = batch.batch_no, sealed.digest


SEQS = itertools.count(1)
FIRST_COUNT = Permit(0, 0)


def outcome(kind: OutcomeKind, at: int, writer_id: int = 5, permit: Permit = FIRST_COUNT) -> Outcome:
    return Outcome(
        kind, EventId(writer_id, next(SEQS)), at, permit, count=1 if kind is Kind.REJECTED else None
    )


@asynccontextmanager
async def asking(database_url: str) -> AsyncIterator[AsyncConnection]:
    """Lend a connection for questions, in a snapshot of its own."""
    engine = create_engine(database_url)
    try:
        async with reading(engine) as connection:
            yield connection
    finally:
        await engine.dispose()
