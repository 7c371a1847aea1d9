"""The public face: a server for a data directory, for as long as somebody uses it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from breaker_store.embedded.account import account_for
from breaker_store.embedded.binaries import Binaries, find_binaries
from breaker_store.embedded.cluster import DATABASE, SUPERUSER, Cluster, find_home
from breaker_store.embedded.errors import DataDirUnusableError, EmbeddedPostgresError, ServerNotReadyError
from breaker_store.embedded.postmaster import PORT, Postmaster, RunningServer
from breaker_store.embedded.sharing import FileLock
from breaker_store.errors import ConfigurationError

SYSTEM_DIR = Path("/var/lib/breaker-store")


@dataclass(frozen=True)
class _Use:
    """What one has while using a server."""

    lock: FileLock
    binaries: Binaries
    postmaster: Postmaster
    server: RunningServer


class EmbeddedPostgres:
    """A Postgres that all who name the same data directory share, and that the last of them to leave stops.

    It listens on a Unix socket in a folder of its own, which its user and root alone can enter, and not on the network.
    When every user of it was killed it runs on; the next one takes it over and stops it when leaving. Starting and
    stopping block: use `asyncio.to_thread` in a coroutine. A forked child is no user of its parent's server.

    data_dir: made if missing; must be empty or one that this class made. See `breaker_store.embedded.cluster` for
        what is in it, and for when root's data live elsewhere.
    settings: Postgres settings beside or instead of `DEFAULT_SETTINGS`; where the server runs already they are not
        looked at. Where it listens can't be set.
    patience_seconds: the longest wait for the server to be ready (crash recovery takes its time) or to stop, and, before
        that, for others who are starting or stopping it.
    system_dir: where root keeps what can't be in data_dir or in the installed package.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *,
        settings: Mapping[str, str] | None = None,
        patience_seconds: float = 120.0,
        system_dir: Path = SYSTEM_DIR,
    ) -> None:
        self._data_dir = Path(data_dir).absolute()
        self._settings = dict(settings or {})
        self._patience_seconds = patience_seconds
        self._system_dir = system_dir
        self._home = self._data_dir
        self._use: _Use | None = None

    def acquire(self) -> Self:
        """Start the server, or join those who use it; an EmbeddedPostgresError says why it can't be."""
        if self._use is not None:
            raise EmbeddedPostgresError(
                "this server is acquired already: make another object for another use of it"
            )
        try:
            self._home = find_home(self._data_dir, self._system_dir, self._patience_seconds)
            with self._starting_or_stopping():
                self._use = self._join()
        except OSError as error:
            raise DataDirUnusableError(self._data_dir, str(error)) from error
        return self

    def release(self) -> None:
        """Leave the server, and stop it if nobody else uses it; does nothing if it is not acquired."""
        use, self._use = self._use, None
        if use is None or not use.lock.held:  # the latter in a forked child
            return
        try:
            with self._starting_or_stopping():
                _leave(use.lock, use.postmaster)
        finally:
            use.lock.let_go()

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    @property
    def url(self) -> str:
        """The database's URL for its owner, as psycopg and asyncpg take it; SQLAlchemy wants a driver behind `postgresql`."""
        return self.url_as(self.user)

    def url_as(self, role: str) -> str:
        """The same for another role, which needs no password either: who can enter the socket's folder may be anybody."""
        return f"postgresql://{role}@/{self.dbname}?host={self.host}&port={self.port}"

    @property
    def host(self) -> str:
        """The folder that the server's socket is in: libpq and asyncpg take it in a host's place."""
        return str(self._acquired().server.socket_dir)

    @property
    def port(self) -> int:
        return PORT

    @property
    def user(self) -> str:
        """A superuser, without a password."""
        return SUPERUSER

    @property
    def dbname(self) -> str:
        return DATABASE

    @property
    def log_file(self) -> Path:
        return self._acquired().postmaster.log_file

    def program(self, name: str) -> Path:
        """Find a program that came with the server, such as pg_dump.

        Raises:
            ConfigurationError: there is none of this name.

        """
        binaries = self._acquired().binaries
        if "/" in name or not binaries[name].is_file():
            programs = ", ".join(sorted(path.name for path in binaries.directory.iterdir()))
            raise ConfigurationError(f"the embedded Postgres has no program {name!r}; it has {programs}")
        return binaries[name]

    def _acquired(self) -> _Use:
        if self._use is None:
            raise EmbeddedPostgresError("this server is not acquired (any more)")
        return self._use

    def _join(self) -> _Use:
        data = self._home / "data"
        cluster = Cluster(data, account_for(data))
        binaries = find_binaries(cluster.account, self._system_dir)
        cluster.make_ready(binaries, flushed=self._settings.get("fsync", "on") == "on")
        postmaster = Postmaster(cluster, self._patience_seconds)
        lock = FileLock(self._home / "users.lock")
        lock.share()
        try:
            return _Use(lock, binaries, postmaster, postmaster.ensure_ready(binaries, self._settings))
        except ServerNotReadyError:
            lock.let_go()  # but let it run: what it has recovered so far would be lost
            raise
        except BaseException:
            _leave(lock, postmaster)
            raise

    def _starting_or_stopping(self) -> AbstractContextManager[None]:
        return FileLock(self._home / "starting-or-stopping.lock").exclusive(self._patience_seconds)


def _leave(lock: FileLock, postmaster: Postmaster) -> None:
    try:
        if lock.is_last():
            postmaster.stop()
    finally:
        lock.let_go()
