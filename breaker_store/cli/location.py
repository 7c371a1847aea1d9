"""The two options by which every command is told where the events are."""

from __future__ import annotations

import os
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
