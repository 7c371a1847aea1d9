"""Whatever happens comes back from Postgres as it went in, and the ledger can be checked against it."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from breaker_store.core.cleaning import clean_name
from breaker_store.core.events import CircuitState, EventId, Failure, Kind, Outcome, Transition
from breaker_store.core.policy import GREATEST_COUNT, GREATEST_TIMEOUT_SECONDS, Policy
from breaker_store.ports import Batch, OutcomeRow, Source, UserTransition
from breaker_store.postgres.appending import SMALL_BATCH
from breaker_store.postgres.codec import failure_document
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.partitions import FIRST_US, LAST_US
from breaker_store.postgres.stored_events import read_event_id, read_outcome, read_transition
from breaker_store.runtime.clock import Clock
from tests.depth import DEPTH
from tests.postgres.stored import contradicting_batches, recompute_digest

SMALLINT, INTEGER, BIGINT = (2**15 - 1, 2**31 - 1, 2**63 - 1)
WRITERS = itertools.count(1)
NOON_US = 1_767_355_200_000_000

databases = settings(
    max_examples=20 * DEPTH,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

eras = st.integers(-INTEGER - 1, INTEGER)
counts = st.integers(0, INTEGER)
users = st.integers(-BIGINT - 1, BIGINT)
durations = st.integers(0, BIGINT)
storable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)
texts = st.none() | storable | st.sampled_from(["", "\\x00 $batch_$ '\"{},\n\r\t", "é€🙂", "x" * 2_000])
names = st.none() | storable | st.sampled_from(["", "n" * 200])
# Few days, since each has its partition made: the first and last microsecond that can be, and Postgres' own epoch.
times = st.sampled_from([FIRST_US, LAST_US, 946_684_799_999_999, 946_684_800_000_000, NOON_US, NOON_US + 1])

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

GREATEST_ROW: OutcomeRow = (
    LAST_US, BIGINT, 0, BIGINT, INTEGER, INTEGER, 3, 2, INTEGER, INTEGER, SMALLINT, uuid.UUID(int=2**128 - 1),
    "🙂" * 200, "n" * 200, "🙂" * 2_000,
)  # fmt: skip
SMALLEST_ROW: OutcomeRow = (
    FIRST_US, -BIGINT - 1, 0, 0, 0, -INTEGER - 1, 1, 0, 1, 1, -SMALLINT - 1, uuid.UUID(int=0), "", "", "",
)  # fmt: skip
EMPTY_ROW: OutcomeRow = (FIRST_US, 0, 0, None, 0, 0, 1, 0, None, None, None, None, None, None, None)

event_ids = st.builds(EventId, st.integers(1, BIGINT), st.integers(-1, BIGINT))
failures = st.builds(
    Failure, event_ids, times, names, texts, names, st.none() | durations, st.none() | st.uuids()
)
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

PLAIN_TRANSITION = Transition(
    Kind.POLICY_CHANGED, EventId(0, 0), NOON_US, 1, 0, 0, None, CircuitState.CLOSED, CircuitState.CLOSED,
    Policy(timeout_seconds=-0.0),
)  # fmt: skip


def make_batch(rows: list[OutcomeRow], changes: list[tuple[int, Transition]]) -> Batch:
    """Make the first batch of a new writer, numbering what is in it."""
    writer_id, numbers = next(WRITERS), itertools.count(1)
    outcomes = [(*row[:2], next(numbers), *row[3:]) for row in rows]
    numbered = [
        UserTransition(user_id, renumbered(change, EventId(writer_id, next(numbers))))
        for user_id, change in changes
    ]
    at = [row[0] for row in outcomes] + [each.transition.at for each in numbered]
    return Batch(
        writer_id, 1, 1, len(at), Source.LIVE, None, min(at), max(at), outcomes, numbered
    )  # fmt: skip


def renumbered(transition: Transition, event_id: EventId) -> Transition:
    fields = {name: getattr(transition, name) for name in Transition.__dataclass_fields__}
    return Transition(**{**fields, "event_id": event_id})


@pytest.fixture
async def log(database_url: str) -> AsyncIterator[PostgresEventLog]:
    log = PostgresEventLog(database_url, Clock())
    yield log
    await log.close()


async def read_back(connection: asyncpg.Connection, batch: Batch) -> list[tuple[int, Outcome]]:
    rows = await connection.fetch(
        "SELECT * FROM breaker_outcomes WHERE writer_id = $1 ORDER BY writer_seq", batch.writer_id
    )
    return [(row["user_id"], read_outcome(row)) for row in rows]


def read_expected(batch: Batch) -> list[tuple[int, Outcome]]:
    names = ("occurred_at", "user_id", "writer_seq", "duration_us", "generation", "era", "kind", "verdict", "probe",
             "count", "attempt", "trace_id", "operation", "error_type", "error_message")  # fmt: skip
    expected = []
    for row in batch.outcomes:
        columns = dict(zip(names, row, strict=True)) | {"writer_id": batch.writer_id}
        for name in ("operation", "error_type"):
            columns[name] = None if columns[name] is None else clean_name(columns[name])
        outcome = read_outcome({**columns, "occurred_at": instant(row[0])})
        expected.append((row[1], outcome))
    return expected


def instant(time_us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)


async def ledger_row(connection: asyncpg.Connection, batch: Batch) -> asyncpg.Record:
    return await connection.fetchrow("SELECT * FROM writer_batches WHERE writer_id = $1", batch.writer_id)


@pytest.mark.parametrize("filling", [0, SMALL_BATCH + 1], ids=["small", "large"])
@databases
@given(rows=st.lists(outcome_rows, min_size=1, max_size=4))
@example(rows=[GREATEST_ROW, SMALLEST_ROW, EMPTY_ROW])
async def test_any_outcome_comes_back_as_it_was(
    log: PostgresEventLog, connection: asyncpg.Connection, filling: int, rows: list[OutcomeRow]
) -> None:
    batch = make_batch(rows + [EMPTY_ROW] * filling, [])
    await log.append(log.seal(batch))
    assert await read_back(connection, batch) == read_expected(batch)
    stored = await ledger_row(connection, batch)
    assert stored["digest"] == await recompute_digest(connection, stored)


@databases
@given(user_id=users, change=transitions)
@example(user_id=0, change=PLAIN_TRANSITION).via("a zero with a sign is written without it in jsonb")
async def test_any_transition_comes_back_as_it_was(
    log: PostgresEventLog, connection: asyncpg.Connection, user_id: int, change: Transition
) -> None:
    batch = make_batch([], [(user_id, change)])
    await log.append(log.seal(batch))
    row = await connection.fetchrow("SELECT * FROM breaker_transitions WHERE writer_id = $1", batch.writer_id)
    user, expected = batch.transitions[0]
    assert read_transition(row) == (user, replace(expected, position=row["position"]))
    stored = await ledger_row(connection, batch)
    assert stored["digest"] == await recompute_digest(connection, stored)


def test_a_failure_that_belongs_to_no_trace_is_written_as_it_always_was() -> None:
    assert failure_document(Failure(EventId(7, 3), NOON_US, "TimeoutError", "no answer", "send", 17)) == {
        "id": "7-3", "at": "2026-01-02T12:00:00.000000+00:00", "error_type": "TimeoutError",
        "error_message": "no answer", "operation": "send", "duration_us": 17,
    }  # fmt: skip


async def test_the_ledger_tells_when_a_row_was_altered(
    log: PostgresEventLog, owner: asyncpg.Connection
) -> None:
    good, bad = make_batch([GREATEST_ROW], []), make_batch([SMALLEST_ROW] * 60, [])
    for batch in (good, bad):
        await log.append(log.seal(batch))
    assert await contradicting_batches(owner) == []
    await owner.execute("ALTER TABLE breaker_events DISABLE TRIGGER append_only")
    await owner.execute(
        "ALTER TABLE breaker_outcomes DISABLE TRIGGER append_only;"
        "ALTER TABLE breaker_outcomes_19700101 DISABLE TRIGGER append_only"
    )
    await owner.execute(
        "UPDATE breaker_outcomes SET duration_us = 1 WHERE writer_seq = 30 AND writer_id = $1", bad.writer_id
    )
    assert await contradicting_batches(owner) == [(bad.writer_id, 1)]


async def test_an_imported_outcome_of_each_day_finds_its_partition(
    log: PostgresEventLog, connection: asyncpg.Connection
) -> None:
    days = [(NOON_US + day * 86_400_000_000 * 40, *EMPTY_ROW[1:]) for day in range(60)]
    batch = make_batch(days, [])
    await log.append(log.seal(batch))
    assert await read_back(connection, batch) == read_expected(batch)


@pytest.mark.parametrize("text", ["", "1", "1-", "-", "a-b", "1-2-3"])
def test_a_text_that_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an event's id|invalid literal"):
        read_event_id(text)


@given(event_id=event_ids)
def test_an_id_reads_back_from_its_text(event_id: EventId) -> None:
    assert read_event_id(str(event_id)) == event_id
