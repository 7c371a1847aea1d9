"""A server that does not answer, or takes no writes, is left for one that does, and what was sent is stored once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from psycopg.conninfo import conninfo_to_dict

from breaker_store import LogUnavailableError
from breaker_store.ports import RecorderReport
from breaker_store.postgres import migrating, queries
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.reading import create_engine, reading
from breaker_store.runtime.clock import ManualClock
from tests.contract.reporting import CALM
from tests.contract.writing import START, USER, Writer

SMALL, LARGE = 3, 120
BACKENDS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'breaker-store'"
TERMINATE = f"SELECT pg_terminate_backend(pid, 5000) {BACKENDS}"
PIDS = f"SELECT pid {BACKENDS}"

WAITING = "SELECT count(*) FROM pg_locks WHERE relation = $1::regclass AND NOT granted"
TERMINATE_WAITING = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE relation = $1::regclass AND NOT granted"
)

SAYS_PRIMARY = b"S\0\0\0\x17in_hot_standby\0off\0"
SAYS_STANDBY = b"S\0\0\0\x16in_hot_standby\0on\0"

# No server can be turned read-only for one database's open sessions: so one says what it would say.
TURN_READ_ONLY = """
CREATE FUNCTION turn_read_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'cannot execute INSERT in a read-only transaction' USING ERRCODE = 'read_only_sql_transaction';
END
$$;
CREATE TRIGGER turn_read_only BEFORE INSERT ON writer_batches EXECUTE FUNCTION turn_read_only();
"""


@pytest.fixture
async def new_log() -> AsyncIterator[Callable[..., PostgresEventLog]]:
    async with AsyncExitStack() as opened:

        def new_log(url: str, **options: Any) -> PostgresEventLog:
            log = PostgresEventLog(url, ManualClock(START), **options)
            opened.push_async_callback(log.close)
            return log

        yield new_log


@asynccontextmanager
async def listening(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]):
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.fixture
def server_address(database_url: str) -> tuple[str, int]:
    parts = conninfo_to_dict(database_url)
    return str(parts.get("host", "localhost")), int(parts.get("port") or 5432)


async def connect_to(address: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = address
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, port)


def relay_to(address: tuple[str, int], says: bytes):
    """Pass connections on to a server, whose word on being a standby is replaced."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data.replace(SAYS_PRIMARY, says))
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        their_reader, their_writer = await connect_to(address)
        await asyncio.gather(pump(reader, their_writer), pump(their_reader, writer))

    return serve


@pytest.fixture
async def primary(server_address: tuple[str, int]) -> AsyncIterator[str]:
    async with listening(relay_to(server_address, SAYS_PRIMARY)) as host:
        yield host


@pytest.fixture
async def standby(server_address: tuple[str, int]) -> AsyncIterator[str]:
    async with listening(relay_to(server_address, SAYS_STANDBY)) as host:
        yield host


@pytest.fixture
def silent() -> Iterator[str]:
    """Listen and never say a word, as a machine that hangs, or vanished behind a firewall."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def refusing() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def address(database_url: str, *hosts: str) -> str:
    parts = conninfo_to_dict(database_url)
    password = f":{parts['password']}" if parts.get("password") else ""
    return f"postgresql://{parts['user']}{password}@{','.join(hosts)}/{parts['dbname']}?sslmode=disable"


async def send(writer: Writer, count: int = 1) -> None:
    await writer.succeed(USER, count)
    await writer.send()


async def numbers(connection: asyncpg.Connection) -> list[int]:
    rows = await connection.fetch("SELECT writer_seq FROM breaker_events ORDER BY writer_id, writer_seq")
    return [row["writer_seq"] for row in rows]


async def set_read_only(connection: asyncpg.Connection, value: str) -> None:
    """Change it for new sessions, and end the old ones of the log."""
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}')
    await connection.execute(TERMINATE)


async def test_a_database_that_takes_no_writes_is_away_until_it_does_again(
    new_log, database_url: str, owner: asyncpg.Connection
) -> None:
    writer = Writer(new_log(database_url), ManualClock(START))
    await send(writer)
    await set_read_only(owner, "on")
    await writer.succeed()
    sealed = writer.log.seal(writer.cut())
    with pytest.raises(LogUnavailableError):
        await writer.log.append(sealed)
    for ask in (writer.log.append(sealed), writer.log.ledger_head(1), writer.log.report(CALM)):
        with pytest.raises(LogUnavailableError, match="takes no writes"):
            await ask
    await set_read_only(owner, "off")
    await writer.log.append(sealed)
    await writer.log.report(CALM)
    assert await numbers(owner) == [1, 2]


@pytest.mark.parametrize("count", [SMALL, LARGE])
async def test_a_connection_whose_server_takes_no_writes_any_more_is_not_kept(
    new_log, database_url: str, owner: asyncpg.Connection, count: int
) -> None:
    """As after a fail-over behind one address, where the connection may survive."""
    writer = Writer(new_log(database_url), ManualClock(START))
    await send(writer, count)
    before = await owner.fetchval(PIDS)
    await owner.execute(TURN_READ_ONLY)
    await writer.succeed(USER, count)
    sealed = writer.log.seal(writer.cut())
    with pytest.raises(LogUnavailableError, match="read-only transaction"):
        await writer.log.append(sealed)
    await owner.execute("DROP TRIGGER turn_read_only ON writer_batches")
    await writer.log.append(sealed)
    assert before not in [row["pid"] for row in await owner.fetch(PIDS)]
    assert await numbers(owner) == list(range(1, 2 * count + 1))


async def test_of_several_servers_the_one_that_takes_writes_is_found(
    new_log,
    database_url: str,
    connection: asyncpg.Connection,
    standby: str,
    silent: str,
    refusing: str,
    primary: str,
) -> None:
    url = address(database_url, standby, silent, refusing, primary)
    log = new_log(url, connect_timeout_seconds=0.3)
    writer = Writer(log, ManualClock(START))
    await send(writer)
    await log.report(CALM)
    assert await log.ledger_head(writer.writer_id) is not None
    assert await numbers(connection) == [1]
    assert await connection.fetchval("SELECT count(*) FROM recorders") == 1


async def test_where_all_servers_are_standbys_the_log_is_away(
    new_log, database_url: str, standby: str
) -> None:
    with pytest.raises(LogUnavailableError, match=r"takes no writes: it is a standby, or read-only$"):
        await new_log(address(database_url, standby, standby)).open()


async def test_an_address_that_says_which_server_it_wants_is_obeyed(
    new_log, database_url: str, standby: str
) -> None:
    """Behind a pooler that mistakes a primary for a standby, it says `any`."""
    await new_log(f"{address(database_url, standby)}&target_session_attrs=any").open()


async def test_questions_are_answered_by_standbys_too(database_url: str, standby: str) -> None:
    engine = create_engine(address(database_url, standby))
    async with reading(engine) as connection:
        assert (await queries.summary(connection)).total_breakers == 0
    await engine.dispose()


async def test_a_migration_looks_for_the_primary(empty_database_url: str, primary: str, standby: str) -> None:
    with pytest.raises(LogUnavailableError, match="takes no writes"):
        await migrating.upgrade(address(empty_database_url, standby), "0001")
    await migrating.upgrade(address(empty_database_url, standby, primary))
    assert await migrating.current(address(empty_database_url, standby)) == migrating.needed_revision()


async def test_a_server_that_hangs_while_connecting_is_away(new_log, database_url: str, silent: str) -> None:
    with pytest.raises(LogUnavailableError, match="TimeoutError"):
        await new_log(address(database_url, silent), connect_timeout_seconds=0.1).open()


@pytest.mark.parametrize("count", [SMALL, LARGE])
async def test_a_server_that_hangs_over_a_batch_is_left_and_the_batch_stored_once(
    new_log, database_url: str, owner: asyncpg.Connection, count: int
) -> None:
    writer = Writer(new_log(database_url, command_timeout_seconds=0.2), ManualClock(START))
    await send(writer)
    await writer.succeed(USER, count)
    sealed = writer.log.seal(writer.cut())
    async with owner.transaction():
        await owner.execute("LOCK TABLE breaker_events IN SHARE MODE")
        with pytest.raises(LogUnavailableError, match="TimeoutError"):
            await writer.log.append(sealed)
    await writer.log.append(sealed)
    assert await numbers(owner) == list(range(1, count + 2))


async def test_asking_for_the_last_batch_on_a_connection_that_is_lost_says_so(
    new_log, database_url: str, owner: asyncpg.Connection
) -> None:
    writer = Writer(new_log(database_url), ManualClock(START))
    await send(writer)
    async with owner.transaction():
        await owner.execute("LOCK TABLE writer_batches")
        asking = asyncio.ensure_future(writer.log.ledger_head(writer.writer_id))
        await wait_for_lock(owner, "writer_batches")
        await owner.fetch(TERMINATE_WAITING, "writer_batches")
        with pytest.raises(LogUnavailableError):
            await asking
    head = await writer.log.ledger_head(writer.writer_id)
    assert head is not None
    assert head.last_seq == 1


async def wait_for_lock(connection: asyncpg.Connection, table: str) -> None:
    """Wait until somebody waits for a lock on a table."""
    async with asyncio.timeout(5):
        while not await connection.fetchval(WAITING, table):
            pass


@asynccontextmanager
async def held_up(log: PostgresEventLog, connection: asyncpg.Connection, report: RecorderReport):
    """Have a report wait for somebody who keeps its table."""
    await log.open()
    async with connection.transaction():
        await connection.execute("LOCK TABLE recorders")
        reporting = asyncio.ensure_future(log.report(report))
        await wait_for_lock(connection, "recorders")
        yield reporting


async def test_a_report_that_is_held_up_holds_up_no_batch(
    new_log, database_url: str, connection: asyncpg.Connection
) -> None:
    log = new_log(database_url)
    writer = Writer(log, ManualClock(START))
    async with held_up(log, connection, CALM) as reporting:
        await send(writer, SMALL)
        await send(writer, LARGE)
        assert not reporting.done()
    await reporting
    assert len(await numbers(connection)) == SMALL + LARGE


async def test_a_report_that_is_cancelled_leaves_no_connection_in_the_middle_of_it(
    new_log, database_url: str, connection: asyncpg.Connection
) -> None:
    log = new_log(database_url)
    async with held_up(log, connection, CALM) as reporting:
        reporting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reporting
    await log.report(CALM)
    assert await connection.fetchval("SELECT count(*) FROM recorders") == 1


async def test_closing_while_a_report_is_held_up_ends_it(
    new_log, database_url: str, connection: asyncpg.Connection
) -> None:
    log = new_log(database_url)
    async with held_up(log, connection, CALM) as reporting:
        await log.close()
        with pytest.raises(LogUnavailableError):
            await reporting
