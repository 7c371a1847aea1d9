"""Where a data directory's cluster lives, and how it comes to be.

A data directory holds one small file, `postgres-location`, that marks it as ours and says where its cluster's home is:

- ordinarily the folder `postgres` beside the file;
- when root owns the data directory, and `nobody`, who runs the server, can't enter it (it is, or lies below, a folder
  like /root), a folder of its own below `<system directory>/clusters`, /var/lib/breaker-store/clusters unless told
  otherwise. No folder that was there before has its mode changed. Whoever moves or copies the data directory keeps
  that cluster; whoever deletes it for good deletes that folder too.

In the home are `data` (the cluster, with the server's log, the server's user's alone) and the lock files. `data` gets
its name when it is complete, so that an interrupted start leaves no half of a cluster.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from breaker_store.embedded.account import ServerAccount, account_for
from breaker_store.embedded.binaries import Binaries, make_readable_folder
from breaker_store.embedded.errors import DataDirUnusableError, OtherMajorVersionError, ServerStartError
from breaker_store.embedded.sharing import FileLock

DATABASE = "breaker_store"
SUPERUSER = "postgres"
_LOCATION = "postgres-location"
_NOT_CONTENT = {"lost+found"}  # an empty volume has it
_UNFINISHED = "unfinished-"
# The folder with the socket is the server's user's alone: who can reach it needs no password, and the network is refused.
_INITDB_OPTIONS = (
    f"--username={SUPERUSER}",
    "--auth-local=trust",
    "--auth-host=reject",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
)


@dataclass(frozen=True)
class Cluster:
    """A cluster's place, and the user that it belongs to."""

    data: Path
    account: ServerAccount

    @property
    def log_file(self) -> Path:
        return self.data / "server.log"

    def make_ready(self, binaries: Binaries, *, flushed: bool) -> None:
        """Create the cluster if there is none, on the disk itself if `flushed`; refuse another major version's."""
        home = self.data.parent
        if not self.account.can("-x", home):
            raise DataDirUnusableError(
                home, f"the user with the id {self.account.uid}, who runs the server, can't enter it"
            )
        if not self.data.exists():
            self._create(binaries, flushed=flushed)
        found = (self.data / "PG_VERSION").read_text().strip()
        if found != binaries.major:
            raise OtherMajorVersionError(self.data, found, binaries.major)

    def _create(self, binaries: Binaries, *, flushed: bool) -> None:
        home = self.data.parent
        for leftover in home.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        # A name of its own: the initdb of a killed process may still be at work in the last one.
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=home))
        try:
            self.account.own(unfinished)
            unflushed = () if flushed else ("--no-sync",)
            self._run(binaries["initdb"], f"--pgdata={unfinished}", *_INITDB_OPTIONS, *unflushed)
            options = ("-c", "exit_on_error=on", "-c", f"fsync={flushed}")
            single_user = (binaries["postgres"], "--single", "-D", unfinished, *options, SUPERUSER)
            self._run(*single_user, text=f"CREATE DATABASE {DATABASE}")
            unfinished.rename(self.data)
            _flush(home)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _run(self, *arguments: str | Path, text: str = "") -> None:
        ended = self.account.run(*arguments, text=text)
        if ended.returncode != 0:
            tail = (ended.stdout + ended.stderr).strip()[-2000:]
            raise ServerStartError("could not create its cluster", self.log_file, tail)


def find_home(data_dir: Path, system_dir: Path, patience_seconds: float) -> Path:
    """Find the home of the data directory's cluster, making both if they are new."""
    if data_dir.exists() and not data_dir.is_dir():
        raise DataDirUnusableError(data_dir, "it is not a directory")
    data_dir.mkdir(parents=True, exist_ok=True)
    data_dir = data_dir.resolve()
    location = data_dir / _LOCATION
    if _content(data_dir) and not location.exists():
        raise DataDirUnusableError(
            data_dir, "it has other files in it, and nothing of ours; name a new or empty one"
        )
    with FileLock(location).exclusive(patience_seconds):
        return _read_location(data_dir, location) or _write_location(data_dir, location, system_dir)


def _content(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - _NOT_CONTENT


def _read_location(data_dir: Path, location: Path) -> Path | None:
    written = location.read_text().strip()
    if not written:
        return None  # whoever began here was killed before there was anything
    home = data_dir / written
    if not home.is_dir():
        raise DataDirUnusableError(
            data_dir,
            f"its cluster was in {home}, which is gone; bring it back, or remove {location} to begin anew",
        )
    return home


def _write_location(data_dir: Path, location: Path, system_dir: Path) -> Path:
    home = data_dir / "postgres"
    if not account_for(home / "data").can("-x", data_dir):
        name = re.sub(r"[^\w.-]", "_", data_dir.name)[:30]
        home = system_dir / "clusters" / f"{name}-{secrets.token_hex(4)}"
    make_readable_folder(home)
    location.write_text(f"{home.relative_to(data_dir) if home.parent == data_dir else home}\n")
    # A cluster that can't be found any more would be as good as lost.
    for path in (location, data_dir, data_dir.parent, home.parent):
        _flush(path)
    return home


def _flush(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # a parent that one may pass through, but not read: nothing was made in it
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
