"""A child process, heard from outside by a pipe."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time
import traceback
from contextlib import suppress

from tests.crash.child import Life
from tests.crash.evidence import Evidence

START_SECONDS = 30.0
"""How long a process may take to open its store."""

READ_BYTES = 2**18
PIPE_BYTES = 2**20


class ChildFailedError(Exception):
    """A child ended otherwise than by the signal that was sent."""


class Child:
    """A process that begins its life now: a fork, since what it needs is imported already."""

    def __init__(self, life: Life) -> None:
        self.evidence = Evidence(life.number)
        self._ended = False
        self._pipe, acknowledge_to = os.pipe()
        # Nobody listens while a server starts; the child must not have to wait for that.
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._pipe)
            _begin(life, acknowledge_to)
        os.close(acknowledge_to)

    def hear_opened(self) -> None:
        """Listen until its store is open."""
        deadline = time.monotonic() + START_SECONDS
        while not self.evidence.has_opened:
            if time.monotonic() > deadline:
                raise ChildFailedError(f"process {self.evidence.number} takes too long to open its store")
            self.hear(0.02)

    def hear(self, seconds: float) -> None:
        """Listen for so long."""
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self._pipe], [], [], rest)
            if ready and not self._read():
                raise ChildFailedError(f"process {self.evidence.number} has ended, and nobody ended it")

    def kill(self) -> None:
        """Kill it, and hear what it had said."""
        self.evidence.killed_us = time.monotonic_ns() // 1_000
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> None:
        """Send a signal, and listen until it is gone.

        Raises:
            ChildFailedError: it was gone already, or something else than the signal ended it.

        """
        self._ended = True
        os.kill(self._pid, number)
        while self._read():
            pass
        os.close(self._pipe)
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != -number:
            raise ChildFailedError(f"process {self.evidence.number} ended with {code}, not by {number!r}")

    def make_sure_that_it_is_gone(self) -> None:
        """Kill it, if it was not ended: it has nobody to tell anything any more."""
        if not self._ended:
            with suppress(ChildFailedError):
                self.end(signal.SIGKILL)

    def _read(self) -> bool:
        said = os.read(self._pipe, READ_BYTES)
        self.evidence.said += said
        return bool(said)


def _begin(life: Life, acknowledge_to: int) -> None:
    """Be the child, and never return."""
    try:
        life.live(acknowledge_to)
    except BaseException:
        with life.log_file.open("a") as log:
            traceback.print_exc(file=log)
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(1)
