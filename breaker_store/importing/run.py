"""Outcomes that happened elsewhere, run through the breakers as if they had been there, into the log.

The clock of an import is the times of its lines, in microseconds of Unix time: each line is one instant, in which a
call asks to be let through and has ended. What the breaker would have refused keeps its real outcome, with the verdict
that says so. An import is one writer of the log, and its lines are stored in the same transaction as their events: an
import that was killed is finished by another one, with the same result as if nothing had happened. For that the
number of a writer is above those of earlier imports of the same users, since events of one time are ordered by it.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Final
from uuid import UUID

from breaker_store.core.cleaning import clean_name, clean_text
from breaker_store.core.commands import Admit, Report
from breaker_store.core.decide import decide, permit_of
from breaker_store.core.events import (
    CircuitState,
    Event,
    EventId,
    Kind,
    Outcome,
    Permit,
    Transition,
    Verdict,
)
from breaker_store.core.policy import Policy
from breaker_store.core.state import BreakerState, evolve
from breaker_store.importing.formats import ImportedOutcome
from breaker_store.ports import Batch, Fate, Mark, MarkKind, OutcomeRow, Source, UserTransition
from breaker_store.postgres import imports
from breaker_store.postgres.connecting import Connection
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.loading import read_breaker
from breaker_store.postgres.partitions import DAY_US
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.cutting import outcome_row

BATCH_SIZE: Final = 1_000
"""How many lines are stored in one transaction at most."""

NO_ADMISSION: Final = Permit(-1, 0)
"""What a line comes with that is too late to have been let through: no breaker gives it."""

HAS_LATER_EVENTS: Final = "there are later live events of this user"
WAS_CHANGED: Final = "a live process or another writer changed this breaker during the import"

OnProgress = Callable[[int, int], None]
"""Is called with the number of lines that are done and their total, first with 0."""


@dataclass(slots=True)
class ImportReport:
    """What became of the lines of an import.

    Attributes:
        lines: all that were handed over; the sum of the five numbers that follow.
        stored_before: lines that an earlier import stored.
        counted: what the breakers let through.
        would_be_refused: what an open breaker would have refused.
        late: lines older than what earlier imports stored of their user: recorded for health, decided nowhere.
        left_out: lines of refused users that are not stored.
        openings: how often a breaker opened, by user.
        refused: users of whom lines are missing, and why.
        states: how many of the breakers of all these users are now in which state. One that is open stays so until it
            is called, however long ago that was.

    """

    lines: int
    stored_before: int = 0
    counted: int = 0
    would_be_refused: int = 0
    late: int = 0
    left_out: int = 0
    openings: Counter[int] = field(default_factory=Counter)
    refused: dict[int, str] = field(default_factory=dict)
    states: Counter[CircuitState] = field(default_factory=Counter)


async def import_outcomes(
    database_url: str,
    outcomes: Sequence[ImportedOutcome],
    *,
    policy: Policy | None = None,
    on_progress: OnProgress = lambda _done, _total: None,
    batch_size: int = BATCH_SIZE,
) -> ImportReport:
    """Run outcomes, in the order of their times, through the breakers, and store what follows.

    `policy` holds for users who have none of their own; None leaves it at the one that was last in force, and is the
    package's default for newcomers. A user who has later live
    events, or whose breaker is changed by somebody else meanwhile, is refused; the others go on. What `on_progress`
    raises ends the import; what is stored stays.

    Raises:
        ImportRunningError: another import into this database is running.
        LogUnavailableError: the database is away; another import of the same lines goes on where this one ended.

    """
    report = ImportReport(len(outcomes))
    async with imports.import_alone(database_url) as connection:
        lines = await _without_stored(connection, outcomes)
        report.stored_before = len(outcomes) - len(lines)
        on_progress(report.stored_before, report.lines)
        start = await _find_start(connection, lines, policy)
        report.refused.update(start.refused)
        async with _open_log(database_url) as log:
            writer = _ImportWriter(start, log, report)
            done = report.stored_before
            for some in _divide(lines, batch_size):
                await writer.store(some)
                done += len(some)
                on_progress(done, report.lines)
        users = {outcome.user_id for outcome in outcomes}
        report.states = await imports.count_states(connection, users)
    return report


def _divide(lines: Sequence[ImportedOutcome], size: int) -> Iterator[list[ImportedOutcome]]:
    """Cut lines that are in order into lists of one day each: a batch keeps every day between its first and last event."""
    for _, of_a_day in groupby(lines, key=lambda line: line.at_us // DAY_US):
        yield from imports.divide(of_a_day, size)


@asynccontextmanager
async def _open_log(database_url: str) -> AsyncIterator[PostgresEventLog]:
    log = PostgresEventLog(database_url, Clock())
    try:
        yield log
    finally:
        await log.close()


async def _without_stored(
    connection: Connection, outcomes: Sequence[ImportedOutcome]
) -> list[ImportedOutcome]:
    lines: list[ImportedOutcome] = []
    for some in imports.divide(outcomes, imports.LINES_AT_ONCE):
        stored = await imports.find_stored_lines(connection, (outcome.line for outcome in some))
        lines += (outcome for outcome in some if outcome.line not in stored)
    return lines


@dataclass(slots=True)
class _Breaker:
    """A user's breaker during the import; what is older than `late_before_us` comes too late for it."""

    state: BreakerState
    is_stored: bool = False
    late_before_us: int = 0
    run_is_marked: bool = False


@dataclass(frozen=True, slots=True)
class _Start:
    """What is stored of the users whose lines are new; those who are missing are newcomers."""

    newcomer: BreakerState
    breakers: dict[int, _Breaker]
    refused: Mapping[int, str]
    newest_writer: int


async def _find_start(
    connection: Connection, lines: Sequence[ImportedOutcome], policy: Policy | None
) -> _Start:
    first_times: dict[int, int] = {}
    for line in lines:
        first_times.setdefault(line.user_id, line.at_us)
    newest = await imports.find_newest_events(connection, first_times)
    overtaken = {
        user_id: first_times[user_id]
        for user_id, event in newest.items()
        if event is not None and event.at_us > first_times[user_id]
    }
    refused = dict.fromkeys(await imports.find_later_live_events(connection, overtaken), HAS_LATER_EVENTS)
    newcomer = BreakerState(policy or Policy())
    breakers: dict[int, _Breaker] = {}
    for user_id in newest.keys() - refused.keys():
        stored = await read_breaker(connection, user_id, policy)
        state = newcomer if stored is None else stored.state
        event = newest[user_id]
        # The newest event that is live is no bound: it is not later than any line of this user.
        late_before = event.at_us if event is not None and event.is_imported else 0
        breakers[user_id] = _Breaker(state, is_stored=True, late_before_us=late_before)
    writers = (event.writer_id for event in newest.values() if event is not None and event.is_imported)
    return _Start(newcomer, breakers, refused, max(writers, default=0))


def _draw_writer_id(newest_writer: int) -> int:
    """Draw a number that is above an earlier import's, and leaves room for millions of imports above it."""
    return newest_writer + secrets.randbelow(2**40) + 1 if newest_writer else secrets.randbelow(2**62) + 1


def _draw_era() -> int:
    """Draw a random signed 32-bit number that is not 0."""
    return secrets.randbits(32) - 2**31 or 1


@dataclass(slots=True)
class _Work:
    """What is being put into a batch."""

    outcomes: list[OutcomeRow] = field(default_factory=list)
    transitions: list[UserTransition] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    newcomers: dict[int, Policy] = field(default_factory=dict)
    lines: list[UUID] = field(default_factory=list)


class _ImportWriter:
    """The writer that an import is: decides about lines, in the order of their times, and stores them in batches."""

    def __init__(self, start: _Start, log: PostgresEventLog, report: ImportReport) -> None:
        self._writer_id = _draw_writer_id(start.newest_writer)
        self._newcomer = start.newcomer
        self._breakers = start.breakers
        self._log = log
        self._report = report
        self._seq = self._batch_no = 0
        self._digest: bytes | None = None
        self._work = _Work()

    async def store(self, lines: Sequence[ImportedOutcome]) -> None:
        """Store lines, which follow those before in time, in one transaction, but for those of refused users."""
        wanted = [line for line in lines if line.user_id not in self._report.refused]
        self._report.left_out += len(lines) - len(wanted)
        if not wanted:
            return
        self._work, first_seq = _Work(), self._seq + 1
        for line in wanted:
            self._take_line(line)
        sealed = self._log.seal(self._cut(first_seq, wanted[0].at_us, wanted[-1].at_us))
        fates = await self._log.append(sealed)
        self._batch_no += 1
        self._digest = sealed.digest
        self._settle(fates)

    def _cut(self, first_seq: int, earliest: int, latest: int) -> Batch:
        work = self._work
        return Batch(
            writer_id=self._writer_id,
            batch_no=self._batch_no + 1,
            first_seq=first_seq,
            last_seq=self._seq,
            source=Source.IMPORT,
            previous_digest=self._digest,
            earliest=earliest,
            latest=latest,
            outcomes=work.outcomes,
            transitions=work.transitions,
            marks=work.marks,
            newcomers=work.newcomers,
            lines=work.lines,
        )

    def _settle(self, fates: Sequence[Fate]) -> None:
        """Count the openings that hold, and refuse the users whose breaker somebody else has changed."""
        positions = {fate.writer_seq: fate.position for fate in fates}
        for user_id, transition in self._work.transitions:
            if positions[transition.event_id.writer_seq] is None:
                self._report.refused[user_id] = WAS_CHANGED
            elif transition.kind is Kind.OPENED:
                self._report.openings[user_id] += 1

    def _take_line(self, line: ImportedOutcome) -> None:
        breaker = self._breakers.get(line.user_id)
        if breaker is None:
            breaker = self._breakers[line.user_id] = _Breaker(self._newcomer)
        if not breaker.is_stored:
            self._work.newcomers[line.user_id] = breaker.state.policy
            breaker.is_stored = True
        self._work.lines.append(UUID(bytes=line.line))
        permit = NO_ADMISSION if line.at_us < breaker.late_before_us else self._admit(breaker, line)
        self._take_events(line.user_id, breaker, decide(breaker.state, self._report_of(line, permit)))

    def _admit(self, breaker: _Breaker, line: ImportedOutcome) -> Permit | None:
        """Ask whether the call would have been let through; that it would not is no event, for it was made."""
        events = decide(breaker.state, Admit(line.at_us, self._next_id(), _draw_era()))
        if events and isinstance(events[-1], Outcome):
            return None
        self._take_events(line.user_id, breaker, events)
        return permit_of(breaker.state, events)

    def _report_of(self, line: ImportedOutcome, permit: Permit | None) -> Report:
        return Report(
            at=line.at_us,
            event_id=self._next_id(),
            era=_draw_era(),
            kind=Kind.SUCCESS if line.succeeded else Kind.FAILURE,
            permit=permit,
            duration_us=line.duration_us,
            operation=_clean_name(line.operation),
            error_type=_clean_name(line.error_type),
            error_message=None if line.error_message is None else clean_text(line.error_message),
        )

    def _next_id(self) -> EventId:
        return EventId(self._writer_id, self._seq + 1)

    def _take_events(self, user_id: int, breaker: _Breaker, events: Sequence[Event]) -> None:
        for event in events:
            before = breaker.state
            breaker.state = evolve(before, event)
            if isinstance(event, Outcome):
                self._seq += 1
                self._count(event.verdict)
                self._work.outcomes.append(outcome_row(user_id, event, event.at))
                self._work.marks.extend(_marks(user_id, breaker, before, event))
            elif isinstance(event, Transition):
                self._seq += 1
                breaker.run_is_marked = False
                self._work.transitions.append(UserTransition(user_id, event))

    def _count(self, verdict: Verdict) -> None:
        report = self._report
        report.counted += verdict is Verdict.COUNTED
        report.would_be_refused += verdict is Verdict.WOULD_BE_REFUSED
        report.late += verdict is Verdict.NOT_COUNTED


def _marks(user_id: int, breaker: _Breaker, before: BreakerState, outcome: Outcome) -> Iterator[Mark]:
    """Tell what the breaker's row must hear of; of a run of failures it is the first that this import adds."""
    after = breaker.state
    kind: MarkKind | None = None
    if after is before:
        return
    if after.state is CircuitState.HALF_OPEN:
        kind = MarkKind.PROBE_SUCCEEDED if outcome.kind is Kind.SUCCESS else None
    elif after.calm:
        kind, breaker.run_is_marked = MarkKind.RUN_ENDED, False
    elif not breaker.run_is_marked:
        kind, breaker.run_is_marked = MarkKind.FAILED, True
    if kind is not None:
        last_failure = after.last_failure if kind is MarkKind.RUN_ENDED else None
        seq = outcome.event_id.writer_seq
        yield Mark(user_id, seq, kind, outcome.at, outcome.permit.era, last_failure)


@lru_cache(maxsize=4_096)
def _clean_name(name: str | None) -> str | None:
    return None if name is None else clean_name(name)
