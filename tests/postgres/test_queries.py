from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from breaker_store.core.events import EventId, Kind
from breaker_store.errors import UnknownBreakerError
from breaker_store.postgres import queries
from breaker_store.postgres.queries import Cursor, CursorError, HistoryFilter
from breaker_store.postgres.reading import create_engine, reading

USER = 7
FIRST_DAY = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 30

INSERT = """
INSERT INTO breaker_events
    (occurred_at, user_id, writer_id, writer_seq, generation, era, kind, verdict, version, position, details)
VALUES ($1, $2, $3, $4, 0, 0, $5, $6, $7, $8, $9)
"""


async def insert(
    connection: asyncpg.Connection, at: datetime, seq: int, kind: int, **columns: object
) -> None:
    details = columns.get("details")
    await connection.execute(
        INSERT,
        at,
        columns.get("user_id", USER),
        columns.get("writer_id", 1),
        seq,
        kind,
        columns.get("verdict"),
        columns.get("version"),
        columns.get("position"),
        None if details is None else json.dumps(details),
    )


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_engine(database_url)
    async with reading(engine) as connection:
        yield connection
    await engine.dispose()


@pytest.fixture
async def known(connection: asyncpg.Connection) -> int:
    """Make a user of whom nothing is stored but the row, and days for a history."""
    await connection.execute("INSERT INTO breaker_states (user_id) VALUES ($1)", USER)
    last = FIRST_DAY + timedelta(days=DAYS - 1)
    await connection.execute("SELECT ensure_outcome_partitions($1, $2)", FIRST_DAY.date(), last.date())
    return USER


@pytest.fixture
async def busy(owner: asyncpg.Connection, known: int) -> int:
    """Make a history of an outcome and a transition an hour, amid those of others."""
    await owner.execute(
        "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind, verdict)"
        " SELECT $1::timestamptz + hour * interval '1 hour', who, 100 + who, hour + 1, 0, 0, 1, 0"
        " FROM generate_series(0, $2::integer * 24 - 1) AS hour, generate_series(0, 40) AS who",
        FIRST_DAY,
        DAYS,
    )
    await owner.execute(
        "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind, version, position)"
        " SELECT $1::timestamptz + hour * interval '1 hour', who, 200 + who, hour + 1, 0, 0, 13, hour + 1, who * 1000 + hour"
        " FROM generate_series(0, $2::integer * 24 - 1) AS hour, generate_series(0, 10) AS who",
        FIRST_DAY,
        DAYS,
    )
    await owner.execute("ANALYZE")
    return known


def scans(node: dict) -> Iterator[dict]:
    """Find the places where a plan reads a table, leaving out what was never run."""
    if node["Actual Loops"] and "Relation Name" in node:
        yield node
    for part in node.get("Plans", ()):
        yield from scans(part)


async def explain(connection: asyncpg.Connection, history_filter: HistoryFilter) -> list[dict]:
    """Run the statement for a page with the plan that serves for any user, and find what it read."""
    sources = queries._tables_of(history_filter.kinds)
    statement, values = queries._select_history(queries._Source(sources, "*"), USER, history_filter)
    await connection.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE page AS {statement}")
    arguments = ", ".join(f"'{value}'" for value in values).replace("[", "{").replace("]", "}")
    plan = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE page ({arguments})")
    await connection.execute("DEALLOCATE page")
    return list(scans(json.loads(plan)[0]["Plan"]))


MIDDLE = FIRST_DAY + timedelta(days=15)


@pytest.mark.parametrize(
    ("history_filter", "days", "transitions"),
    [
        (HistoryFilter(limit=20), 1, 1),
        (HistoryFilter(limit=60), 3, 1),
        (HistoryFilter(limit=20, after=Cursor(MIDDLE, EventId(1, 1))), 2, 1),
        (HistoryFilter(limit=20, until=MIDDLE), 1, 1),
        (HistoryFilter(limit=200, since=MIDDLE, until=MIDDLE + timedelta(hours=5)), 1, 1),
        (HistoryFilter(limit=20, kinds=frozenset({Kind.SUCCESS})), 1, 0),
        (HistoryFilter(limit=20, kinds=frozenset({Kind.RESET})), 0, 1),
        (HistoryFilter(limit=20, kinds=frozenset({Kind.RESET, Kind.SUCCESS})), 1, 1),
    ],
)
async def test_a_page_is_read_by_the_index_from_as_few_days_as_hold_it(
    owner, busy, history_filter, days, transitions
):
    found = await explain(owner, history_filter)
    tables = [scan["Relation Name"] for scan in found]
    assert [table for table in tables if table == "breaker_transitions"] == [
        "breaker_transitions"
    ] * transitions
    assert len(tables) - transitions <= days
    for scan in found:
        assert scan["Actual Rows"] <= history_filter.limit + 1
        # The second is what it is called where few rows are left to be sorted.
        assert "user_id = " in scan.get("Index Cond", scan.get("Recheck Cond"))


async def test_a_cursor_is_looked_up_in_the_index(connection, busy):
    after = Cursor(MIDDLE, EventId(1, 1))
    for scan in await explain(connection, HistoryFilter(after=after)):
        assert "ROW(occurred_at, writer_id, writer_seq) < ROW(" in scan["Index Cond"]


async def test_open_breakers_are_found_by_their_index(owner, known):
    await owner.execute("INSERT INTO breaker_states (user_id) SELECT generate_series(100, 5000)")
    await owner.execute("ANALYZE")
    for state in (queries.CircuitState.OPEN, queries.CircuitState.HALF_OPEN):
        statement = queries._select_ids(state)
        text = str(statement.compile(dialect=dialect.dialect(), compile_kwargs={"literal_binds": True}))
        plan = await owner.fetchval(f"EXPLAIN (FORMAT JSON) {text}")
        assert "breaker_states_by_state" in plan
        assert "Sort" not in plan


async def walk(reader: AsyncConnection, ask, limit: int) -> list:
    items, cursor = [], None
    while True:
        page = await ask(reader, USER, HistoryFilter(limit=limit, after=cursor))
        items += page.items
        assert len(page.items) <= limit
        if page.next_cursor is None:
            return items
        cursor = Cursor.read(str(page.next_cursor))


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_events_of_the_same_moment_are_told_in_the_order_of_their_identity(
    reader, connection, known, limit
):
    for writer_id, seq in [(2, 1), (1, 2), (1, 10), (10, 1), (1, 1)]:
        await insert(connection, MIDDLE, seq, Kind.SUCCESS, writer_id=writer_id)
    await insert(connection, MIDDLE, 3, Kind.RESET, writer_id=2, version=1, position=1, details={})
    items = await walk(reader, queries.events, limit)
    assert [item.id for item in items] == ["10-1", "2-3", "2-1", "1-10", "1-2", "1-1"]


@pytest.mark.parametrize("limit", [7, 100])
async def test_outcomes_and_transitions_are_merged_by_time(reader, busy, limit):
    items = await walk(reader, queries.events, limit)
    assert len(items) == DAYS * 48
    assert items == sorted(items, key=lambda item: (item.at, item.kind == "reset"), reverse=True)


async def test_what_a_newer_version_wrote_is_shown_as_far_as_it_can_be_read(reader, connection, known):
    await insert(connection, MIDDLE, 1, 7, verdict=9)
    await insert(connection, MIDDLE, 2, 42, version=1, position=1, details={"to": "resting", "new": [1]})
    await insert(connection, MIDDLE, 3, 43, version=2, position=2)
    items = (await queries.events(reader, USER, HistoryFilter())).items
    assert [item.kind for item in items] == ["kind-43", "kind-42", "kind-7"]
    assert [item.verdict for item in items] == [None, None, "verdict-9"]
    changes = (await queries.transitions(reader, USER, HistoryFilter())).items
    assert [(change.kind, change.to_state, change.causes) for change in changes] == [
        ("kind-43", None, []),
        ("kind-42", "resting", []),
    ]


async def test_a_superseded_transition_is_shown_as_such(reader, connection, known):
    await insert(connection, MIDDLE, 1, Kind.RESET, version=1, position=1, details={"to": "closed"})
    await insert(connection, MIDDLE, 2, Kind.OPENED, version=1, details={"to": "open"})
    lost, won = (await queries.transitions(reader, USER, HistoryFilter())).items
    assert (lost.position, lost.superseded) == (None, True)
    assert (won.position, won.superseded) == (1, False)
    lost, won = (await queries.events(reader, USER, HistoryFilter())).items
    assert (lost.remark, won.remark) == ("superseded: another process was first", None)


async def test_a_known_user_without_events_has_an_empty_history(reader, known):
    page = await queries.events(reader, known, HistoryFilter())
    assert (page.items, page.next_cursor) == ([], None)


@pytest.mark.parametrize("ask", [queries.events, queries.transitions])
async def test_an_unknown_user_has_no_history(reader, ask):
    with pytest.raises(UnknownBreakerError):
        await ask(reader, USER, HistoryFilter())


@pytest.mark.parametrize("count", [1_000, 1_001])
async def test_a_summary_names_at_most_a_thousand_of_each_state(reader, connection, count):
    await connection.execute(
        "INSERT INTO breaker_states (user_id, state) SELECT -who, 1 FROM generate_series(1, $1::integer) AS who",
        count,
    )
    await connection.execute("INSERT INTO breaker_states (user_id, state) VALUES (5, 2), (3, 2), (4, 0)")
    await connection.execute("SELECT recount_breakers()")
    found = await queries.summary(reader)
    assert (found.total_breakers, found.closed, found.open, found.half_open) == (count + 3, 1, count, 2)
    assert found.open_user_ids == list(range(-count, -count + 1_000))
    assert found.half_open_user_ids == [3, 5]
    assert found.ids_truncated == (count > 1_000)


async def test_all_answers_of_a_connection_are_of_one_moment(reader, connection):
    assert (await queries.summary(reader)).total_breakers == 0
    await connection.execute("INSERT INTO breaker_states (user_id) VALUES (1)")
    await connection.execute("SELECT recount_breakers()")
    assert (await queries.summary(reader)).total_breakers == 0


BIGINTS = st.integers(-(2**63), 2**63 - 1)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC))


@given(MOMENTS, BIGINTS, BIGINTS)
def test_a_cursor_is_read_as_it_was_written(at, writer_id, writer_seq):
    cursor = Cursor(at, EventId(writer_id, writer_seq))
    assert Cursor.read(str(cursor)) == cursor


@given(st.text())
def test_any_other_text_is_no_cursor(text):
    with pytest.raises(CursorError):
        Cursor.read(text)
