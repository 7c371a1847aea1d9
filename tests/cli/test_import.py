from __future__ import annotations

import asyncio
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from breaker_store.store import BreakerStore

from .conftest import Invoke, outcome, write_lines

DATA = Path(__file__).parents[1] / "data"
REAL_LINE = '1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 203 "-" "agent"\n'

Count = Callable[[], int]


@pytest.fixture
def count_lines(database_url: str) -> Count:
    async def count() -> int:
        connection = await asyncpg.connect(database_url)
        try:
            return await connection.fetchval("SELECT count(*) FROM imported_lines")
        finally:
            await connection.close()

    return lambda: asyncio.run(count())


def read_summary(output: str) -> dict[str, str]:
    return {line[:18].strip(): line[18:].strip() for line in output.splitlines()}


def test_the_real_log(call: Invoke) -> None:
    """The real log's report is what the data's README says, and that of a second import says that nothing is new."""
    first = call("import", DATA / "access.log.gz", "--format", "combined")
    assert (first.exit_code, first.stderr) == (0, "")
    assert read_summary(first.stdout) == {
        "lines": "10,000",
        "bad": "0",
        "stored before": "0",
        "counted": "9,980",
        "would be refused": "20",
        "late": "0",
        "of refused users": "0",
        "openings": "54   of 3 users",
        "breakers": "1,753   1,750 closed, 3 open, 0 half_open",
    }
    second = read_summary(call("import", DATA / "access.log.gz", "--format", "combined").stdout)
    assert (second["stored before"], second["counted"], second["openings"]) == (
        "10,000",
        "0",
        "0   of 0 users",
    )
    assert second["breakers"] == "1,753   1,750 closed, 3 open, 0 half_open"


def test_json(call: Invoke, tmp_path: Path) -> None:
    """`--json` gives the report as one line, with users by their ids; what is bad is still said on stderr."""
    failures = [outcome(-7, second, outcome="failure") for second in range(5)]
    file = write_lines(tmp_path / "lines", *failures, outcome(-7, 10), {})
    result = call("import", file, "--format", "ndjson", "--json")
    assert (result.exit_code, result.stderr.count("user_id is missing")) == (0, 1)
    assert json.loads(result.stdout) == {
        "lines": 7,
        "bad": 1,
        "stored_before": 0,
        "counted": 5,
        "would_be_refused": 1,
        "late": 0,
        "left_out": 0,
        "openings": [{"user_id": -7, "count": 1}],
        "refused": [],
        "breakers": {"closed": 0, "open": 1, "half_open": 0},
        "damage": None,
    }


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input(call: Invoke, packed: bool) -> None:
    """`-` is the standard input, packed or not."""
    data = (DATA / "edges.ndjson").read_bytes()
    result = call("import", "-", "--format", "ndjson", input=gzip.compress(data) if packed else data)
    assert result.exit_code == 0
    assert read_summary(result.stdout)["breakers"] == "12   7 closed, 4 open, 1 half_open"


def test_bad_lines(call: Invoke, tmp_path: Path) -> None:
    """Bad lines are counted, the first of them shown with their numbers, and skipped."""
    file = write_lines(tmp_path / "lines", outcome(1, 0), *[{"user_id": None}] * 25)
    result = call("import", file, "--format", "ndjson")
    assert result.exit_code == 0
    *shown, more = result.stderr.splitlines()
    assert shown[0].startswith("line 2: user_id is missing: ")
    assert (len(shown), more) == (20, "and 5 more bad lines")
    summary = read_summary(result.stdout)
    assert (summary["lines"], summary["bad"], summary["counted"]) == ("26", "25", "1")


def test_secrets_in_bad_lines(call: Invoke) -> None:
    """A bad line is shown without its secrets."""
    token = "123456789:AAFabcdefghijklmnopqrstuvwxyz012345678"
    result = call("import", "-", "--format", "ndjson", input=f"/bot{token}/\n")
    assert "/bot[hidden]/" in result.stderr


def test_strict(call: Invoke, tmp_path: Path, count_lines: Count) -> None:
    """`--strict` stops at the first bad line, and adds nothing."""
    file = write_lines(tmp_path / "lines", outcome(1, 0), {}, {})
    result = call("import", file, "--format", "ndjson", "--strict")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "breaker-store: line 2: user_id is missing: {}; nothing was imported\n"
    assert count_lines() == 0


def test_damaged_input(call: Invoke, tmp_path: Path, count_lines: Count) -> None:
    """What stands before a damage is imported, and the exit code is 1; with `--strict` nothing is."""
    file = tmp_path / "cut.gz"
    file.write_bytes((DATA / "access.log.gz").read_bytes()[:100_000])
    strict = call("import", file, "--format", "combined", "--strict")
    assert (strict.exit_code, count_lines()) == (1, 0)
    result = call("import", file, "--format", "combined")
    assert result.exit_code == 1
    assert "the input is damaged after line" in result.stderr
    assert count_lines() > 1_000


async def succeed() -> None:
    pass


def test_refused_users(call: Invoke, database_url: str, tmp_path: Path) -> None:
    """Users who are refused are shown with the reason; the exit code is 1, and the others are imported."""

    async def use() -> None:
        async with BreakerStore.open(database_url=database_url) as store:
            for user_id in range(25):
                await store.registry.get_breaker(user_id).call(succeed)

    asyncio.run(use())
    file = write_lines(tmp_path / "lines", *(outcome(user_id, 0) for user_id in range(26)))
    result = call("import", file, "--format", "ndjson")
    assert result.exit_code == 1
    assert "user 3 is refused: there are later live events of this user\n" in result.stderr
    assert "and 5 more refused users\n" in result.stderr
    summary = read_summary(result.stdout)
    assert (summary["of refused users"], summary["counted"]) == ("25", "1")


def test_options_of_the_combined_format(call: Invoke) -> None:
    """`--fail-on` and `--user-id` say what a failure is and who a client is."""
    lines = REAL_LINE + REAL_LINE.replace("1.2.3.4", "::1").replace(" 200 ", " 503 ")
    first = call("import", "-", "--format", "combined", input=lines)
    assert "line 2: the client ::1 is no IPv4 address" in first.stderr
    options = ("--user-id", "hash", "--fail-on", "504")
    second = call("import", "-", "--format", "combined", *options, input=lines)
    assert (second.exit_code, second.stderr) == (0, "")
    shown = call("history", 16909060, "--kind", "success")
    assert "GET /a" in shown.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["{file}"],
        ["{file}", "--format", "csv"],
        ["{file}", "--format", "ndjson", "--fail-on", "500"],
        ["{file}", "--format", "combined", "--fail-on", "0"],
        ["{file}.missing", "--format", "ndjson"],
        [".", "--format", "ndjson"],
    ],
)
def test_mistakes(call: Invoke, tmp_path: Path, arguments: list[str]) -> None:
    """A mistake in the arguments is said, with exit code 2."""
    file = write_lines(tmp_path / "lines")
    assert call("import", *(argument.format(file=file) for argument in arguments)).exit_code == 2


def test_a_file_that_grew(call: Invoke, tmp_path: Path) -> None:
    """A file that grew is imported again for its new lines alone."""
    file = tmp_path / "lines"
    shutil.copy(DATA / "edges.ndjson", file)
    whole = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(whole[:50]))
    call("import", file, "--format", "ndjson")
    file.write_bytes(b"".join(whole))
    summary = read_summary(call("import", file, "--format", "ndjson").stdout)
    assert summary["stored before"] == "50"
