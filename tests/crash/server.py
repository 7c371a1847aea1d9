"""A Postgres as users of the embedded one have it, on a disk, that can be killed and started again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Self

from breaker_store.embedded import EmbeddedPostgres
from breaker_store.postgres.migrating import upgrade
from breaker_store.postgres.privileges import DEFAULT_APPLICATION, Roles
from breaker_store.postgres.roles import ensure_roles


class KillableServer:
    """One server after the other, all of the same data."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._server = EmbeddedPostgres(data_dir)

    def __enter__(self) -> Self:
        self._server.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.release()

    async def set_up(self) -> None:
        """Make the tables, and the roles."""
        await upgrade(self.owner_url)
        await ensure_roles(self.owner_url, Roles())

    @property
    def owner_url(self) -> str:
        return self._server.url

    @property
    def url(self) -> str:
        """The application's address."""
        return self._server.url_as(DEFAULT_APPLICATION)

    def kill(self, number: signal.Signals) -> None:
        """Send the postmaster SIGKILL, or SIGQUIT, which is an immediate stop."""
        pid = int((self._server.log_file.parent / "postmaster.pid").read_text().partition("\n")[0])
        os.kill(pid, number)

    def start_again(self) -> None:
        """Start it, and wait until it has recovered."""
        successor = EmbeddedPostgres(self._data_dir).acquire()
        self._server.release()
        self._server = successor
