from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from pytest_postgresql.executors import NoopExecutor

from tests.conftest import make_database

from .conftest import Invoke, Start, outcome, write_lines

MANY = 20_000
HOSTILE = "[red]no\x1b[2J\u009b2J\nnext"


@pytest.fixture
def tripped(call: Invoke, tmp_path: Path) -> int:
    """Have user -7 fail five times, be called in vain, and be let through after the wait."""
    failures = [
        outcome(-7, second, outcome="failure", error_type="E", error_message=HOSTILE, operation="send")
        for second in range(5)
    ]
    file = write_lines(tmp_path / "lines", *failures, outcome(-7, 10), outcome(-7, 100, duration_ms=12.5))
    assert call("import", file, "--format", "ndjson").exit_code == 0
    file.unlink()
    return -7


@pytest.fixture
def many(database_url: str) -> None:
    """Store more successes than a pipe takes."""

    async def store() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute("SELECT ensure_outcome_partitions('2026-03-01', '2026-03-01')")
        await connection.execute(
            "INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind)"
            f" SELECT '2026-03-01Z', 1, 1, number, 0, 0, 1 FROM generate_series(1, {MANY}) AS number"
        )
        await connection.close()

    asyncio.run(store())


@pytest.fixture
def start_export(start: Start, database_url: str) -> Callable[..., subprocess.Popen[str]]:
    return lambda *arguments: start("export", *arguments, "--database-url", database_url)


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_file(call: Invoke, tripped: int, tmp_path: Path) -> None:
    """`export` writes a user's events to a file, oldest first, and says how many they are."""
    result = call("export", tripped, "--output", tmp_path / "events")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "9 events, from 2023-11-14T22:13:20Z to 2023-11-14T22:15:00Z\n"
    lines = read_lines(tmp_path / "events")
    assert [line["kind"] for line in lines] == (
        [*["failure"] * 5, "opened", "success", "half_opened", "success"]
    )
    assert lines[0]["error_message"] == HOSTILE
    assert [path.name for path in tmp_path.iterdir()] == ["events"]


def test_the_standard_output(start_export: Callable[..., Any], tripped: int) -> None:
    """Without a file, everybody's events go to the standard output, and the number of them to stderr."""
    output, errors = start_export("--kind", "success", "--since", "2023-11-14T22:14:00").communicate(
        timeout=20
    )
    assert [json.loads(line)["duration_us"] for line in output.splitlines()] == [12_500]
    assert errors == "1 event, from 2023-11-14T22:15:00Z to 2023-11-14T22:15:00Z\n"


def test_csv(call: Invoke, tripped: int, tmp_path: Path) -> None:
    """`--format csv` writes a table with a header."""
    assert call("export", "--format", "csv", "--output", tmp_path / "events").exit_code == 0
    assert (tmp_path / "events").read_text().startswith("id,user_id,kind,at,generation,")


def test_a_file_that_is_there(call: Invoke, tripped: int, tmp_path: Path) -> None:
    """A file is replaced only with `--overwrite`."""
    file = write_lines(tmp_path / "events", {})
    refused = call("export", "--output", file)
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert read_lines(file) == [{}]
    assert call("export", "--output", file, "--overwrite").exit_code == 0
    assert len(read_lines(file)) == 9


def test_unknown_user(call: Invoke, tmp_path: Path) -> None:
    """An unknown user is an error, and there is no file."""
    result = call("export", 404, "--output", tmp_path / "events")
    assert result.exit_code == 1
    assert "no circuit breaker is known for user 404" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["one"],
        [str(2**63)],
        ["--format", "xml"],
        ["--kind", "x"],
        ["--since", "x"],
        ["--since", "2026-01-02", "--until", "2026-01-01"],
    ],
)
def test_mistakes(call: Invoke, arguments: list[str]) -> None:
    """A mistake in the arguments is said, with exit code 2."""
    assert call("export", *arguments).exit_code == 2


@pytest.mark.usefixtures("many")
def test_a_reader_who_has_seen_enough(start_export: Callable[..., Any]) -> None:
    """Where the reader goes, as `head` does, a line says that what it got is not the whole."""
    process = start_export()
    assert json.loads(process.stdout.readline())["id"] == "1-1"
    process.stdout.close()
    assert process.wait(20) == 1
    assert process.stderr.read() == "breaker-store: whoever read the output has closed it: it is not whole\n"


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(start_export: Callable[..., Any], number: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM end an export, without words."""
    process = start_export()
    process.stdout.readline()
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (code, "")
    assert output.count("\n") < MANY - 1


@pytest.mark.parametrize(("number", "left"), [(signal.SIGKILL, 1), (signal.SIGINT, 0), (signal.SIGTERM, 0)])
def test_a_file_that_is_broken_off(
    start_export: Callable[..., Any], owner_url: str, tmp_path: Path, number: signal.Signals, left: int
) -> None:
    """There is no file of an export that was ended; of one that was killed, a part under another name."""
    with psycopg.connect(owner_url) as other:
        other.execute("LOCK TABLE breaker_events IN ACCESS EXCLUSIVE MODE")
        process = start_export("--output", tmp_path / "events")
        waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'breaker_events'::regclass AND NOT granted"
        while not other.execute(waiting).fetchone()[0]:
            assert process.poll() is None
        process.send_signal(number)
        process.wait(20)
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == left
    assert all(name.endswith(".part") for name in names)


def run_with_output(database_url: str, output: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "breaker_store.cli", "export", "--database-url", database_url]
    return subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=20, check=False)


@pytest.mark.usefixtures("tripped")
def test_a_full_disk_behind_the_standard_output(database_url: str) -> None:
    """What can't be written is one line on stderr, also when the process ends."""
    with Path("/dev/full").open("wb") as full:
        result = run_with_output(database_url, full.fileno())
    assert result.returncode == 1
    assert result.stderr == "breaker-store: can't write the standard output: No space left on device\n"


@pytest.mark.usefixtures("tripped")
def test_a_terminal(database_url: str) -> None:
    """On a terminal nothing in a text is a control sequence."""
    ours, theirs = os.openpty()
    try:
        assert run_with_output(database_url, theirs).returncode == 0
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux says so when all is read
            while data := os.read(ours, 65_536):
                shown += data
    finally:
        os.close(ours)
    assert len(shown.splitlines()) == 9
    assert "\\x9b2J" in shown.decode()
    assert all(character.isprintable() or character in "\r\n" for character in shown.decode())


@pytest.mark.usefixtures("tripped")
def test_no_standard_output(database_url: str) -> None:
    """A closed standard output is said; the lines go nowhere else."""
    command = f"{sys.executable} -m breaker_store.cli export --database-url '{database_url}' >&-"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20, check=False)
    assert (result.returncode, result.stderr) == (1, "breaker-store: there is no standard output\n")


def test_an_import_elsewhere(
    call: Invoke, invoke: Invoke, tripped: int, tmp_path: Path, migrated_server: NoopExecutor
) -> None:
    """With two keys more, exported outcomes can be imported: the breakers decide the same again."""
    call("export", "--output", tmp_path / "events")
    lines = [line for line in read_lines(tmp_path / "events") if line["kind"] in {"success", "failure"}]
    for line in lines:
        duration_us = line["duration_us"]
        line |= {
            "outcome": line["kind"],
            "duration_ms": None if duration_us is None else duration_us / 1_000,
        }
    file = write_lines(tmp_path / "outcomes", *lines)
    with make_database(migrated_server, migrated_server.template_dbname) as elsewhere:
        result = invoke("import", file, "--format", "ndjson", "--database-url", elsewhere)
        state = invoke("state", tripped, "--json", "--database-url", elsewhere)
    assert result.exit_code == 0
    # Eras are drawn.
    there, here = (json.loads(text) for text in (state.stdout, call("state", tripped, "--json").stdout))
    assert there | {"version": None} == here | {"version": None}
