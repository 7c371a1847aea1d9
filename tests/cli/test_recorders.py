from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from breaker_store.ports import Gap, GapReason, RecorderReport
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import ManualClock
from tests.contract.reporting import CALM, TROUBLED, gaps_alone
from tests.contract.writing import START, Writer

from .conftest import Invoke

FULL = Gap(GapReason.QUEUE_FULL, START, START, successes=1_234, refusals=5)
DAMAGED = Gap(GapReason.DAMAGED, START, START, unknown=2)


def report(database_url: str, *reports: RecorderReport) -> None:
    async def leave() -> None:
        log = PostgresEventLog(database_url, ManualClock(START))
        for each in reports:
            await log.report(each)
        await log.close()

    asyncio.run(leave())


@pytest.fixture
def writer_id(database_url: str) -> int:
    """Make a writer of which something is missing."""

    async def leave_gaps() -> int:
        log = PostgresEventLog(database_url, ManualClock(START))
        writer = Writer(log, ManualClock(START))
        await writer.append(gaps_alone(writer, None, FULL, DAMAGED))
        await log.close()
        return writer.writer_id

    return asyncio.run(leave_gaps())


def test_table(call: Invoke, database_url: str, writer_id: int) -> None:
    """`recorders` shows a line for each process, newest report first, however wide it is."""
    report(database_url, replace(TROUBLED, writer_id=writer_id, ended=False), CALM)
    result = call("recorders")
    assert result.exit_code == 0
    header, newest, other = result.stdout.splitlines()
    assert header.split("  ")[0] == "writer"
    assert " ".join(newest.split()) == "1 bots-1 4711 recording behind 0 0 12 0 0 - - -"
    assert other.split()[:5] == [str(writer_id), "bots-1", str(2**22), "recording", "journaled"]
    assert other.split()[5:10] == ["1", "3", f"{2**40:,}", "4", "5"]
    assert "1,239: the queue was full; 2: the spool was damaged" in other
    assert f"{2**40 / 1_000_000:.1f} s" in other
    assert other.rstrip().endswith("Postgres can't be reached: no route to host")
    # What a column holds stands below its name.
    for name, text in (("status", "recording"), ("last error", "Postgres"), ("missing", "1,239")):
        assert header.index(name) == other.index(text)


def test_loss_that_the_log_was_not_told_of(call: Invoke, database_url: str) -> None:
    """What was lost just now is shown with its reason before the log knows of it."""
    report(database_url, replace(TROUBLED, ended=True))
    line = call("recorders").stdout.splitlines()[1]
    assert " ended " in line
    assert "5  the queue was full" in line


def test_json(call: Invoke, database_url: str, writer_id: int) -> None:
    """`--json` gives a line for each process, with the keys of the admin API."""
    report(database_url, replace(TROUBLED, writer_id=writer_id), CALM)
    newest, other = (json.loads(line) for line in call("recorders", "--json").stdout.splitlines())
    assert (newest["writer_id"], newest["status"], newest["gaps"]) == ("1", "recording", [])
    assert (other["started_at"], other["status"]) == ("2023-11-14T22:13:20.000007Z", "ended")
    assert [gap["events"] for gap in other["gaps"]] == [1_239, 2]


def test_data_do_not_steer_the_terminal(call: Invoke, database_url: str) -> None:
    """What a process says is neither markup nor a control sequence, nor breaks its line."""
    report(database_url, replace(CALM, host="[red]h\x1b[2J", last_error="two\nlines"))
    _, line = call("recorders").stdout.splitlines()
    assert "[red]h\\x1b[2J" in line
    assert "two\\nlines" in line


def test_since_hours(call: Invoke, database_url: str) -> None:
    """Nobody in the hours asked for is a line on stderr, and no error."""
    result = call("recorders", "--since-hours", 3)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "no process has reported in 3 hours\n"
    assert call("recorders", "--json").stdout == ""


def test_mistakes(call: Invoke) -> None:
    """A mistake in the arguments is said, with exit code 2."""
    assert call("recorders", "--since-hours", 0).exit_code == 2
