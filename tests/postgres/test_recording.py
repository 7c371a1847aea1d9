"""What happens is stored once and in order, whatever becomes of the connection (DESIGN rules 10, 16 and 17)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest

from breaker_store import BreakerStore, CircuitBreaker, CircuitBreakerRegistry, Policy
from breaker_store.core.rebuild import rebuild
from breaker_store.ports import GapReason
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.follower import Follower
from breaker_store.runtime.recorder import Recorder
from tests.postgres.living import USER, fail, ok, timeless, trip
from tests.postgres.proxy import Proxy
from tests.postgres.stored import contradicting_batches, read_events

SMALL, LARGE = 3, 200
Pause = Callable[[float], Awaitable[None]]

BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'breaker-store'"
WAITING = f"{BACKENDS} AND wait_event_type = 'Lock'"
TIME_QUESTION = b"SELECT (extract(epoch FROM clock_timestamp())"
# ErrorResponse, as a server that is shut down sends it to idle connections.
GOODBYE_FIELDS = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
GOODBYE = b"E" + struct.pack(">i", 4 + len(GOODBYE_FIELDS)) + GOODBYE_FIELDS
IMPATIENT = "ALTER FUNCTION ensure_outcome_partitions SET lock_timeout = '50ms'"
MAKE_PARTITIONS = "SELECT ensure_outcome_partitions(current_date, current_date)"
LEAF = "SELECT tableoid::regclass::text FROM breaker_outcomes"
TERMINATE = "SELECT pg_terminate_backend(pid, 5000) FROM ({}) AS found"


@dataclass
class Process:
    """A registry and its recorder, with nothing else that would talk to the database."""

    registry: CircuitBreakerRegistry
    log: PostgresEventLog
    recorder: Recorder

    @property
    def breaker(self) -> CircuitBreaker:
        return self.registry.get_breaker(USER)


@asynccontextmanager
async def recording(
    url: str, pause: Pause = asyncio.sleep, *, queue_limit: int = 10_000, drain_seconds: float = 10
) -> AsyncIterator[Process]:
    registry = CircuitBreakerRegistry()
    surroundings = registry.surroundings
    log = PostgresEventLog(url, surroundings.clock)
    follower = Follower(registry, log, 0)
    recorder = Recorder(
        surroundings.journal, surroundings.clock, log, follower.settle, queue_limit=queue_limit, pause=pause
    )
    await log.open()
    recorder.start()
    try:
        yield Process(registry, log, recorder)
    finally:
        await recorder.close(drain_seconds)
        await log.close()


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy.to(database_url) as proxy:
        yield proxy


async def numbers(connection: asyncpg.Connection) -> list[int]:
    """Give the numbers of all stored events, in order; each that is there twice, twice."""
    rows = await connection.fetch("SELECT writer_seq FROM breaker_events ORDER BY writer_id, writer_seq")
    return [row["writer_seq"] for row in rows]


async def no_pause(_seconds: float) -> None:
    await asyncio.sleep(0)


async def call_often(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        await breaker.call(ok)


async def test_flush_waits_until_all_before_it_is_stored(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async with recording(database_url) as process:
        await call_often(process.breaker, 2_500)
        await process.recorder.flush()
        assert await connection.fetchval("SELECT count(*) FROM breaker_events") == 2_500
        assert process.recorder.stats().queued == 0
        await process.recorder.flush()


async def test_a_transition_is_stored_without_waiting_for_the_interval(
    store: BreakerStore, connection: asyncpg.Connection
) -> None:
    await trip(store.registry.get_breaker(USER))
    await store.flush()
    assert await connection.fetchval("SELECT last FROM log_position") == 1


@pytest.mark.parametrize("count", [SMALL, LARGE])
async def test_events_are_stored_once_when_the_connection_is_lost_between_flushes(
    database_url: str, connection: asyncpg.Connection, count: int
) -> None:
    async with recording(database_url, no_pause) as process:
        for _ in range(3):
            await call_often(process.breaker, count)
            await process.recorder.flush()
            await connection.execute(TERMINATE.format(BACKENDS))
        await trip(process.breaker)
        await process.recorder.flush()
    assert await numbers(connection) == list(range(1, 3 * count + 7))
    assert await connection.fetchval("SELECT last FROM log_position") == 1


@pytest.mark.parametrize("count", [SMALL, LARGE])
@pytest.mark.parametrize("table", ["writer_batches", "breaker_states", "log_position", "breaker_events"])
async def test_events_are_stored_once_when_the_connection_is_lost_in_the_middle_of_a_flush(
    database_url: str, owner: asyncpg.Connection, connect, count: int, table: str
) -> None:
    watcher = await connect(database_url)
    async with recording(database_url, no_pause) as process:
        blocking = owner.transaction()
        await blocking.start()
        await owner.execute(f"LOCK TABLE {table} IN SHARE MODE")
        await call_often(process.breaker, count)
        await trip(process.breaker)
        flushed = asyncio.ensure_future(process.recorder.flush())
        for _ in range(2):
            async with asyncio.timeout(10):
                while not await watcher.fetch(WAITING):
                    pass
            await watcher.execute(TERMINATE.format(WAITING))
        await blocking.rollback()
        await flushed
    assert await numbers(owner) == list(range(1, count + 7))
    assert await contradicting_batches(owner) == []


@pytest.mark.parametrize("count", [SMALL, LARGE])
async def test_events_are_stored_once_when_the_answer_to_the_commit_is_lost(
    proxy: Proxy, connection: asyncpg.Connection, count: int
) -> None:
    async with recording(proxy.url, no_pause) as process:
        await call_often(process.breaker, 1)
        await process.recorder.flush()
        await call_often(process.breaker, count)
        await trip(process.breaker)
        proxy.answers_to_lose = 1
        await process.recorder.flush()
        assert proxy.answers_to_lose == 0
        assert process.recorder.stats().last_error is not None
        assert process.registry.surroundings.unconfirmed == {}
    assert await numbers(connection) == list(range(1, count + 8))
    assert await connection.fetchval("SELECT count(*) FROM writer_batches") == 2
    assert await connection.fetchval("SELECT last FROM log_position") == 1


async def test_a_server_that_has_said_goodbye_and_not_hung_up_yet_is_gone_all_the_same(
    proxy: Proxy, connection: asyncpg.Connection
) -> None:
    async with recording(proxy.url, no_pause) as process:
        await call_often(process.breaker, 1)
        await process.recorder.flush()
        proxy.say(GOODBYE)
        await connection.execute("SELECT 1")
        await call_often(process.breaker, 1)
        await process.recorder.flush()
    assert await numbers(connection) == [1, 2]


async def test_a_reconnect_that_is_lost_at_its_first_question_is_tried_again(
    proxy: Proxy, connection: asyncpg.Connection
) -> None:
    async def let_questions_through_after_one(_seconds: float) -> None:
        if proxy.cuts:
            proxy.cut_at = None

    async with recording(proxy.url, let_questions_through_after_one) as process:
        await call_often(process.breaker, 1)
        await process.recorder.flush()
        proxy.cut_at = TIME_QUESTION
        proxy.cut()
        await call_often(process.breaker, 3)
        await process.recorder.flush()
        assert proxy.cuts == 1
        assert "can't be reached" in str(process.recorder.stats().last_error)
    assert await numbers(connection) == [1, 2, 3, 4]


async def test_a_reconnect_that_has_to_wait_too_long_for_partitions_is_tried_again(
    database_url: str, owner: asyncpg.Connection
) -> None:
    troubles: list[str] = []
    waiting = owner.transaction()

    async def give_way_at_the_second(_seconds: float) -> None:
        troubles.append(str(process.recorder.stats().last_error))
        if len(troubles) == 2:
            await waiting.rollback()

    await owner.execute(IMPATIENT)
    async with recording(database_url, give_way_at_the_second) as process:
        await call_often(process.breaker, 1)
        await process.recorder.flush()
        await owner.execute(f"DROP TABLE {await owner.fetchval(LEAF)}")
        await waiting.start()
        await owner.execute(MAKE_PARTITIONS)
        await call_often(process.breaker, 3)
        await process.recorder.flush()
    assert ["lock timeout" in trouble for trouble in troubles] == [True, True]
    assert await numbers(owner) == [2, 3, 4]


async def test_while_postgres_is_away_the_queue_is_bounded_and_what_gives_way_is_counted_and_said(
    proxy: Proxy, connection: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []

    async def come_back_at_the_third(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            await proxy.open()

    async with recording(proxy.url, come_back_at_the_third, queue_limit=20) as process:
        await call_often(process.breaker, 1)
        await process.recorder.flush()
        await proxy.close()
        await call_often(process.breaker, 100)
        for user_id in range(10):
            await fail(process.registry.get_breaker(user_id))
        stats = process.recorder.stats()
        assert (stats.queued, stats.lost) == (25, 80 + 5)
        await process.recorder.flush()
        stats = process.recorder.stats()
        assert (stats.queued, stats.flushed, stats.lost, stats.set_aside) == (0, 26, 85, 0)
        assert "can't be reached" in str(stats.last_error)
    assert len(pauses) == 3
    assert all(0 <= seconds <= 5 for seconds in pauses)
    assert "85 events are lost: the queue was full" in caplog.text
    assert "the event log is away" in caplog.text
    assert await numbers(connection) == list(range(1, 27))
    assert await connection.fetchval("SELECT count(*) FROM breaker_events WHERE kind = 2") == 5


async def test_a_run_that_began_while_the_queue_was_full_is_counted_after_a_restart(
    proxy: Proxy, database_url: str, connection: asyncpg.Connection
) -> None:
    """What was given up is lost, but what was stored of the run counts."""

    async def come_back(_seconds: float) -> None:
        await proxy.open()

    async with recording(proxy.url, come_back, queue_limit=20) as process:
        await call_often(process.breaker, 1)
        await process.recorder.flush()
        await proxy.close()
        for user_id in range(1_000, 1_025):
            await fail(process.registry.get_breaker(user_id))
        await fail(process.breaker)
        await process.recorder.flush()
        assert process.recorder.stats().lost == 1
        await fail(process.breaker)
    async with BreakerStore.open(database_url=database_url) as store:
        events = await read_events(connection, USER)
        assert len(events) == 2
        expected = rebuild(Policy(), events)
        assert expected.failure_count == 1
        assert timeless(store.registry.get_breaker(USER).state) == timeless(expected)


async def test_a_trip_that_was_given_up_does_not_keep_the_breaker_out_of_the_log_for_ever(
    proxy: Proxy, connection: asyncpg.Connection
) -> None:
    async def come_back(_seconds: float) -> None:
        await proxy.open()

    async with recording(proxy.url, come_back, queue_limit=20) as process:
        await call_often(process.breaker, 1)
        await process.recorder.flush()
        await proxy.close()
        for user_id in range(1_000, 1_025):
            await fail(process.registry.get_breaker(user_id))
        await trip(process.breaker)
        await process.recorder.flush()
        assert process.recorder.stats().lost == 6
        for _ in range(2):
            process.breaker.reset()
            await process.recorder.flush()
        events = await read_events(connection, USER)
        assert timeless(process.breaker.state) == timeless(rebuild(Policy(), events))


async def test_closing_stores_what_waits(database_url: str, connection: asyncpg.Connection) -> None:
    async with recording(database_url) as process:
        await call_often(process.breaker, 2_500)
    assert await numbers(connection) == list(range(1, 2_501))


async def test_closing_tells_how_much_is_left_when_the_time_to_store_it_is_over(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    async with recording(proxy.url, drain_seconds=0.05) as process:
        await proxy.close()
        await call_often(process.breaker, 7)
        assert await process.recorder.close(0.05) == 7
    assert "7 events were not stored" in caplog.text


async def test_what_was_given_up_is_said_and_counted_though_the_store_closes_while_postgres_is_away(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    paused = asyncio.Event()

    async def pause_for_ever(_seconds: float) -> None:
        paused.set()
        await asyncio.get_running_loop().create_future()

    async with recording(proxy.url, pause_for_ever, queue_limit=20, drain_seconds=0) as process:
        await proxy.close()
        await call_often(process.breaker, 1)
        await paused.wait()
        await call_often(process.breaker, 100)
    stats = process.recorder.stats()
    assert stats.lost == 80 + 21
    assert stats.lost_why == "the queue was full; the store was closed before they could be stored"
    assert "80 events are lost: the queue was full" in caplog.text


async def test_a_recorder_that_finds_its_number_taken_gives_up_that_batch_alone_and_says_so(
    database_url: str, connection: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with recording(database_url) as process:
        writer_id = process.registry.surroundings.journal.writer_id
        await connection.execute(
            "INSERT INTO writer_batches VALUES ($1, 1, 1, 1, 1, 1, 0, sha256('other'), NULL, now(), now())",
            writer_id,
        )
        await call_often(process.breaker, 1)
        await process.recorder.flush()
        await call_often(process.breaker, 2)
        await process.recorder.flush()
        stats = process.recorder.stats()
        assert (stats.flushed, stats.lost, stats.lost_why) == (2, 1, "the ledger contradicted them")
    assert await numbers(connection) == [2, 3]
    assert "other contents" in caplog.text
    gap = await connection.fetchrow("SELECT reason, successes, writer_id FROM log_gaps")
    assert (gap["reason"], gap["successes"], gap["writer_id"]) == (GapReason.CONTRADICTED, 1, writer_id)
