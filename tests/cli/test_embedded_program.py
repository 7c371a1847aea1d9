from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from breaker_store.settings import DATABASE_URL_VARIABLE

from .conftest import Invoke, outcome, write_lines


@pytest.fixture
def restored_dir(data_dir: Path) -> Iterator[Path]:
    """Name a folder for a second database, which root's server can enter."""
    folder = data_dir.with_name("restored")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def export(invoke: Invoke, data_dir: Path, output: Path) -> str:
    assert invoke("export", "--data-dir", data_dir, "--output", output).exit_code == 0
    return output.read_text()


def test_a_dump_is_restored_whole_and_as_safe_as_it_was(
    invoke: Invoke, data_dir: Path, restored_dir: Path, tmp_path: Path
) -> None:
    """The way that the README shows: events, triggers and roles of the new folder are those of the old one."""
    file = write_lines(tmp_path / "lines", *(outcome(1, second) for second in range(0, 200_000, 20_000)))
    assert invoke("import", file, "--format", "ndjson", "--data-dir", data_dir).exit_code == 0
    dump = tmp_path / "events.dump"
    dumped = invoke("postgres", "--data-dir", data_dir, "pg_dump", "--format=custom", f"--file={dump}")
    assert (dumped.exit_code, dumped.stderr) == (0, "")
    restore = ("pg_restore", "--no-privileges", "--exit-on-error", "--dbname=breaker_store", dump)
    assert invoke("postgres", "--data-dir", restored_dir, *restore).exit_code == 0

    exports = [export(invoke, folder, tmp_path / folder.name) for folder in (data_dir, restored_dir)]
    assert exports[0] == exports[1]
    assert exports[0].count("\n") == 10
    # The first command on it gave the application its rights.
    assert invoke("doctor", "--data-dir", restored_dir).exit_code == 0


def test_the_programs_exit_code_and_a_program_that_is_not_there(invoke: Invoke, data_dir: Path) -> None:
    """What a program ends with is what the command ends with; another name is a line that tells the names."""
    assert invoke("postgres", "--data-dir", data_dir, "psql", "--no-such-option").exit_code == 1
    assert invoke("postgres", "--data-dir", data_dir, "psql", "-qc", "SELECT 1").exit_code == 0
    for name in ("nothing", "/bin/sh", ".."):
        result = invoke("postgres", "--data-dir", data_dir, name)
        assert result.exit_code == 1
        assert "pg_dump, " in result.stderr


def test_a_database_of_ones_own_has_its_own_programs(invoke: Invoke, database_url: str) -> None:
    """Where the environment names a running Postgres, nothing embedded is started in its place."""
    result = invoke("postgres", "psql", env={DATABASE_URL_VARIABLE: database_url})
    assert result.exit_code == 1
    assert "the programs of your own server" in result.stderr
