"""The two options by which every command is told where the events are, and the address of their owner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TypeAlias

import typer

from breaker_store.settings import (
    DATA_DIR_VARIABLE,
    DATABASE_URL_VARIABLE,
    Location,
    default_data_dir,
    find_location,
)

DatabaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help=f"A Postgres that is running, postgresql://... [env: {DATABASE_URL_VARIABLE}]",
    ),
]
DataDir: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        help=f"A folder in which a Postgres of our own runs. [env: {DATA_DIR_VARIABLE}; "
        "default: the platform's folder for your data]",
    ),
]


def locate(database_url: str | None, data_dir: str | None) -> Location:
    """Take what the options say, else the environment, else an embedded Postgres in the platform's folder.

    Raises:
        typer.BadParameter: both options were given, or one without a value.
        ConfigurationError: the environment says both, or the address is none of Postgres.

    """
    if database_url is not None and data_dir is not None:
        raise typer.BadParameter("--database-url and --data-dir exclude each other")
    if "" in {database_url, data_dir}:
        raise typer.BadParameter("--database-url and --data-dir take no empty value")
    if database_url is None and data_dir is None and not _is_said():
        return Location(data_dir=default_data_dir())
    return find_location(database_url, data_dir)


def _is_said() -> bool:
    """Tell whether the environment names a database; an empty variable doesn't."""
    return bool(os.environ.get(DATABASE_URL_VARIABLE) or os.environ.get(DATA_DIR_VARIABLE))


@contextmanager
def owner_address(location: Location) -> Iterator[str]:
    """Give the address by which a database's owner connects: a named one as it is, an embedded one's superuser.

    Whatever its schema is: `open_database` would want it to be current.
    """
    if location.data_dir is None:
        assert location.database_url is not None  # noqa: S101 - one of the two is set
        yield location.database_url
        return
    from breaker_store.embedded import EmbeddedPostgres  # noqa: PLC0415 - an extra

    with EmbeddedPostgres(location.data_dir) as server:
        yield server.url
