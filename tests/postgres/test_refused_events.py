"""An event that Postgres refuses never holds up the others (DESIGN rules 15 and 17)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from breaker_store import BreakerStore, CircuitState
from breaker_store.core.cleaning import NAME_LIMIT, TEXT_LIMIT
from breaker_store.core.events import Kind, Outcome, Transition
from breaker_store.core.rebuild import rebuild
from tests.postgres.living import QUICK, USER, NoAnswerError, fail, fail_uncleaned, ok, timeless
from tests.postgres.stored import contradicting_batches, read_events

CENTURY_US = 100 * 365 * 86_400_000_000
UNSTORABLE = {"NUL": "a\0b", "lone surrogate": "a\udc80b"}


async def outcomes(connection: asyncpg.Connection, user_id: int = USER) -> list[Outcome]:
    events = await read_events(connection, user_id)
    found = [event for event in events if isinstance(event, Outcome)]
    return sorted(found, key=lambda outcome: outcome.event_id)


@pytest.mark.parametrize("around", [1, 40], ids=["small", "large"])
@pytest.mark.parametrize("text", UNSTORABLE.values(), ids=UNSTORABLE)
@pytest.mark.parametrize("field", ["error_message", "error_type", "operation"])
async def test_an_event_with_a_text_that_postgres_refuses_is_stored_without_it(
    store: BreakerStore, connection: asyncpg.Connection, around: int, text: str, field: str
) -> None:
    for user_id in range(around):
        await store.registry.get_breaker(user_id).call(ok)
    fail_uncleaned(store.registry, **{field: text})
    for user_id in range(around):
        await store.registry.get_breaker(user_id).call(ok)
    await store.flush()
    stats = store.recorder.stats()
    assert (stats.flushed, stats.set_aside) == (2 * around + 1, 0)
    (stored,) = await outcomes(connection)
    assert stored.kind is Kind.FAILURE
    assert stored.duration_us == 1
    assert "\0" not in f"{stored.error_message}{stored.error_type}{stored.operation}"
    assert await connection.fetchval("SELECT count(*) FROM breaker_outcomes") == 2 * around + 1
    assert await contradicting_batches(connection) == []


async def test_an_event_whose_day_can_have_no_partition_is_lost_without_a_spool_and_said(
    store: BreakerStore, connection: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await store.registry.get_breaker(1).call(ok)
    await store.registry.get_breaker(2).call(ok)
    fail_uncleaned(store.registry, at=store.registry.surroundings.clock.now_us() + 2 * CENTURY_US)
    await store.flush()
    stats = store.recorder.stats()
    assert (stats.flushed, stats.set_aside, stats.lost) == (2, 0, 1)
    assert stats.lost_why == "the database refused them"
    assert await outcomes(connection) == []
    assert await connection.fetchval("SELECT count(*) FROM breaker_outcomes") == 2
    assert "can't be stored and are lost" in caplog.text


async def test_a_run_that_began_with_a_refused_text_is_counted_after_a_restart(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        await store.registry.get_breaker(USER).call(ok)
        fail_uncleaned(store.registry, error_message="a\0b")
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        state = store.registry.get_breaker(USER).state
        assert state.failure_count == 1
        assert timeless(state) == timeless(rebuild(QUICK, await read_events(connection, USER)))


async def test_an_opening_whose_causes_are_refused_is_stored_without_their_texts(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        for _ in range(QUICK.failure_threshold):
            fail_uncleaned(store.registry, error_message="a\0b")
        await store.flush()
        assert store.recorder.stats().set_aside == 0
        (opened,) = [each for each in await read_events(connection, USER) if isinstance(each, Transition)]
        assert (opened.kind, opened.position) == (Kind.OPENED, 1)
        assert len(opened.causes) == QUICK.failure_threshold
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        assert store.registry.get_breaker(USER).state.state is CircuitState.OPEN


async def test_a_breaker_whose_first_event_was_set_aside_is_kept_all_the_same(
    store: BreakerStore, connection: asyncpg.Connection
) -> None:
    fail_uncleaned(store.registry, at=store.registry.surroundings.clock.now_us() + 2 * CENTURY_US)
    await store.flush()
    await fail(store.registry.get_breaker(USER), QUICK.failure_threshold - 1)
    await store.flush()
    assert await connection.fetchval("SELECT state FROM breaker_states WHERE user_id = $1", USER) == 1


def named(name: str) -> Callable[[], Awaitable[None]]:
    async def send() -> None:
        raise NoAnswerError("no answer")

    send.__name__ = name
    return send


@pytest.mark.parametrize(
    "text",
    ["a\0b", "a\udc80b", "🙂" * 250_000, "", "$$; DROP TABLE breaker_events; --", "\\N\t\n"],
    ids=["NUL", "lone surrogate", "a megabyte", "empty", "SQL", "COPY text"],
)
@pytest.mark.parametrize("others", [0, 60], ids=["small", "large"])
async def test_whatever_a_call_says_is_stored(
    store: BreakerStore, connection: asyncpg.Connection, text: str, others: int
) -> None:
    breaker = store.registry.get_breaker(USER)
    for _ in range(others):
        await store.registry.get_breaker(1).call(ok)
    await fail(breaker, 1, text)
    with pytest.raises(NoAnswerError):
        await breaker.call(named(text))
    breaker.reset(actor=text, reason=text)
    await store.flush()
    stats = store.recorder.stats()
    assert (stats.flushed, stats.set_aside, stats.last_error) == (others + 4, 0, None)
    assert [event.kind for event in await outcomes(connection)] == [Kind.FAILURE, Kind.FAILURE]
    opened, reset = sorted(
        (event for event in await read_events(connection, USER) if isinstance(event, Transition)),
        key=lambda transition: transition.version,
    )
    assert (opened.kind, reset.kind) == (Kind.OPENED, Kind.RESET)
    assert len(opened.causes[0].error_message or "") <= TEXT_LIMIT
    assert len(opened.causes[1].operation or "") <= NAME_LIMIT
    assert await contradicting_batches(connection) == []
