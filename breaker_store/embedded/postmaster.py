"""The server's process: started so that it outlives whoever starts it, waited for, and stopped.

It is nobody's child (a shell starts it in a session of its own and ends), so Ctrl-C in a terminal doesn't reach it, and
it is the same to all its users: they know it by the file `postmaster.pid` that it keeps in its data directory. That file
may be stale, and its process id by now another process's, so the process is believed only when its command line names
the data directory.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from breaker_store.embedded.binaries import Binaries
from breaker_store.embedded.cluster import Cluster
from breaker_store.embedded.errors import ServerError, ServerNotReadyError, ServerStartError, ServerStopError

PORT = 5432  # names the socket's file only: the network is not listened on
DEFAULT_SETTINGS: Mapping[str, str] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A refused statement is its client's affair, and its text may hold what should not be in a log.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    "log_autovacuum_min_duration": "-1",
}
_LOG_LIMIT_BYTES = 1_000_000
_TAIL_BYTES = 2_000
_POLL_SECONDS = 0.005
# A socket's path has at most 107 bytes, 14 of them the file's name. In a URL's host a comma or a colon would part it.
_SOCKET_DIR = re.compile(r"[A-Za-z0-9/._+-]{1,93}")
_SHORT_DIR = Path("/tmp")  # noqa: S108 - what is made there is new, and private
_SHORT_PREFIX = "breaker-store-"
_LAUNCH = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
# Processes of a killed server need a moment to notice that it is gone.
_TRANSIENT = re.compile(r'pre-existing shared memory block|lock file "postmaster\.pid" already exists')


@dataclass(frozen=True)
class RunningServer:
    """What `postmaster.pid` says; the status is "" before there is one."""

    pid: int
    socket_dir: Path
    status: str


class Postmaster:
    """The server of one cluster. Whoever calls it holds the cluster's lock for starting and stopping."""

    def __init__(self, cluster: Cluster, patience_seconds: float) -> None:
        self._cluster = cluster
        self._patience_seconds = patience_seconds
        self._deadline = 0.0
        self._log_start = 0

    @property
    def log_file(self) -> Path:
        return self._cluster.log_file

    def ensure_ready(self, binaries: Binaries, settings: Mapping[str, str]) -> RunningServer:
        """Wait for the server that runs, or start one with these settings, until it takes connections."""
        self._deadline = time.monotonic() + self._patience_seconds
        self._log_start = self._log_size()
        running = self._find()
        while True:
            ours = running is None
            pid = running.pid if running is not None else self._launch(binaries, settings)
            ready = self._wait_until_ready(pid)
            if ready is not None:
                return ready
            # One that was stopping is gone now; and one that a killed user began to start may have forestalled ours.
            running = self._find()
            if ours and running is None and not _TRANSIENT.search(self._log_tail()):
                raise ServerStartError("did not start", self.log_file, self._log_tail())
            self._pause(ServerNotReadyError, "is still held by processes of the last one")

    def stop(self) -> None:
        """Stop the server, if it runs, as "fast shutdown": transactions under way are rolled back."""
        self._deadline = time.monotonic() + self._patience_seconds
        running = self._find()
        if running is None:
            return
        with suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGINT)
        self._wait_for_end(running.pid)
        self._remove_socket(running.socket_dir)

    def _find(self) -> RunningServer | None:
        written = self._read_pid_file()
        return written if written is not None and self._is_alive(written.pid) else None

    def _read_pid_file(self) -> RunningServer | None:
        try:
            lines = os.fsdecode(self._pid_file.read_bytes()).splitlines()
            pid = int(lines[0])
        except (FileNotFoundError, IndexError, ValueError):
            return None
        lines += [""] * 8  # it is written little by little
        return RunningServer(pid, Path(lines[4] or self._cluster.data), lines[7].strip())

    @property
    def _pid_file(self) -> Path:
        return self._cluster.data / "postmaster.pid"

    def _is_alive(self, pid: int) -> bool:
        """Say whether the process is this cluster's server; one that ended and was not reaped is not."""
        try:
            command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            return False
        if not command_line:  # of one that is just becoming the server, or that has just ended
            with suppress(OSError):
                return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        return b"\0-D\0" + os.fsencode(self._cluster.data) + b"\0" in command_line

    def _launch(self, binaries: Binaries, settings: Mapping[str, str]) -> int:
        self._clear_stale_files()
        self._limit_log()
        options = {**DEFAULT_SETTINGS, **settings, **self._addresses()}
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        server = (binaries["postgres"], "-D", self._cluster.data)
        shell = ("/bin/sh", "-c", _LAUNCH, "sh", self.log_file)
        return int(self._cluster.account.run(*shell, *server, *arguments, lasting=True).stdout)

    def _clear_stale_files(self) -> None:
        """Remove what a killed server left and Postgres would take for a living one's.

        Its number may be another process's by now, or nobody may have reaped it. Any other stale pid file is left to
        Postgres, which first looks for processes of the old server.
        """
        written = self._read_pid_file()
        if written is None:
            return
        if _answers(written.socket_dir):
            raise ServerStartError(
                f"runs already, though its process {written.pid} is not to be seen from here (another container?)",
                self.log_file,
            )
        self._remove_socket(written.socket_dir)
        if Path(f"/proc/{written.pid}").exists():
            self._pid_file.unlink()

    def _remove_socket(self, socket_dir: Path) -> None:
        """Remove a server's socket and its lock file, which it does itself if it can, and a folder made for them."""
        made_for_it = socket_dir.parent == _SHORT_DIR and socket_dir.name.startswith(_SHORT_PREFIX)
        if socket_dir != self._cluster.data and not made_for_it:
            return  # the file that names it is not root's
        with suppress(OSError):
            _socket_file(socket_dir).unlink(missing_ok=True)
            _socket_file(socket_dir).with_suffix(f".{PORT}.lock").unlink(missing_ok=True)
            if made_for_it:
                socket_dir.rmdir()

    def _limit_log(self) -> None:
        """Put a long log aside, as the one older log that is kept; a start writes little, and so do days of service."""
        if self._log_size() > _LOG_LIMIT_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
            self._log_start = 0

    def _addresses(self) -> dict[str, str]:
        return {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(self._socket_dir),
            "unix_socket_permissions": "0700",
        }

    @cached_property
    def _socket_dir(self) -> Path:
        """The folder for the socket: the cluster's own, else one below /tmp that only the account can enter."""
        if _SOCKET_DIR.fullmatch(str(self._cluster.data)):
            return self._cluster.data
        socket_dir = Path(tempfile.mkdtemp(prefix=_SHORT_PREFIX, dir=_SHORT_DIR))
        self._cluster.account.own(socket_dir)
        return socket_dir

    def _wait_until_ready(self, pid: int) -> RunningServer | None:
        """Wait while the server starts or recovers; None when it ended instead."""
        while self._is_alive(pid):
            written = self._read_pid_file()
            if written is not None and written.pid == pid and written.status == "ready":
                return written
            self._pause(ServerNotReadyError, "is not ready yet")
        return None

    def _wait_for_end(self, pid: int) -> None:
        while self._is_alive(pid):
            self._pause(ServerStopError, "has not ended yet")

    def _pause(self, failure: type[ServerError], problem: str) -> None:
        if time.monotonic() >= self._deadline:
            said = f"{problem} after {self._patience_seconds:g} s; try again later"
            raise failure(said, self.log_file, self._log_tail())
        time.sleep(_POLL_SECONDS)

    def _log_size(self) -> int:
        log_file = self.log_file
        return log_file.stat().st_size if log_file.exists() else 0

    def _log_tail(self) -> str:
        try:
            with self.log_file.open("rb") as log:
                log.seek(max(self._log_start, self._log_size() - _TAIL_BYTES))
                return log.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""


def _socket_file(socket_dir: Path) -> Path:
    return socket_dir / f".s.PGSQL.{PORT}"


def _answers(socket_dir: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(_socket_file(socket_dir)))
        except OSError:
            return False
    return True
