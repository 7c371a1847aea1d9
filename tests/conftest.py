"""A real Postgres for the tests: one server for all, one database for each.

The server is the embedded one, in a temporary folder, unless ``BREAKER_STORE_TEST_DATABASE_URL`` names a running one whose
user may create databases. The migrations run once, into a template; a test's database is a copy of it, dropped after.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor

from breaker_store.embedded import EmbeddedPostgres
from breaker_store.postgres import migrating
from breaker_store.postgres.privileges import DEFAULT_APPLICATION, DEFAULT_MAINTENANCE, Roles
from breaker_store.postgres.roles import ensure_roles

# Nobody needs these data after a crash.
FAST_AND_LOOSE = {"fsync": "off", "full_page_writes": "off"}

# Several runs may share a server.
NAME = f"breaker_store_test_{os.getpid()}"

Connect = Callable[..., Awaitable[asyncpg.Connection]]

_numbers = itertools.count(1)


def pytest_xdist_auto_num_workers() -> int:
    """Have a process more than there are processors: tests that wait for others leave theirs free."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_reaches_commands() -> None:
    """Undo what a shell does to a background job: commands would inherit that Ctrl-C is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Server:
    """A running server, in the form that pytest-postgresql's ``depends_on`` asks for."""

    host: str
    port: int
    user: str
    password: str | None
    maintenance_dbname: str
    options: str = ""
    template_dbname: None = None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    named = os.environ.get("BREAKER_STORE_TEST_DATABASE_URL")
    if named:
        yield describe(named)
        return
    with tempfile.TemporaryDirectory(prefix="breaker-store-test-", dir=find_memory()) as folder:
        # Root's server runs as another user, who has to pass through.
        Path(folder).chmod(0o711)
        with EmbeddedPostgres(Path(folder, "data"), settings=FAST_AND_LOOSE) as server:
            yield describe(server.url)


def find_memory() -> str | None:
    """Find a folder that is kept in memory, and has the room: a database is some 300 files, for each test."""
    memory = Path("/dev/shm")  # noqa: S108 - made unguessable below it
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 * 1024**3
    return str(memory) if roomy else None


def describe(url: str) -> Server:
    parts: dict[str, Any] = conninfo_to_dict(url)
    return Server(
        host=parts.get("host", "localhost"),
        port=int(parts.get("port", 5432)),
        user=parts.get("user", "postgres"),
        password=parts.get("password"),
        maintenance_dbname=parts.get("dbname", "postgres"),
    )


def migrate(*, host: str, port: int, user: str, password: str | None, dbname: str, **_others: object) -> None:
    owner_url = make_url(host, port, user, password, dbname)
    asyncio.run(migrating.upgrade(owner_url))
    asyncio.run(ensure_roles(owner_url, Roles()))
    if password is not None:
        with psycopg.connect(owner_url) as connection:
            secret = sql.Literal(password)
            for role in (DEFAULT_APPLICATION, DEFAULT_MAINTENANCE):
                connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), secret))


def make_url(host: str, port: int, user: str, password: str | None, dbname: str) -> str:
    account = quote(user) if password is None else f"{quote(user)}:{quote(password, safe='')}"
    if host.startswith("/"):
        return f"postgresql://{account}@/{dbname}?host={quote(host)}&port={port}"
    return f"postgresql://{account}@{host}:{port}/{dbname}"


migrated_server = factories.postgresql_noproc(depends_on="postgres_server", dbname=NAME, load=[migrate])


@contextmanager
def make_database(server: Server | NoopExecutor, template: str = "template1") -> Iterator[str]:
    name = f"{NAME}_{next(_numbers)}"
    names = sql.Identifier(name), sql.Identifier(template)
    maintenance_url = make_url(
        server.host, server.port, server.user, server.password, server.maintenance_dbname
    )
    with psycopg.connect(maintenance_url, autocommit=True) as maintenance:
        # The files as they are: by way of the WAL, each would be in the next checkpoint, for which a drop waits.
        maintenance.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(*names))
        try:
            yield make_url(server.host, server.port, server.user, server.password, name)
        finally:
            maintenance.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(names[0]))


@pytest.fixture
def databases() -> Iterator[ExitStack]:
    """Keep the test's databases until its connections are closed."""
    with ExitStack() as kept:
        yield kept


@contextmanager
def make_template(server: NoopExecutor, *statements: str) -> Iterator[str]:
    """Make a migrated database with more in it, for a module's `template`; give its name."""
    with make_database(server, server.template_dbname) as owner_url:
        with psycopg.connect(owner_url, autocommit=True) as owner:
            for statement in statements:
                owner.execute(statement)
        yield conninfo_to_dict(owner_url)["dbname"]


@pytest.fixture
def template(migrated_server: NoopExecutor) -> str:
    """Name what the test's database is a copy of: a migrated one, without events or daily partitions."""
    return migrated_server.template_dbname


@pytest.fixture
def owner_url(databases: ExitStack, migrated_server: NoopExecutor, template: str) -> str:
    """Address a database of the test's own as its owner."""
    return databases.enter_context(make_database(migrated_server, template))


@pytest.fixture
def database_url(owner_url: str, migrated_server: NoopExecutor) -> str:
    """Address the same as the application, which is how everything is used but what the owner does."""
    return address_as(DEFAULT_APPLICATION, owner_url, migrated_server)


@pytest.fixture
def maintenance_url(owner_url: str, migrated_server: NoopExecutor) -> str:
    """Address the same for what the application may not do, and the log itself can bear."""
    return address_as(DEFAULT_MAINTENANCE, owner_url, migrated_server)


def address_as(role: str, owner_url: str, server: NoopExecutor) -> str:
    scheme, at, rest = owner_url.partition("@")
    return scheme.replace(f"//{quote(server.user)}", f"//{role}", 1) + at + rest


@pytest.fixture
def empty_database_url(databases: ExitStack, postgres_server: Server) -> str:
    """Address a database of the test's own in which nothing is."""
    return databases.enter_context(make_database(postgres_server))


@pytest.fixture
async def connect(databases: ExitStack) -> AsyncIterator[Connect]:
    """Open connections, as asyncpg.connect does, that are closed after the test."""
    async with AsyncExitStack() as opened:

        async def connect(database_url: str, **options: Any) -> asyncpg.Connection:
            connection = await asyncpg.connect(database_url, **options)
            opened.push_async_callback(connection.close)
            return connection

        yield connect


@pytest.fixture
async def connection(connect: Connect, database_url: str) -> asyncpg.Connection:
    """Open a connection to the test's migrated database, as the application."""
    return await connect(database_url)


@pytest.fixture
async def owner(connect: Connect, owner_url: str) -> asyncpg.Connection:
    """Open one as the owner, for what the application may not do."""
    return await connect(owner_url)
