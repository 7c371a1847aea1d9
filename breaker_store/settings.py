"""Where the events are: a Postgres that is named, or one of our own in a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import platformdirs

from breaker_store.errors import ConfigurationError

DATABASE_URL_VARIABLE = "BREAKER_STORE_DATABASE_URL"
DATA_DIR_VARIABLE = "BREAKER_STORE_DATA_DIR"
SPOOL_DIR_VARIABLE = "BREAKER_STORE_SPOOL_DIR"

SCHEMES = ("postgresql://", "postgres://", "postgresql+asyncpg://")


class Durability(StrEnum):
    """What has become of a call's event when the call returns.

    Each holds more than the one before. A refusal is never waited for: under COMMITTED it is journaled, where there is
    a spool.
    """

    BEHIND = "behind"
    """It is in memory, and on its way: if the process is killed, the last 20 ms and the commit under way are lost."""

    JOURNALED = "journaled"
    """It is in a file of the spool as well, so the death of the process loses nothing; a power cut may."""

    COMMITTED = "committed"
    """Postgres has committed it."""

    @classmethod
    def of(cls, name: str) -> Durability:
        """Take one by its name.

        Raises:
            ConfigurationError: there is none of this name.

        """
        try:
            return cls(name)
        except ValueError:
            raise ConfigurationError(f"durability is one of {', '.join(cls)}, not {name!r}") from None


@dataclass(frozen=True, slots=True)
class Location:
    """Either a database's address or the folder of an embedded one; exactly one is set."""

    database_url: str | None = None
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        if (self.database_url is None) == (self.data_dir is None):
            raise ConfigurationError("either a database's address or a data folder is needed, not both")
        if self.database_url is not None and not self.database_url.startswith(SCHEMES):
            raise ConfigurationError(
                f"a database's address begins with {SCHEMES[0]}, unlike {self.database_url.partition(':')[0]!r}"
            )


def find_location(
    database_url: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Location:
    """Take what was said, else what the environment says; what is said outright goes before the environment.

    Raises:
        ConfigurationError: both or nothing was said. There is no silent default: a mistyped variable must not send an
            audit log into a private database.

    """
    if database_url is None and data_dir is None:
        database_url = environment.get(DATABASE_URL_VARIABLE) or None
        data_dir = environment.get(DATA_DIR_VARIABLE) or None
    if database_url is None and data_dir is None:
        raise ConfigurationError(
            f"no database: set {DATABASE_URL_VARIABLE}, or {DATA_DIR_VARIABLE} for an embedded Postgres, "
            "or pass database_url or data_dir"
        )
    if database_url is not None and data_dir is not None:
        raise ConfigurationError(
            f"two databases: {DATABASE_URL_VARIABLE} and {DATA_DIR_VARIABLE} (or their options) exclude each other"
        )
    return Location(database_url, None if data_dir is None else Path(data_dir).expanduser().absolute())


def find_spool_dir(
    spool_dir: str | os.PathLike[str] | None = None, environment: Mapping[str, str] = os.environ
) -> Path | None:
    """Take the folder that was said, else the environment's; None for neither, and then there is no spool."""
    chosen = spool_dir if spool_dir is not None else environment.get(SPOOL_DIR_VARIABLE) or None
    return None if chosen is None else Path(chosen).expanduser().absolute()


def default_data_dir() -> Path:
    """Give the platform's folder for this user's data, for commands that nobody told where."""
    return platformdirs.user_data_path("breaker-store")
