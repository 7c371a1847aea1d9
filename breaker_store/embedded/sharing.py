"""Who uses the server: counted by the kernel, so that a killed process is never counted on.

Each user of a server holds a shared flock on one file for as long as it uses it. Whoever leaves asks for that lock
exclusively: it is granted to the last one only, who then stops the server. A second lock, held exclusively for the
moment, keeps starting and stopping apart. A process that dies, however it dies, has left.

A flock belongs to the opening of a file, so two users within one process count as two, and programs that are started
get none (Python's descriptors are closed on exec). Only a forked child would share its parent's: it is made to let go
at once, and using the server is the parent's affair.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

from breaker_store.embedded.errors import OthersAreBusyError

_POLL_SECONDS = 0.01


class FileLock:
    """A lock on a file that need not exist yet; let go of at the latest when the process ends."""

    _all: ClassVar[WeakSet[FileLock]] = WeakSet()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._all.add(self)

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    @contextmanager
    def exclusive(self, patience_seconds: float) -> Iterator[None]:
        """Hold the lock alone; OthersAreBusyError when others held it all the time."""
        deadline = time.monotonic() + patience_seconds
        self._open()
        try:
            while not self._try(fcntl.LOCK_EX):
                if time.monotonic() >= deadline:
                    raise OthersAreBusyError(self._path, patience_seconds)
                time.sleep(_POLL_SECONDS)
            yield
        finally:
            self.let_go()

    def share(self) -> None:
        """Hold the lock together with others; waits for one who holds it alone."""
        fcntl.flock(self._open(), fcntl.LOCK_SH)

    def is_last(self) -> bool:
        """Say whether nobody else holds the lock. Only for one who is about to let go: asking may lose it."""
        return self._try(fcntl.LOCK_EX)

    def let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        # No link is followed: for root, the folder may be one that somebody else can write.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o600)
        return self._descriptor

    def _try(self, operation: int) -> bool:
        if self._descriptor is None:
            return False
        try:
            fcntl.flock(self._descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @classmethod
    def forget_all(cls) -> None:
        """Close every lock's descriptor: in a forked child this leaves the parent's locks as they are."""
        for lock in list(cls._all):
            lock.let_go()


os.register_at_fork(after_in_child=FileLock.forget_all)
