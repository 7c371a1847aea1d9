"""Checks of a spool's folder, without taking it: its process may be at work."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from breaker_store.diagnosis.finding import Finding, ok, warning, wrong
from breaker_store.spool import DEFAULT_LIMIT_BYTES

_MEGABYTE: Final = 1 << 20


def check_spool(spool_dir: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> list[Finding]:
    """Look at a folder that may be missing, or not ours to write; and at what is in it, where it is."""
    if not spool_dir.is_dir():
        return [
            wrong(
                "spool",
                f"{spool_dir} is not there",
                "start its process once, or correct BREAKER_STORE_SPOOL_DIR",
            )
        ]
    if not os.access(spool_dir, os.R_OK | os.W_OK | os.X_OK):
        return [
            wrong("spool", f"{spool_dir} can't be written", "give it to the user that the process runs as")
        ]
    return [check_backlog(spool_dir), check_room(spool_dir, limit_bytes), check_aside(spool_dir)]


def check_backlog(spool_dir: Path) -> Finding:
    """Tell how much waits on disk; a process that is well empties it within seconds."""
    waiting = sum(_size(path) for path in spool_dir.glob("*.spool"))
    if waiting:
        return warning(
            "spool",
            f"{waiting / _MEGABYTE:,.1f} MB wait in {spool_dir}",
            "start its process again, or run `breaker-store deliver` on it; while Postgres is away it is as it should be",
        )
    return ok("spool", f"nothing waits in {spool_dir}")


def check_room(spool_dir: Path, limit_bytes: int) -> Finding:
    """Tell whether the disk has the room that the spool may take."""
    free = shutil.disk_usage(spool_dir).free
    found = f"{free / _MEGABYTE:,.0f} MB are free for a spool of up to {limit_bytes / _MEGABYTE:,.0f} MB"
    if free < limit_bytes:
        return warning("spool's disk", found, "free some room, or set a lower spool_limit_bytes")
    return ok("spool's disk", found)


def check_aside(spool_dir: Path) -> Finding:
    """Tell whether there is something that could not be delivered, for a person to look at."""
    files = sorted(path.name for path in (spool_dir / "aside").glob("*"))
    if files:
        return warning(
            "set aside",
            f"{len(files):,} files in {spool_dir / 'aside'} hold events that could not be read or stored",
            "look at them, and at the process's log; move them away when that is done",
        )
    return ok("set aside", "nothing is set aside")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # it was delivered just now
