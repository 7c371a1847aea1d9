"""Checks of the server: its version, the settings that make a commit last, and its clock."""

from __future__ import annotations

import time
from datetime import timedelta
from importlib.metadata import version
from typing import Final

from breaker_store.diagnosis.finding import Finding, ok, warning, wrong
from breaker_store.postgres.connecting import Connection

SUPPORTED_MAJORS: Final = range(15, 19)

CLOCKS_APART: Final = timedelta(seconds=2)
"""Times are corrected by the measured difference; by more than this, somebody's clock is not looked after."""

# What each should be, and what it costs where it is not.
_LASTING: Final = {
    "fsync": "a crash of the machine may destroy the database",
    "full_page_writes": "a crash of the machine may destroy the database",
}


async def check_versions(connection: Connection) -> Finding:
    major = connection.get_server_version().major
    found = (
        f"breaker-store {version('breaker-store')}, asyncpg {version('asyncpg')}, "
        f"Postgres {await connection.fetchval('SHOW server_version')}"
    )
    if major not in SUPPORTED_MAJORS:
        first, last = SUPPORTED_MAJORS[0], SUPPORTED_MAJORS[-1]
        return warning("versions", found, f"use Postgres {first} to {last}: no other is tested")
    return ok("versions", found)


async def check_writes(connection: Connection) -> Finding:
    """Tell whether this server takes writes: a standby, or one that is read-only, does not."""
    if await connection.fetchval(
        "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
    ):
        return wrong("writes", "the server takes no writes", "name the primary, or let it take writes again")
    return ok("writes", "the server takes writes")


async def check_settings(connection: Connection) -> Finding:
    """Tell whether what is committed outlives a crash.

    Our sessions set synchronous_commit themselves; what is set for the server counts for others alone.
    """
    off = {name: why for name, why in _LASTING.items() if await connection.fetchval(f"SHOW {name}") != "on"}
    if off:
        what = " and ".join(f"{name} is off" for name in off)
        return wrong(
            "settings",
            f"{what}: {next(iter(off.values()))}",
            "set them to on, and restart or reload the server",
        )
    return ok("settings", "what is committed outlives a crash: fsync and full_page_writes are on")


async def check_clocks(connection: Connection) -> Finding:
    """Compare this machine's clock with the database's; the answer is taken to be of the middle of the question."""
    asked = time.time()
    theirs: float = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    apart = timedelta(seconds=abs(theirs - (asked + time.time()) / 2))
    found = f"this machine's clock and the database's are {apart.total_seconds():.3f} s apart"
    if apart > CLOCKS_APART:
        return warning("clocks", found, "events get the database's time: set both clocks by NTP")
    return ok("clocks", found)


SERVER_CHECKS: Final = (check_versions, check_writes, check_settings, check_clocks)
