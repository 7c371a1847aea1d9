from __future__ import annotations

import asyncio
import json
import time

import asyncpg
import psycopg
import pytest

from breaker_store.core.events import Kind
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.runtime.clock import ManualClock
from tests.postgres.histories import START, Past, outcome
from tests.postgres.upkeep import keep, let_pass

from .conftest import Invoke, Start

NOTHING_SET = {"keep_days": None, "imports": None, "set_at": None, "actor": None}


def lines(stdout: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_at_first_everything_is_kept_for_ever_and_the_advice_is_shown(call: Invoke) -> None:
    """`retention` shows what is set beside what is advised."""
    assert lines(call("retention", "--json").stdout) == [
        {"kind": kind} | NOTHING_SET | {"advised_days": days}
        for kind, days in (("outcomes", 30), ("minutes", 7), ("hours", 400), ("days", None))
    ]
    table = call("retention").stdout
    assert "30 days" in table
    assert "transitions" in table


def test_set_and_clear(invoke: Invoke, maintenance_url: str) -> None:
    """`retention set` and `clear` are for the maintenance role, and say what holds now."""
    location = ("--database-url", maintenance_url)
    options = ("--with-imports", "--actor", "ada", "--json", *location)
    [found, *_] = lines(invoke("retention", "set", "outcomes", "30d", *options).stdout)
    assert {"keep_days": 30, "imports": True, "actor": "ada (command line)"}.items() <= found.items()
    assert "go too" in invoke("retention", *location).stdout
    [found, *_] = lines(invoke("retention", "clear", "outcomes", "--json", *location).stdout)
    assert found["keep_days"] is None


@pytest.mark.parametrize("days", ["30", "0d", "1.5d", "-3d", "36501d", "4w", "for ever"])
def test_a_time_that_is_none(call: Invoke, days: str) -> None:
    """A mistake is a line, and nothing is set by it."""
    result = call("retention", "set", "outcomes", days)
    assert result.exit_code == 2
    assert days == "-3d" or "from 1d to 36500d" in " ".join(result.stderr.split())
    assert lines(call("retention", "--json").stdout)[0]["keep_days"] is None


def test_what_can_not_be_set(call: Invoke, invoke: Invoke, maintenance_url: str) -> None:
    """Transitions have no policy; the application may set none; an option of the group would be lost."""
    assert call("retention", "set", "transitions", "30d").exit_code == 2
    result = call("retention", "set", "outcomes", "30d")
    assert (result.exit_code, "connect as the maintenance role" in result.stderr) == (1, True)
    assert invoke("retention", "--database-url", maintenance_url, "set", "outcomes", "30d").exit_code == 2


@pytest.fixture
def old_day(database_url: str, owner_url: str) -> str:
    """Store a failure of an old day, which may go."""

    async def fill() -> None:
        log = PostgresEventLog(database_url, ManualClock(START))
        await Past(log).store(101, [outcome(Kind.FAILURE, START)])
        await log.close()
        owner = await asyncpg.connect(owner_url)
        await owner.execute("SELECT restore_breaker_state(101)")
        await let_pass(owner, 40)
        await keep(owner, "outcomes", 30)
        await owner.close()

    asyncio.run(fill())
    return "2024-03-01"


def test_maintain(call: Invoke, owner_url: str, old_day: str) -> None:
    """`maintain` tells what it would do, does it, and finds nothing to do the next time."""
    planned = call("maintain", "--dry-run").stdout
    assert f"would drop the outcomes of {old_day}: " in planned
    assert "would carry over the count of 1 user: 101" in planned
    assert json.loads(call("maintain", "--dry-run", "--json").stdout)["would_carry_over"] == [101]
    done = call("maintain", "--actor", "ada").stdout
    assert "carried over the count of 1 user: 101\n" in done
    assert f"dropped the outcomes of {old_day}: 1 outcome, " in done
    with psycopg.connect(owner_url) as owner:
        assert owner.execute("SELECT actor, outcomes FROM dropped_partitions").fetchall() == [
            ("ada (command line)", 1)
        ]
    assert call("maintain", "--dry-run").stdout == "nothing would be dropped\n"
    assert json.loads(call("maintain", "--json").stdout) == {
        "partitions_made": 0, "carried_over": [], "dropped": [], "kept": [],
    }  # fmt: skip


def test_maintain_while_another_does(call: Invoke, owner_url: str) -> None:
    """One process does it at a time; the other says so."""
    with psycopg.connect(owner_url) as owner:
        owner.execute("SELECT pg_advisory_lock(1651665779, 7)")
        result = call("maintain")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "another process is maintaining this database" in result.stderr


def test_serve_maintains(start: Start, database_url: str, owner_url: str, old_day: str) -> None:
    """A `serve` that runs does the same by itself."""
    start("serve", "--port", 0, "--database-url", database_url)
    with psycopg.connect(owner_url, autocommit=True) as owner:
        deadline = time.monotonic() + 40
        while not (dropped := owner.execute("SELECT day, actor FROM dropped_partitions").fetchall()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert [(str(day), actor) for day, actor in dropped] == [(old_day, "breaker-store serve")]
