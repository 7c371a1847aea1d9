"""The command line, called in this process or as the console script that users have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from breaker_store.cli import app
from breaker_store.embedded import EmbeddedPostgres
from breaker_store.settings import DATA_DIR_VARIABLE, DATABASE_URL_VARIABLE

Invoke = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[str]"]

NOWHERE = {DATABASE_URL_VARIABLE: None, DATA_DIR_VARIABLE: None}


@pytest.fixture
def invoke() -> Invoke:
    """Call the command line with arguments; only what a test sets is in the environment."""

    def invoke(*arguments: object, **options: Any) -> Result:
        options["env"] = NOWHERE | options.get("env", {})
        return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)

    return invoke


@pytest.fixture
def call(invoke: Invoke, database_url: str) -> Invoke:
    """Do the same, for the test's database."""

    def call(*arguments: object, **options: Any) -> Result:
        return invoke(*arguments, "--database-url", database_url, **options)

    return call


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command line as a process of its own, which ends with the test at the latest."""
    with ExitStack() as started:

        def start(*arguments: object) -> subprocess.Popen[str]:
            names = os.environ.items()
            inherited = {name: value for name, value in names if not name.startswith("BREAKER_STORE_")}
            process = subprocess.Popen(
                [sys.executable, "-m", "breaker_store.cli", *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=inherited,
            )
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield start


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that root's server, another user's, can enter."""
    folder = Path(tempfile.mkdtemp(prefix="breaker-store-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def new_data_dir() -> Iterator[Path]:
    """Name a folder with the cluster of an embedded Postgres that nobody has used."""
    with open_folder() as folder:
        # The first start makes the cluster; with these settings it does not wait for the disk.
        with EmbeddedPostgres(folder / "data", settings={"fsync": "off"}):
            pass
        yield folder / "data"


@pytest.fixture
def data_dir(new_data_dir: Path) -> Iterator[Path]:
    """Name a folder with a copy of that."""
    with open_folder() as folder:
        # Unlike shutil's, its copies belong to whom the originals belong to.
        subprocess.run(["cp", "--archive", new_data_dir, folder], check=True)
        yield folder / new_data_dir.name


def postmaster_pid_file(data_dir: Path) -> Path:
    """Name the file that is there as long as a server runs in this folder."""
    return data_dir / "postgres" / "data" / "postmaster.pid"


def write_lines(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def outcome(user_id: int, second: int, **fields: Any) -> dict[str, Any]:
    """Make a line of an import: a success, unless told otherwise, so many seconds after a time in 2023."""
    return {"user_id": user_id, "at": 1_700_000_000 + second, "outcome": "success"} | fields
