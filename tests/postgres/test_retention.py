"""The functions that drop: they see to the policies themselves, whoever calls them and whenever."""

from __future__ import annotations

from datetime import date

import asyncpg
import pytest

from breaker_store.core.events import Kind
from breaker_store.core.policy import MICROSECONDS
from breaker_store.core.retention import Kept
from breaker_store.errors import ConfigurationError
from breaker_store.ports import Source
from breaker_store.postgres.retention import Span, clear_policy, drop, list_due, read_policies, set_policy
from tests.postgres.histories import START, Past, outcome
from tests.postgres.tampering import tamper
from tests.postgres.upkeep import days_kept, keep, let_pass, roll_up_nothing

FIRST, SECOND = date(2024, 3, 1), date(2024, 3, 2)
DAY = 86_400 * MICROSECONDS
USER = 101


@pytest.fixture
async def two_days(past: Past, owner: asyncpg.Connection, database_url: str) -> asyncpg.Connection:
    """Store a success on each of two days, 40 days ago, and have them rolled up."""
    for at in (START, START + DAY):
        await past.store(USER, [outcome(Kind.SUCCESS, at)])
    await let_pass(owner, 40)
    await owner.execute("SELECT ensure_rollup_partitions('2024-03-01', '2024-03-02')")
    await roll_up_nothing(database_url)
    return owner


async def old_days(connection: asyncpg.Connection) -> list[date]:
    """Give the days that are kept, without those of today and ahead."""
    return [day for day in await days_kept(connection) if day.year == FIRST.year]


async def call(connection: asyncpg.Connection, day: date = FIRST) -> str | None:
    why: str | None = await connection.fetchval("SELECT drop_outcomes($1, 'ada')", day)
    return why


async def test_nothing_goes_until_somebody_says_so(two_days: asyncpg.Connection, connection) -> None:
    assert await call(connection) == "no policy lets go of it"
    assert await list_due(connection) == []
    assert await old_days(connection) == [FIRST, SECOND]


async def test_a_day_goes_when_its_time_has_come_and_the_log_says_so(two_days, connection) -> None:
    await keep(two_days, "outcomes", 30)
    await two_days.execute(
        "INSERT INTO fleet_rollups (bucket, started_at, drops, bots, successes, failures, refusals, duration_us,"
        " timed_calls, durations) VALUES (2, '2024-03-01 00:00+00', 0, 1, 5, 2, 1, 0, 0, '{}')"
    )
    assert await call(connection) is None
    assert await old_days(connection) == [SECOND]
    [row] = await connection.fetch(
        "SELECT day, drops, outcomes, bytes > 0 AS had_bytes, actor FROM dropped_partitions"
    )
    assert tuple(row) == (FIRST, 1, 8, True, "ada")


async def test_age_counts_from_when_the_youngest_was_stored(two_days, connection, past: Past) -> None:
    await keep(two_days, "outcomes", 41)
    assert await list_due(connection) == []
    await two_days.execute("UPDATE retention SET keep_days = 30")
    assert [span.first_day for span in await list_due(connection)] == [FIRST, SECOND]
    await past.store(USER, [outcome(Kind.SUCCESS, START + 1)])
    assert [span.first_day for span in await list_due(connection)] == [SECOND]


async def test_an_older_day_goes_first(two_days, connection) -> None:
    await keep(two_days, "outcomes", 30)
    assert await call(connection, SECOND) == "the outcomes of 2024-03-01 go first"
    assert await call(connection, FIRST) is None
    assert await call(connection, SECOND) is None


async def test_a_day_that_an_import_touched_stays_until_it_is_asked_for(two_days, connection) -> None:
    await keep(two_days, "outcomes", 30)
    await tamper(
        two_days, "UPDATE writer_batches SET source = $1 WHERE latest < '2024-03-02'", int(Source.IMPORT)
    )
    assert [span.first_day for span in await list_due(connection)] == [SECOND]
    assert await call(connection, FIRST) == "no policy lets go of it"
    await two_days.execute("UPDATE retention SET imports = true")
    assert await call(connection, FIRST) is None


UNCOUNTED = {
    "a mark": "INSERT INTO rollup_marks (bucket, started_at) VALUES (1, '2024-03-01 23:00+00')",
    "no run yet": "UPDATE rollup_progress SET snapshot = NULL",
    "another server": "UPDATE rollup_progress SET server_id = server_id + 1",
    "a batch that the last run did not see": "UPDATE rollup_progress SET snapshot = '3:3:'",
}


@pytest.mark.parametrize("trouble", UNCOUNTED)
async def test_what_is_not_rolled_up_stays(two_days, connection, trouble: str) -> None:
    await keep(two_days, "outcomes", 30)
    await two_days.execute(UNCOUNTED[trouble])
    assert "rolled up" in (await call(connection) or "")
    assert await old_days(connection) == [FIRST, SECOND]


async def test_the_application_can_not_change_the_policies_nor_drop_by_hand(
    two_days, connection, database_url
) -> None:
    await keep(two_days, "outcomes", 30)
    for statement in (
        "UPDATE retention SET keep_days = 1",
        "DELETE FROM retention",
        "INSERT INTO retention (kind, keep_days) VALUES ('minutes', 1)",
        "DROP TABLE breaker_outcomes_20240301",
        "DELETE FROM dropped_partitions",
        "INSERT INTO dropped_partitions (day, drops, outcomes, bytes) VALUES ('2024-03-01', 1, 0, 0)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    for refused in (
        set_policy(database_url, Kept.OUTCOMES, 1, imports=True, actor=None),
        clear_policy(database_url, Kept.OUTCOMES),
    ):
        with pytest.raises(ConfigurationError, match="connect as the maintenance role"):
            await refused


async def test_who_maintains_sets_policies_and_clears_them(maintenance_url: str, connection) -> None:
    await set_policy(maintenance_url, Kept.OUTCOMES, 30, imports=False, actor="ada")
    await set_policy(maintenance_url, Kept.OUTCOMES, 60, imports=True, actor="bob")
    policies = await read_policies(connection)
    assert [(each.keep_days, each.imports, each.actor) for each in policies.values()] == [(60, True, "bob")]
    assert await clear_policy(maintenance_url, Kept.OUTCOMES)
    assert not await clear_policy(maintenance_url, Kept.OUTCOMES)
    assert await read_policies(connection) == {}


async def test_a_snapshot_of_before_can_not_be_used_to_pass_by_what_came_since(two_days, connection) -> None:
    await keep(two_days, "outcomes", 30)
    with pytest.raises(asyncpg.InvalidTransactionStateError):
        async with connection.transaction(isolation="repeatable_read"):
            await call(connection)


async def test_who_reads_a_day_keeps_it_and_appends_go_on_in_between(
    two_days, connection, past: Past
) -> None:
    await keep(two_days, "outcomes", 30)
    [first, _] = await list_due(connection)
    pauses = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await past.store(102, [outcome(Kind.SUCCESS, START + 2 * DAY)])

    async with two_days.transaction():
        await two_days.execute("LOCK TABLE breaker_events IN ACCESS SHARE MODE")
        assert await drop(connection, first, None, pause=pause) == (
            "somebody reads it, such as an export: the next run tries again"
        )
    assert len(pauses) == 40
    assert await drop(connection, first, None) is None


async def test_a_late_event_makes_the_day_anew_and_it_goes_again_when_it_is_old(
    two_days, connection, past: Past, database_url: str
) -> None:
    await keep(two_days, "outcomes", 30)
    assert await call(connection) is None
    past._log._partitions.forget()
    await past.store(USER, [outcome(Kind.SUCCESS, START + 5)])
    assert await old_days(connection) == [FIRST, SECOND]
    assert await call(connection, FIRST) == "no policy lets go of it"
    await let_pass(two_days, 40)
    await roll_up_nothing(database_url)
    assert await call(connection, FIRST) is None
    assert await connection.fetchval("SELECT array_agg(drops) FROM dropped_partitions") == [1, 2]


FLEET = """
INSERT INTO fleet_rollups (bucket, started_at, drops, bots, successes, failures, refusals, duration_us, timed_calls, durations)
SELECT bucket, at, 0, 1, 1, 0, 0, 0, 0, '{}'
FROM (VALUES
    (0, timestamptz '2024-03-01 23:59+00'), (0, '2024-03-02 00:00+00'), (1, '2024-03-01 23:00+00'), (1, '2024-04-01 00:00+00'),
    (2, '2024-03-01 00:00+00'), (2, '2024-03-02 00:00+00')
) AS row (bucket, at)
"""


@pytest.mark.parametrize(
    ("kind", "bucket", "table"), [("minutes", 0, "minute_rollups"), ("hours", 1, "hour_rollups")]
)
async def test_rollups_go_with_the_fleets(two_days, connection, kind: str, bucket: int, table: str) -> None:
    await two_days.execute(FLEET)
    await keep(two_days, kind, 30)
    [span, *others] = await list_due(connection)
    assert (span.kind, span.first_day, len(others)) == (kind, FIRST, 1 if kind == "minutes" else 0)
    assert await drop(connection, span, None) is None
    assert len(await connection.fetch(f"SELECT FROM pg_partition_tree('{table}') WHERE isleaf")) == len(
        others
    )
    assert await connection.fetch("SELECT bucket, count(*) FROM fleet_rollups GROUP BY 1 ORDER BY 1") == [
        (number, 1 if number == bucket else 2) for number in range(3)
    ]


async def test_days_of_rollups_are_rows_that_are_deleted(two_days, connection) -> None:
    await two_days.execute(FLEET)
    await two_days.execute(
        "INSERT INTO day_rollups (started_at, user_id, refusals, duration_us, timed_calls, successes, failures, drops,"
        " durations) SELECT started_at, 1, 0, 0, 0, 1, 0, 0, '{}' FROM fleet_rollups WHERE bucket = 2"
    )
    await keep(two_days, "days", 30)
    [span, _] = await list_due(connection)
    assert span == Span(Kept.DAYS, FIRST, FIRST, None, None)
    assert await drop(connection, span, None) is None
    assert await connection.fetchval("SELECT array_agg(started_at::date) FROM day_rollups") == [SECOND]
    assert await connection.fetchval("SELECT (kind, first_day, last_day) FROM dropped_rollups") == (
        "days",
        FIRST,
        FIRST,
    )
    assert [each.first_day for each in await list_due(connection)] == [SECOND]


async def test_rollups_without_a_policy_stay(two_days, connection) -> None:
    for kind in (Kept.MINUTES, Kept.HOURS, Kept.DAYS):
        assert await drop(connection, Span(kind, FIRST, FIRST, None, None), None) == "no policy lets go of it"
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await connection.execute("SELECT drop_rollups('transitions', '2024-03-01', NULL)")
