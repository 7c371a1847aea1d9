"""Runs the migrations on a connection: one that was handed over, or one to the database in the environment.

``breaker_store.postgres.migrating`` hands one over, outside a transaction, in ``config.attributes["connection"]``.
Alembic's own command has none: it takes the database that ``BREAKER_STORE_DATABASE_URL`` names.

One process at a time migrates a database; others wait for it. Each revision is a transaction of its own, so that a
revision can leave it and build an index concurrently; that is why the lock and the time limits are the session's, and
are given back at the end.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from logging.config import fileConfig

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.base import ischema_names

from breaker_store.errors import BreakerStoreError, ConfigurationError, MigrationBusyError
from breaker_store.postgres import rollup_tables  # noqa: F401 - it adds its tables to the metadata
from breaker_store.postgres.migrating import (
    LOCK_WAIT_SECONDS,
    VERSION_TABLE,
    open_engine,
)
from breaker_store.postgres.tables import TransactionId, TransactionSnapshot, metadata

# A statement that waits for a lock makes all others wait behind it: rather fail, and be started again.
TIME_LIMITS = {"lock_timeout": "5s", "statement_timeout": "300s"}

LOCK = "1651665779, 1"  # "brks", and the first of our locks

# Who owns the log, where that is somebody else whose role the session may take.
OWNER = """
SELECT pg_get_userbyid(relowner) FROM pg_class
WHERE oid = to_regclass('breaker_events') AND pg_get_userbyid(relowner) <> current_user AND pg_has_role(relowner, 'MEMBER')
"""

# Without them, reflection warns of types that it doesn't know.
ischema_names["xid8"] = TransactionId
ischema_names["pg_snapshot"] = TransactionSnapshot


def run() -> None:
    connection: Connection | None = context.config.attributes.get("connection")
    if context.is_offline_mode():
        write_statements()
    elif connection is not None:
        migrate(connection)
    else:
        if context.config.config_file_name is not None:
            fileConfig(context.config.config_file_name, disable_existing_loggers=False)
        try:
            asyncio.run(migrate_named_database())
        except BreakerStoreError as error:
            raise CommandError(str(error)) from error  # a line on the terminal, without a traceback


def write_statements() -> None:
    context.configure(dialect_name="postgresql", version_table=VERSION_TABLE, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


async def migrate_named_database() -> None:
    url = os.environ.get("BREAKER_STORE_DATABASE_URL")
    if not url:
        raise ConfigurationError(
            "BREAKER_STORE_DATABASE_URL is not set: it names the database, as postgresql://user@host/name"
        )
    async with open_engine(url, writing=True).connect() as connection:
        await connection.run_sync(migrate)


def migrate(connection: Connection) -> None:
    if connection.in_transaction():
        raise RuntimeError("migrations need a connection that is outside a transaction")
    wait_seconds: float = context.config.attributes.get("lock_wait_seconds", LOCK_WAIT_SECONDS)
    with time_limits(connection), migrating_alone(connection, wait_seconds), in_owners_place(connection):
        partitions = read_partitions(connection)
        context.configure(
            connection=connection,
            target_metadata=metadata,
            version_table=VERSION_TABLE,
            transaction_per_migration=True,
            compare_server_default=True,
            include_name=lambda name, kind, _parents: kind != "table" or name not in partitions,
        )
        with context.begin_transaction():
            context.run_migrations()


def read_partitions(connection: Connection) -> Collection[str]:
    """Name the partitions that the models don't have, and that autogenerate would therefore drop."""
    names = connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition")).all()
    connection.rollback()
    return {name for name in names if name not in metadata.tables}


@contextmanager
def time_limits(connection: Connection) -> Iterator[None]:
    before = {name: connection.scalar(text(f"SHOW {name}")) for name in TIME_LIMITS}
    set_in_session(connection, TIME_LIMITS)
    try:
        yield
    finally:
        # A connection that broke took its session's settings, and its lock, with it.
        if not connection.invalidated:
            connection.rollback()
            set_in_session(connection, before)


def set_in_session(connection: Connection, settings: Mapping[str, str | None]) -> None:
    statement = text("SELECT set_config(:name, :value, false)")
    for name, value in settings.items():
        connection.execute(statement, {"name": name, "value": value})
    connection.commit()


@contextmanager
def in_owners_place(connection: Connection) -> Iterator[None]:
    """Act as the owner of the log, if a superuser or a member of the owner migrates it.

    Else what is made from now on were another's; and the triggers let nobody but the owner fill in what is new.
    """
    owner = ask(connection, OWNER)
    if owner is None:
        yield
        return
    before = {"role": connection.scalar(text("SHOW role"))}
    set_in_session(connection, {"role": str(owner)})
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.rollback()
            set_in_session(connection, before)


@contextmanager
def migrating_alone(connection: Connection, wait_seconds: float) -> Iterator[None]:
    """Hold the lock of migrations; raise MigrationBusyError if somebody else keeps it for ``wait_seconds``."""
    give_up_at = time.monotonic() + wait_seconds
    while not ask(connection, f"SELECT pg_try_advisory_lock({LOCK})"):
        if time.monotonic() > give_up_at:
            raise MigrationBusyError(wait_seconds)
        # Asking again and again, rather than in one statement that waits: that one's snapshot would be waited for by
        # an index that the other process builds concurrently, for ever.
        ask(connection, "SELECT pg_sleep(0.1)")
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.rollback()
            ask(connection, f"SELECT pg_advisory_unlock({LOCK})")


def ask(connection: Connection, statement: str) -> object:
    answer: object = connection.scalar(text(statement))
    connection.commit()
    return answer


run()
