from __future__ import annotations

import asyncio

import pytest

from breaker_store import BreakerStore, Kind, UnknownBreakerError, control
from breaker_store.control import ContendedBreakerError
from breaker_store.ports import Source


async def answer() -> None:
    pass


@pytest.fixture
async def known(database_url: str) -> int:
    """Make a user with one event."""
    async with BreakerStore.open(database_url=database_url) as store:
        await store.registry.get_breaker(7).call(answer)
        await store.flush()
    return 7


async def test_a_reset_is_an_event_of_a_writer_of_its_own(database_url, known, connection):
    await control.reset(database_url, known, actor="Ada", reason="a drill")
    row = await connection.fetchrow("SELECT * FROM breaker_transitions")
    assert (row["kind"], row["writer_seq"], row["position"], row["version"]) == (Kind.RESET, 1, 1, 1)
    ledger = await connection.fetchrow("SELECT * FROM writer_batches WHERE writer_id = $1", row["writer_id"])
    assert (ledger["source"], ledger["batch_no"], ledger["event_count"]) == (Source.OPERATOR, 1, 1)


async def test_an_unknown_user_is_said_and_nothing_is_made_of_it(database_url, connection):
    with pytest.raises(UnknownBreakerError):
        await control.reset(database_url, 8)
    for table in ("breaker_states", "breaker_events", "writer_batches"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_each_of_several_resets_at_once_either_comes_or_says_that_it_did_not(
    database_url, known, connection
):
    resets = [control.reset(database_url, known) for _ in range(8)]
    answers = await asyncio.gather(*resets, return_exceptions=True)
    won = [standing for standing in answers if not isinstance(standing, ContendedBreakerError)]
    assert all(standing.state["state"] == "closed" for standing in won)
    positions = await connection.fetch(
        "SELECT position, version FROM breaker_transitions WHERE position IS NOT NULL ORDER BY position"
    )
    expected = list(range(1, len(won) + 1))
    assert [tuple(row) for row in positions] == [(number, number) for number in expected]


async def test_a_reset_comes_after_what_it_resets_whatever_the_clocks_say(database_url, known, connection):
    """A writer whose measure of the database's clock is ahead makes transitions of the near future."""
    await control.reset(database_url, known)
    await connection.execute(
        "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, position, generation, era, version,"
        " kind, details, details_version)"
        " SELECT occurred_at + interval '1 hour', user_id, 5, 1, 2, 2, 77, 2, kind, details, 1 FROM breaker_transitions"
    )
    await connection.execute("UPDATE log_position SET last = 2")
    await connection.execute("SELECT restore_breaker_state($1)", known)
    await control.reset(database_url, known)
    times = await connection.fetch("SELECT occurred_at FROM breaker_transitions ORDER BY version")
    assert len(times) == 3
    assert sorted(times) == times
