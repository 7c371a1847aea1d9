"""Lists of breakers and of transitions stay cheap however long they are: a page is read from an index, in its order."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest
from pytest_postgresql.executors import NoopExecutor

from breaker_store.core.events import CircuitState, Kind
from breaker_store.postgres.breaker_list import BreakerCursor, BreakerFilter, BreakerOrder, select_breakers
from breaker_store.postgres.transition_list import TransitionFilter, select_transitions
from tests.conftest import make_template
from tests.postgres.explaining import explain_statement

FILL = """
INSERT INTO breaker_states (user_id, state, since, trips, trip_error)
SELECT number, (number % 50 = 0)::integer, now() - number * interval '1 second', number % 7, 'E' || number % 3
FROM generate_series(1, 20000) AS number;

INSERT INTO breaker_events
    (occurred_at, user_id, writer_id, writer_seq, position, generation, era, version, kind, details, details_version)
SELECT now() - number * interval '1 second', number, 1, number, number, 1, 1, 1, 10 + number % 4,
    jsonb_build_object('actor', CASE WHEN number % 1000 = 0 THEN 'alice' END,
        'causes', jsonb_build_array(jsonb_build_object('error_type', CASE WHEN number % 500 = 0 THEN 'Rare' ELSE 'Usual' END))), 1
FROM generate_series(1, 20000) AS number;
"""


@pytest.fixture(scope="module")
def template(migrated_server: NoopExecutor) -> Iterator[str]:
    """Fill a log with 20,000 breakers, of which each has changed once."""
    with make_template(migrated_server, FILL, "VACUUM ANALYZE breaker_states", "ANALYZE") as name:
        yield name


@pytest.mark.parametrize(
    "statement",
    [
        select_breakers(BreakerFilter()),
        select_breakers(BreakerFilter(order=BreakerOrder.TRIPS)),
        select_breakers(BreakerFilter(order=BreakerOrder.USER_ID)),
        select_breakers(
            BreakerFilter(
                order=BreakerOrder.USER_ID, after=BreakerCursor(BreakerOrder.USER_ID, 10_000, 10_000)
            )
        ),
        select_breakers(BreakerFilter(error="E1")),
        select_transitions(TransitionFilter()),
        select_transitions(TransitionFilter(kinds=frozenset({Kind.RESET}))),
        select_transitions(TransitionFilter(error="Rare")),
        select_transitions(TransitionFilter(actor="alice")),
    ],
)
async def test_a_page_is_read_from_an_index_in_its_order(connection: asyncpg.Connection, statement):
    nodes = await explain_statement(connection, statement)
    assert not [node for node in nodes if node["Node Type"] in ("Sort", "Seq Scan")]
    assert max(node["Actual Rows"] for node in nodes) <= 51


async def test_open_breakers_are_listed_without_looking_at_the_others(connection: asyncpg.Connection):
    nodes = await explain_statement(
        connection, select_breakers(BreakerFilter(states=frozenset({CircuitState.OPEN})))
    )
    assert max(node["Actual Rows"] for node in nodes) <= 400
