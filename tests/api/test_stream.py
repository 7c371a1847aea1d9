from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from httpx_sse import aconnect_sse

from breaker_store import BreakerStore
from breaker_store.api.newest import CHUNK_BYTES
from tests.api.streaming import PATH, Connection, SentEvent, Served, commit, positions, read_event
from tests.conftest import Connect, Server
from tests.crash.server import KillableServer
from tests.postgres.living import trip
from tests.postgres.restoring import Restored, restorable

CUTS = 100
MANY_READERS = 300

# The connections of the stream, as Postgres sees them.
FEED_CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND query LIKE '%breaker_transitions%position >= $1%'
"""


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with Served(database_url) as served:
        yield served


@pytest.fixture
async def restored(postgres_server: Server, database_url: str, connect: Connect) -> AsyncIterator[Restored]:
    async with restorable(postgres_server, database_url, connect) as restored:
        yield restored


async def test_a_transition_comes_as_an_event_that_a_client_library_reads(served, store):
    async with httpx.AsyncClient(base_url=served.url) as client, aconnect_sse(client, "GET", PATH) as source:
        events = source.aiter_sse()
        started = await anext(events)
        await trip(store.registry.get_breaker(101))
        await store.flush()
        opened = await anext(events)
    assert (started.event, started.id, started.retry) == ("started", "0", 2_000)
    assert started.json() == {"position": 0, "event": None}
    headers = source.response.headers
    assert headers["content-type"].startswith("text/event-stream")
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
    history = await ask(served, "/101/transitions")
    assert (opened.event, opened.json()) == ("transition", history["transitions"][0])
    assert opened.id == f"1.{opened.json()['id']}"


async def ask(served: Served, path: str) -> dict:
    async with httpx.AsyncClient(base_url=served.url) as client:
        return (await client.get(f"/api/admin/system/circuit-breakers{path}")).json()


async def test_a_reader_cut_a_hundred_times_gets_each_position_once(served, store):
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    committing = asyncio.create_task(commit_for_ever(store))
    seen: list[SentEvent] = []
    last_event_id = "0"
    for _ in range(CUTS):
        async with Connection.to(served.url, last_event_id) as connection:
            events = await connection.read_bytes(dice.randrange(1, 4_000))
        seen += [event for event in events if event.name == "transition"]
        last_event_id = events[-1].id if events else last_event_id
    committing.cancel()
    await asyncio.gather(committing, return_exceptions=True)
    await commit(store, 1)
    last = (await ask(served, "/0/transitions"))["transitions"][0]["position"]
    async with Connection.to(served.url, last_event_id) as connection:
        seen += await connection.read_up_to(last)
    assert positions(seen) == list(range(1, last + 1)), f"seed {seed}"
    assert last > CUTS


async def commit_for_ever(store: BreakerStore) -> None:
    while True:
        await commit(store, random.randrange(1, 5))


async def test_a_reader_of_an_empty_log_that_is_cut_resumes_with_the_first_transition(served, store):
    async with Connection.to(served.url) as connection:
        started = await connection.next_event()
    await commit(store, 2)
    async with Connection.to(served.url, started.id) as connection:
        assert positions(await connection.read_up_to(2)) == [1, 2]


async def test_without_an_id_the_stream_begins_now_and_with_one_behind_it(served, store):
    await commit(store, 3)
    async with Connection.to(served.url) as connection:
        now = await connection.next_event()
        await commit(store, 1)
        assert positions(await connection.read_up_to(4)) == [4]
    assert now.position == 3
    for query in ("?after=0", "?after=1", f"?after={now.id}"):
        async with Connection.to(served.url, query=query) as connection:
            started = await connection.next_event()
            assert positions(await connection.read_up_to(4)) == list(range(started.position + 1, 5))
    async with Connection.to(served.url, now.id, "?after=0") as connection:
        assert positions(await connection.read_up_to(4)) == [4]


@pytest.mark.parametrize(
    "text",
    ["x", "-1", "01", "1.", "1.5", "0.5-1", "1.05-1", "1.5-1 ", "9223372036854775808", "1.5-1.2", "\u0661"],
)
async def test_an_id_that_is_none_of_ours_is_refused(client, text):
    for options in ({"headers": {"Last-Event-ID": text.encode()}}, {"params": {"after": text}}):
        answer = await client.get(PATH, **options)
        assert (answer.status_code, answer.json()["type"]) == (
            400,
            "urn:problem-type:breaker-store:bad-cursor",
        )


async def test_a_parameter_that_is_not_known_is_refused(client):
    assert (await client.get(PATH, params={"afer": "1"})).status_code == 422


async def test_superseded_transitions_are_not_on_the_stream(served, store, database_url):
    async with BreakerStore.open(database_url=database_url) as other:
        for each in (store, other):
            await trip(each.registry.get_breaker(1))
        await asyncio.gather(store.flush(), other.flush())
    await commit(store, 1)
    async with Connection.to(served.url, query="?after=0") as connection:
        events = await connection.read_up_to(2)
    assert [event.data["superseded"] for event in events] == [False, False]


async def test_it_resumes_on_a_server_that_was_started_again(served, store):
    async with Connection.to(served.url) as connection:
        await connection.next_event()
        await commit(store, 3)
        events = await connection.read_up_to(2)
        await asyncio.wait_for(served.start_again(), 5)
    await commit(store, 2)
    async with Connection.to(served.url, events[-1].id) as connection:
        assert positions(events + await connection.read_up_to(5)) == [1, 2, 3, 4, 5]


async def test_a_server_that_ends_closes_its_streams(served):
    async with Connection.to(served.url) as connection:
        await connection.next_event()
        async with asyncio.timeout(5):
            await served.start_again()
            while await connection.next_block():
                pass


async def test_another_asgi_server_ends_with_its_streams_too(database_url):
    arguments = ("--factory", "breaker_store.api.app:create_app", "--port", "0")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", *arguments),
        env=os.environ | {"BREAKER_STORE_DATABASE_URL": database_url},
        stderr=asyncio.subprocess.PIPE,
    )
    said = (await process.stderr.readuntil(b"(Press")).decode()
    async with Connection.to(re.search(r"http://[\d.:]+", said)[0]) as connection:
        await connection.next_event()
        process.terminate()
        assert await connection.next_block() == ""
        _, errors = await asyncio.wait_for(process.communicate(), 5)
    assert b"ERROR" not in errors


async def test_a_stream_goes_on_when_postgres_is_back_with_heartbeats_meanwhile(
    restored, store, database_url
):
    async with Served(restored.proxy.url) as served, Connection.to(served.url) as connection:
        await connection.next_event()
        await commit(store, 1)
        await connection.read_up_to(1)
        await restored.proxy.close()
        await commit(store, 1)
        assert await connection.next_block() == ": heartbeat"
        async with Connection.to(served.url) as refused:
            assert refused.status == 503
        await restored.proxy.open()
        assert positions(await connection.read_up_to(2)) == [2]


async def test_a_stream_outlives_its_postgres(data_folder):
    with KillableServer(data_folder) as server:
        await server.set_up()
        async with Served(server.url) as served, Connection.to(served.url) as connection:
            await connection.next_event()
            async with BreakerStore.open(database_url=server.url) as store:
                await commit(store, 2)
            events = await connection.read_up_to(2)
            server.kill(signal.SIGQUIT)
            await asyncio.to_thread(server.start_again)
            async with BreakerStore.open(database_url=server.url) as store:
                await commit(store, 2)
            events += await connection.read_up_to(4)
            async with Connection.to(served.url, events[0].id) as another:
                assert positions(await another.read_up_to(4)) == [2, 3, 4]
    assert positions(events) == [1, 2, 3, 4]


@pytest.fixture
def data_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="breaker-store-test-") as folder:
        # Root's server runs as another user, who has to pass through.
        Path(folder).chmod(0o711)
        yield Path(folder, "data")


async def test_a_reader_that_comes_back_to_another_history_is_told_and_goes_on_at_its_end(
    restored, database_url
):
    async with Served(restored.proxy.url) as served:
        async with BreakerStore.open(database_url=database_url) as store:
            await commit(store, 2)
        await restored.copy()
        async with BreakerStore.open(database_url=database_url) as store:
            await commit(store, 1)
        async with Connection.to(served.url, query="?after=0") as connection:
            seen = await connection.read_up_to(3)
        await restored.restore()
        async with Connection.to(served.url, seen[-1].id) as connection:
            shorter = await connection.next_event()
        async with BreakerStore.open(database_url=database_url) as store:
            await commit(store, 2)
            async with Connection.to(served.url, seen[-1].id) as connection:
                other = await connection.next_event()
                await commit(store, 1)
                assert positions(await connection.read_up_to(5)) == [5]
            async with Connection.to(served.url, seen[1].id) as connection:
                assert (await connection.next_event()).name == "started"
                assert positions(await connection.read_up_to(5)) == [3, 4, 5]
        third = (await ask(served, "/0/transitions"))["transitions"][-2]
    assert (shorter.name, shorter.id) == ("another_history", seen[1].id)
    assert shorter.data["found"] is None
    assert (other.name, other.position) == ("another_history", 4)
    assert other.data["asked"] == {"position": 3, "event": seen[2].data["id"]}
    assert other.data["last_position"] == 4
    assert (other.data["found"], third["position"]) == (third["id"], 3)


async def test_a_reader_under_whom_the_database_is_restored_is_told_and_goes_on(restored, database_url):
    async with (
        Served(restored.proxy.url) as served,
        Connection.to(served.url) as ahead,
        Connection.to(served.url) as behind,
    ):
        for each in (ahead, behind):
            await each.next_event()
        async with BreakerStore.open(database_url=database_url) as store:
            await commit(store, 2)
        await ahead.read_up_to(2)
        await restored.copy()
        async with BreakerStore.open(database_url=database_url) as store:
            await commit(store, 2)
        await ahead.read_up_to(4)
        await restored.restore()
        told = await ahead.next_event()
        async with BreakerStore.open(database_url=database_url) as store:
            await commit(store, 1)
        assert positions(await ahead.read_up_to(3)) == [3]
        await behind.read_up_to(4)
        assert (await behind.next_event()).name == "another_history"
    assert (told.name, told.position, told.data["found"]) == ("another_history", 2, None)


async def test_a_bare_position_beyond_the_end_is_another_history(served, store):
    await commit(store, 1)
    async with Connection.to(served.url, query="?after=9") as connection:
        told = await connection.next_event()
    assert (told.name, told.data["asked"]) == ("another_history", {"position": 9, "event": None})


async def test_a_reader_that_does_not_read_costs_little_and_holds_nobody_up(served, store):
    count, reason = 4_000, "x" * 2_000
    async with (
        Connection.to(served.url, receive_buffer=4_096) as slow,
        Connection.to(served.url) as quick,
    ):
        reading = asyncio.create_task(quick.read_up_to(count))
        for _ in range(count // 500):
            await commit(store, 500, reason)
        assert positions(await reading) == list(range(1, count + 1))
        waiting = [each.transport.get_write_buffer_size() for each in served.server.server_state.connections]
        assert CHUNK_BYTES // 2 < max(waiting) < 3 * CHUNK_BYTES
        assert positions(await slow.read_up_to(count)) == list(range(1, count + 1))


async def test_a_server_ends_soon_though_a_reader_does_not_read(served, store, caplog):
    async with Connection.to(served.url, receive_buffer=4_096):
        await commit(store, 2_000, "x" * 2_000)
        async with Connection.to(served.url, query="?after=0") as quick:
            await quick.read_up_to(2_000)
        async with asyncio.timeout(3):
            await served.start_again()
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_hundreds_of_readers_each_get_every_event(served, store):
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(40):
        ready = asyncio.Semaphore(0)
        reading = [tasks.create_task(read_from_now(served, ready, 30)) for _ in range(MANY_READERS)]
        for _ in range(MANY_READERS):
            await ready.acquire()
        for _ in range(10):
            await commit(store, 3)
    assert all(task.result() == list(range(1, 31)) for task in reading)


async def read_from_now(served: Served, ready: asyncio.Semaphore, last: int) -> list[int]:
    async with Connection.to(served.url) as connection:
        await connection.next_event()
        ready.release()
        return positions(await connection.read_up_to(last))


async def test_readers_that_are_all_behind_leave_the_pool_to_the_others(served, store, connection):
    await commit(store, 300)
    async with asyncio.TaskGroup() as tasks:
        reading = [tasks.create_task(read_all(served, 300)) for _ in range(50)]
        assert (await ask(served, "/0/transitions"))["transitions"]
        assert await connection.fetchval(FEED_CONNECTIONS) <= 2
    assert all(task.result() == list(range(1, 301)) for task in reading)


async def read_all(served: Served, last: int) -> list[int]:
    async with Connection.to(served.url, query="?after=0") as connection:
        return positions(await connection.read_up_to(last))


async def test_postgres_is_asked_only_while_somebody_reads(served, connection: asyncpg.Connection):
    assert await connection.fetchval(FEED_CONNECTIONS) == 0
    async with Connection.to(served.url, query="?after=0") as reader:
        await reader.next_event()
        await wait_for_feed_connections(connection, 2)
    await wait_for_feed_connections(connection, 0)


async def wait_for_feed_connections(connection: asyncpg.Connection, count: int) -> None:
    async with asyncio.timeout(10):
        while await connection.fetchval(FEED_CONNECTIONS) != count:
            pass


async def test_a_foreign_page_that_is_pointed_at_the_loopback_address_is_refused(served):
    async with httpx.AsyncClient(base_url=served.url) as client:
        answer = await client.get(PATH, headers={"host": "evil.example"})
    assert answer.status_code == 403


async def test_the_documented_example_is_what_is_sent(served, store):
    async with Connection.to(served.url) as connection:
        started = await connection.next_event()
        await trip(store.registry.get_breaker(101))
        await store.flush()
        opened = await connection.next_event()
    paths = (await ask_documentation(served))["paths"]
    content = paths[PATH]["get"]["responses"]["200"]["content"]["text/event-stream"]
    example = content["examples"]["answer"]["value"]
    shown = [event for block in example.strip().split("\n\n") if (event := read_event(block))]
    assert [event.name for event in shown] == ["started", "transition", "another_history"]
    for real, documented in zip((started, opened), shown, strict=False):
        assert shape(real.data) == shape(documented.data)


async def ask_documentation(served: Served) -> dict:
    async with httpx.AsyncClient(base_url=served.url) as client:
        return (await client.get("/openapi.json")).json()


def shape(value: object) -> object:
    """Give the keys of a document, and of those in it."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return shape(value[0]) if isinstance(value, list) and value else None
