"""Batches of every kind of event, and what is in them, so that what was written can be compared with what is read."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from breaker_store.core.cleaning import clean_name
from breaker_store.core.events import CircuitState, EventId, Failure, Kind, Suspension, Transition, Verdict
from breaker_store.core.policy import GREATEST_COUNT, GREATEST_TIMEOUT_SECONDS, Policy
from breaker_store.ports import (
    Batch,
    Gap,
    GapReason,
    Mark,
    MarkKind,
    OutcomeRow,
    Source,
    UserTransition,
)
from breaker_store.spool import SpoolWriter

WRITER = 77
STARTED = 1_700_000_000_000_000
NOON = 1_767_355_200_000_000

SMALLINT, INTEGER, BIGINT = (2**15 - 1, 2**31 - 1, 2**63 - 1)

OWN_POLICY = Policy(
    3, 0.1 + 0.2, 7, 2, ("TimeoutError", "aiogram.exceptions.TelegramNetworkError"), ("KeyError",)
)
FAILURE = Failure(EventId(WRITER, 3), NOON - 5, "TimeoutError", 'no "answer"\n€🙂\\', "send_message", 17)
SUSPENSION = Suspension("ann", "unpaid \N{BANKNOTE WITH EURO SIGN}", NOON - 3)
GAP = Gap(GapReason.SPOOL_FULL, NOON - 9, NOON - 7, successes=3, refusals=2)


def success(seq: int, user_id: int = 101, operation: str | None = "send_message") -> OutcomeRow:
    return (
        NOON + seq, user_id, seq, 1_200, 1, -5, int(Kind.SUCCESS), int(Verdict.COUNTED),
        None, None, None, None, operation, None, None,
    )  # fmt: skip


def failed(seq: int, user_id: int = 101, message: str | None = "no answer 🙂") -> OutcomeRow:
    return (
        NOON + seq, user_id, seq, 1_200, 1, -5, int(Kind.FAILURE), int(Verdict.NOT_COUNTED),
        4, None, 2, uuid.UUID(int=2**128 - 2), "send_message", "TimeoutError", message,
    )  # fmt: skip


def refusals(seq: int, user_id: int = 101, count: int = 12) -> OutcomeRow:
    return (
        NOON + seq, user_id, seq, 500, 1, -5, int(Kind.REJECTED), int(Verdict.COUNTED),
        None, count, None, None, None, None, None,
    )  # fmt: skip


def opening(seq: int, user_id: int = 101, writer_id: int = WRITER, **changes: object) -> UserTransition:
    transition = Transition(
        kind=Kind.OPENED,
        event_id=EventId(writer_id, seq),
        at=NOON + seq,
        version=2,
        generation=3,
        era=-4,
        follows=EventId(9, 8),
        from_state=CircuitState.CLOSED,
        to_state=CircuitState.OPEN,
        policy=OWN_POLICY,
        policy_is_own=True,
        reason="because",
        actor="somebody",
        failure_count=5,
        last_failure=FAILURE,
        causes=(replace(FAILURE, at=NOON - 6), FAILURE),
        opened_at=NOON + seq,
        opened_by=EventId(writer_id, seq),
        retry_at=NOON + 60_000_000,
    )
    return UserTransition(user_id, replace(transition, **changes))


def first_failure_mark(seq: int, user_id: int = 101) -> Mark:
    return Mark(user_id, seq, MarkKind.FAILED, NOON + seq, -5, FAILURE)


def batch_of(
    *events: OutcomeRow | UserTransition,
    marks: Iterable[Mark] = (),
    newcomers: dict[int, Policy] | None = None,
    gaps: Iterable[Gap] = (),
    writer_id: int = WRITER,
    source: Source = Source.LIVE,
) -> Batch:
    outcomes = [event for event in events if not isinstance(event, UserTransition)]
    transitions = [event for event in events if isinstance(event, UserTransition)]
    seqs = [row[2] for row in outcomes] + [each.transition.event_id.writer_seq for each in transitions]
    times = [row[0] for row in outcomes] + [each.transition.at for each in transitions]
    return Batch(
        writer_id=writer_id,
        batch_no=0,
        first_seq=min(seqs, default=1),
        last_seq=max(seqs, default=0),
        source=source,
        previous_digest=None,
        earliest=min(times, default=0),
        latest=max(times, default=0),
        outcomes=outcomes,
        transitions=transitions,
        marks=list(marks),
        newcomers=newcomers or {},
        gaps=list(gaps),
    )


class Written(NamedTuple):
    """One write and where its records are in the file."""

    batch: Batch
    start: int
    end: int


def one_of_each_kind() -> list[Batch]:
    """Give batches of one event each, which hold every kind of event and everything that can go with one."""
    return [
        batch_of(success(1)),
        batch_of(success(2, operation=None)),
        batch_of(success(3, user_id=102), newcomers={102: OWN_POLICY}),
        batch_of(failed(5), marks=[first_failure_mark(5)]),
        batch_of(gaps=[GAP]),
        batch_of(opening(6)),
        batch_of(refusals(9), gaps=[GAP._replace(reason=GapReason.QUEUE_FULL)]),
        batch_of(success(11, operation="")),
        batch_of(opening(13, kind=Kind.FORCED_OPEN, forced=True, retry_at=None)),
        batch_of(opening(14, kind=Kind.SUSPENDED, forced=True, retry_at=None, suspension=SUSPENSION)),
        batch_of(opening(15, kind=Kind.CARRIED_OVER, success_count=1)),
    ]


def write_all(writer: SpoolWriter, batches: Iterable[Batch]) -> list[Written]:
    """Write batches one by one into one file."""
    written = []
    for batch in batches:
        start = writer.size
        writer.write(batch)
        written.append(Written(batch, start, writer.size))
    return written


def read_all(writer: SpoolWriter, after_seq: int = 0, limit: int = 3) -> list[Batch]:
    return list(reading(writer, after_seq, limit))


def reading(writer: SpoolWriter, after_seq: int = 0, limit: int = 3) -> Iterator[Batch]:
    while (batch := writer.read(after_seq, limit)) is not None:
        assert batch.event_count <= limit
        yield batch
        after_seq = max(batch.last_seq, after_seq)


class Content(NamedTuple):
    """What several batches hold together."""

    events: list[OutcomeRow | UserTransition]
    marks: list[Mark]
    newcomers: dict[int, Policy]
    gaps: list[Gap]


def content(batches: Iterable[Batch]) -> Content:
    """Put batches together, with the names of operations and errors as they are kept."""
    whole = Content([], [], {}, [])
    for batch in batches:
        events: list[OutcomeRow | UserTransition] = [_kept(row) for row in batch.outcomes]
        events += batch.transitions
        whole.events.extend(sorted(events, key=seq_of))
        whole.marks.extend(sorted(batch.marks, key=lambda mark: mark.writer_seq))
        whole.newcomers.update(batch.newcomers)
        whole.gaps.extend(batch.gaps)
    return whole


def _kept(row: OutcomeRow) -> OutcomeRow:
    operation, error_type = (None if name is None else clean_name(name) for name in row[12:14])
    return (*row[:12], operation, error_type, row[14])


def seq_of(event: OutcomeRow | UserTransition) -> int:
    return event.transition.event_id.writer_seq if isinstance(event, UserTransition) else event[2]


def seqs(batches: Iterable[Batch]) -> list[int]:
    return [seq_of(event) for event in content(batches).events]


def spool_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.spool"))


eras = st.integers(-INTEGER - 1, INTEGER)
counts = st.integers(0, INTEGER)
users = st.integers(-BIGINT - 1, BIGINT)
durations = st.integers(0, BIGINT)
times = st.integers(-BIGINT - 1, BIGINT)
storable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
texts = st.none() | storable | st.sampled_from(["", "'\"{},\n\r\t\\", "é€🙂", "\xfe\xc1", "x" * 2_000])
names = st.none() | storable | st.sampled_from(["", "n" * 300, "token=123456"])

outcome_rows: st.SearchStrategy[OutcomeRow] = st.tuples(
    times,
    users,
    st.just(0),
    st.none() | durations,
    counts,
    eras,
    st.sampled_from([1, 2, 3]),
    st.sampled_from([0, 1, 2]),
    st.none() | st.integers(1, INTEGER),
    st.none() | st.integers(1, INTEGER),
    st.none() | st.integers(0, SMALLINT),
    st.none() | st.uuids(),
    names,
    names,
    texts,
)
plain_rows: st.SearchStrategy[OutcomeRow] = st.tuples(
    times, users, st.just(0), durations, counts, eras, st.just(1), st.just(0),
    st.none(), st.none(), st.none(), st.none(), names, st.none(), st.none(),
)  # fmt: skip
event_ids = st.builds(EventId, st.integers(1, BIGINT), st.integers(-1, BIGINT))
failures = st.builds(Failure, event_ids, times, names, texts, names, st.none() | durations)
policies = st.builds(
    Policy,
    failure_threshold=st.integers(1, GREATEST_COUNT),
    timeout_seconds=st.floats(0, GREATEST_TIMEOUT_SECONDS),
    success_threshold=st.integers(1, GREATEST_COUNT),
    half_open_max_calls=st.integers(1, GREATEST_COUNT),
    counted_errors=st.none() | st.lists(storable, max_size=2).map(tuple),
    ignored_errors=st.lists(storable, max_size=2).map(tuple),
)
transitions = st.builds(
    Transition,
    kind=st.sampled_from([kind for kind in Kind if kind >= Kind.OPENED]),
    event_id=st.just(EventId(0, 0)),
    at=times,
    version=st.integers(1, INTEGER),
    generation=counts,
    era=eras,
    follows=st.none() | event_ids,
    from_state=st.sampled_from(CircuitState),
    to_state=st.sampled_from(CircuitState),
    policy=policies,
    policy_is_own=st.booleans(),
    reason=texts,
    actor=texts,
    failure_count=counts,
    last_failure=st.none() | failures,
    causes=st.lists(failures, max_size=3).map(tuple),
    opened_at=st.none() | times,
    opened_by=st.none() | event_ids,
    retry_at=st.none() | times,
    position=st.none(),
)
gaps = st.builds(Gap, st.sampled_from(GapReason), times, times, counts, counts, counts, counts, counts)


@st.composite
def any_batches(draw: st.DrawFn) -> Batch:
    """Draw a batch; there may be nothing but gaps in it, or nothing at all."""
    events: list[OutcomeRow | UserTransition] = []
    seq = 0
    for drawn in draw(st.lists(plain_rows | outcome_rows | st.tuples(users, transitions), max_size=5)):
        seq += draw(st.integers(1, 3))
        if len(drawn) == 2:
            user_id, transition = drawn
            events.append(UserTransition(user_id, replace(transition, event_id=EventId(WRITER, seq))))
        else:
            events.append((*drawn[:2], seq, *drawn[3:]))
    outcomes = [event for event in events if not isinstance(event, UserTransition)]
    marked = draw(st.lists(st.sampled_from(outcomes), unique=True, max_size=2)) if outcomes else []
    return batch_of(
        *events,
        marks=sorted(
            Mark(row[1], row[2], draw(st.sampled_from(MarkKind)), row[0], row[5], draw(st.none() | failures))
            for row in marked
        ),
        newcomers=draw(st.dictionaries(st.sampled_from([_user(event) for event in events]), policies))
        if events
        else {},
        gaps=draw(st.lists(gaps, max_size=2)),
    )


def _user(event: OutcomeRow | UserTransition) -> int:
    return event.user_id if isinstance(event, UserTransition) else event[1]
