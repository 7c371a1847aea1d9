"""Bring a database's schema to what this code needs, and tell whether it is there.

The migrations are Alembic's; they stand in the package ``breaker_store.migrations``. Whoever runs them, from here or with
Alembic's own command, passes through its ``env.py``: there the time limits are, and the lock that lets one process at a
time migrate a database.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from importlib import resources
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from breaker_store.errors import (
    ConfigurationError,
    NotMigratedError,
    SchemaBehindError,
    SchemaTooNewError,
)
from breaker_store.postgres import connecting

# Not Alembic's default: an application that shares the database may keep its own migrations under that name.
VERSION_TABLE: Final = "breaker_store_alembic_version"

LOCK_WAIT_SECONDS: Final = 60.0
"""How long to wait for another process that is migrating the same database."""

_SCHEMES: Final = ("postgresql://", "postgres://", "postgresql+asyncpg://")


async def upgrade(url: str, revision: str = "head", *, lock_wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
    """Migrate the database up; does nothing to one that is there already.

    Raises SchemaTooNewError, and MigrationBusyError after waiting ``lock_wait_seconds`` for another process.
    """
    if revision == "head" and await current(url) == needed_revision():
        return
    await _migrate(url, lambda config: command.upgrade(config, revision), lock_wait_seconds)


async def downgrade(url: str, revision: str, *, lock_wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
    """Migrate the database down to ``revision``, or by steps ("-1"); down to "base" deletes the log itself.

    Raises SchemaTooNewError, and MigrationBusyError after waiting ``lock_wait_seconds`` for another process.
    """
    await _migrate(url, lambda config: command.downgrade(config, revision), lock_wait_seconds)


async def current(url: str) -> str | None:
    """Tell the database's revision; None if it was never migrated, or all the way down."""
    async with _connect(url) as connection:
        return await _read_revision(connection)


async def check_schema(database: AsyncEngine | AsyncConnection) -> None:
    """Return if the schema is the one this code needs; cheap enough to ask every second.

    Raises NotMigratedError, SchemaBehindError or SchemaTooNewError, and what the driver raises.
    """
    if isinstance(database, AsyncConnection):
        judge_revision(await _read_revision(database))
        return
    async with database.connect() as connection:
        judge_revision(await _read_revision(connection))


def judge_revision(found: str | None) -> None:
    """Raise the SchemaError that fits a database's revision, unless it is the one this code needs."""
    needed = needed_revision()
    if found is None:
        raise NotMigratedError(needed)
    if found not in known_revisions():
        raise SchemaTooNewError(found, needed)
    if found != needed:
        raise SchemaBehindError(found, needed)


@cache
def known_revisions() -> tuple[str, ...]:
    """List the revisions that this code knows, oldest first."""
    newest_first = ScriptDirectory(_scripts()).walk_revisions()
    return tuple(script.revision for script in newest_first)[::-1]


def needed_revision() -> str:
    return known_revisions()[-1]


def open_engine(url: str, *, writing: bool = False) -> AsyncEngine:
    """Make an engine whose connections are opened for each use and closed after it.

    With ``writing``, they pass over hosts that take no writes. The address means what asyncpg takes it to mean, as
    everywhere else (SQLAlchemy would read ``sslmode`` or a socket's folder otherwise, or not at all). Raises
    ConfigurationError if it is not an address of Postgres.
    """
    if not url.startswith(_SCHEMES):
        # Not shown: there may be a password in it.
        raise ConfigurationError(f"a database's address begins with one of {', '.join(_SCHEMES)}")
    address = "postgresql://" + url.partition("://")[2]
    return create_async_engine(
        "postgresql+asyncpg://",
        # Without the time limits of the log's own sessions: a migration may take long.
        async_creator=lambda: connecting.reach(
            address, writing=writing, timeout=connecting.CONNECT_TIMEOUT_SECONDS
        ),
        poolclass=NullPool,
    )


@asynccontextmanager
async def _connect(url: str, *, writing: bool = False) -> AsyncIterator[AsyncConnection]:
    engine = open_engine(url, writing=writing)
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def _read_revision(connection: AsyncConnection) -> str | None:
    # Asked first, since a missing table would spoil the caller's transaction.
    if not await connection.scalar(text(f"SELECT to_regclass('{VERSION_TABLE}') IS NOT NULL")):
        return None
    revision: str | None = await connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return revision


async def _migrate(url: str, step: Callable[[Config], None], lock_wait_seconds: float) -> None:
    async with _connect(url, writing=True) as connection, _alone_in_process():
        found = await _read_revision(connection)
        if found is not None and found not in known_revisions():
            raise SchemaTooNewError(found, needed_revision())
        await connection.rollback()
        await connection.run_sync(lambda sync: step(make_config(sync, lock_wait_seconds)))


def make_config(connection: Connection, lock_wait_seconds: float = LOCK_WAIT_SECONDS) -> Config:
    """Make Alembic's configuration for a connection that is outside a transaction."""
    config = Config()
    config.set_main_option("script_location", _scripts().replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["lock_wait_seconds"] = lock_wait_seconds
    return config


def _scripts() -> str:
    return str(resources.files("breaker_store.migrations"))


_process_lock = threading.Lock()


@asynccontextmanager
async def _alone_in_process() -> AsyncIterator[None]:
    """Keep other tasks and threads out: Alembic holds what it is migrating in its modules' globals."""
    while not _process_lock.acquire(blocking=False):  # noqa: ASYNC110 - an event is one loop's; there may be several
        await asyncio.sleep(0.02)
    try:
        yield
    finally:
        _process_lock.release()
