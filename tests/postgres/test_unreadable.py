"""A row that this version can't read is passed over loudly, and stops nobody else (DESIGN rule 15)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from breaker_store import BreakerStore, CircuitState
from breaker_store.core.events import Kind
from tests.postgres.living import QUICK, USER, Ear, fail, ok, trip

UNREADABLE = {
    "details of a newer version": ("""'{"new": true}'""", 2),
    "a policy out of bounds": ("jsonb_set(details, '{policy,failure_threshold}', '10000000')", 1),
    "a detail missing": ("details - 'from'", 1),
}
unreadable = pytest.mark.parametrize("written", UNREADABLE.values(), ids=UNREADABLE)

# As another version would open USER's breaker: like USER + 1's opening, but for the details.
OPEN = """
WITH row AS (
    UPDATE breaker_states SET
        version = version + 1, generation = generation + 1, era = 77, state = 1, last_writer_id = 4,
        last_writer_seq = 1, opened_at = clock_timestamp(), retry_at = clock_timestamp() + interval '30 s',
        tail_from = NULL, tail_until = NULL, tail_writer = NULL
    WHERE user_id = {user} RETURNING *
), place AS (UPDATE log_position SET last = last + 1 RETURNING last)
INSERT INTO breaker_events (
    occurred_at, user_id, writer_id, writer_seq, position, generation, era, version, kind, details, details_version
)
SELECT clock_timestamp(), row.user_id, 4, 1, last, row.generation, row.era, row.version, 10, {details}, {version}
FROM row, place, breaker_transitions AS readable WHERE readable.user_id = {user} + 1
"""


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[BreakerStore]:
    """Start another process on the same database."""
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        yield store


async def open_unreadably(connection: asyncpg.Connection, written: tuple[str, int]) -> None:
    details, details_version = written
    await connection.execute(OPEN.format(user=USER, details=details, version=details_version))


@unreadable
async def test_a_follower_says_what_it_can_not_read_and_goes_on_with_what_follows(
    store: BreakerStore,
    other: BreakerStore,
    connection: asyncpg.Connection,
    caplog: pytest.LogCaptureFixture,
    written: tuple[str, int],
) -> None:
    ear = Ear(store.registry)
    await other.registry.get_breaker(USER).call(ok)
    await trip(other.registry.get_breaker(USER + 1))
    await other.flush()
    await open_unreadably(connection, written)
    await trip(other.registry.get_breaker(USER + 2))
    await ear.wait_for_kind(Kind.OPENED, USER + 2)
    assert f"breaker {USER}: a transition of kind 10" in caplog.text
    assert "passed over" in caplog.text
    store.registry.get_breaker(USER).reset()
    await store.registry.get_breaker(USER + 3).call(ok)
    await store.flush()
    assert await connection.fetchval("SELECT version FROM breaker_states WHERE user_id = $1", USER) == 2
    assert await connection.fetchval("SELECT count(*) FROM breaker_states WHERE user_id = $1", USER + 3) == 1


@unreadable
@pytest.mark.parametrize("was_open", [False, True], ids=["closed before", "open before"])
async def test_a_restart_finds_what_a_follower_found(
    store: BreakerStore,
    connection: asyncpg.Connection,
    database_url: str,
    written: tuple[str, int],
    was_open: bool,
) -> None:
    ear = Ear(store.registry)
    await (trip if was_open else fail)(store.registry.get_breaker(USER))
    await trip(store.registry.get_breaker(USER + 1))
    await store.flush()
    await open_unreadably(connection, written)
    heard = await ear.wait_for_kind(Kind.UNRECOGNIZED)
    live = store.registry.get_breaker(USER).state
    assert live.last_transition == heard.event_id
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as again:
        state = again.registry.get_breaker(USER).state
        assert (state.version, state.last_transition) == (live.version, heard.event_id)
        assert state.state is live.state
        again.registry.get_breaker(USER).reset()
        await again.registry.get_breaker(USER + 3).call(ok)
        await again.flush()
        assert again.registry.get_breaker(USER).state.state is CircuitState.CLOSED
    assert await connection.fetchval("SELECT count(*) FROM breaker_states WHERE user_id = $1", USER + 3) == 1


async def test_a_process_that_lost_to_a_policy_it_can_not_read_goes_on_recording(
    store: BreakerStore, connection: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await store.registry.get_breaker(USER).call(ok)
    await store.flush()
    await connection.execute(
        """
        UPDATE breaker_states SET
            version = 1, generation = 1, era = 9, last_writer_id = 5, last_writer_seq = 1, policy_is_own = true,
            policy = '{"failure_threshold": 10000000}'
        """
    )
    store.registry.get_breaker(USER).reset()
    await store.flush()
    await store.registry.get_breaker(USER + 1).call(ok)
    await store.flush()
    assert "a stored policy can't be read" in caplog.text
    state = store.registry.get_breaker(USER).state
    assert (state.state, state.version) == (CircuitState.CLOSED, 1)
    assert await connection.fetchval("SELECT count(*) FROM breaker_states WHERE user_id = $1", USER + 1) == 1
