"""Daily partitions of outcomes are made where they are needed, and hold nobody up."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from breaker_store.postgres.partitions import (
    DAY_US,
    EPOCH,
    FIRST_US,
    LAST_US,
    NoPartitionError,
    OutcomePartitions,
    consecutive_runs,
)

DAY = (dt.date(2026, 1, 2) - EPOCH).days
NOON_US = DAY * DAY_US + DAY_US // 2
LAST_DAY = LAST_US // DAY_US

INSERT = """
INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind)
VALUES ('epoch'::timestamptz + $1 * interval '1 microsecond', 1, 1, 1, 0, 0, $2) RETURNING tableoid::regclass::text
"""


async def append(connection: asyncpg.Connection, at_us: int, kind: int = 1) -> str:
    """Append an event through the parent, and tell which partition it is in."""
    partition: str = await connection.fetchval(INSERT, at_us, kind)
    return partition


async def list_days(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch(
        "SELECT relid::text FROM pg_partition_tree('breaker_outcomes') WHERE isleaf ORDER BY 1"
    )
    return [row["relid"].removeprefix("breaker_outcomes_") for row in rows]


@pytest.fixture
async def other(
    connect: Callable[..., Awaitable[asyncpg.Connection]], database_url: str
) -> asyncpg.Connection:
    """Connect once more, as somebody who doesn't wait for locks."""
    return await connect(database_url, server_settings={"lock_timeout": "200ms"})


async def test_an_outcome_without_a_partition_is_refused_until_it_is_made(
    connection: asyncpg.Connection,
) -> None:
    partitions = OutcomePartitions()
    with pytest.raises(asyncpg.CheckViolationError):
        await append(connection, NOON_US)
    assert partitions.missing(NOON_US, NOON_US)

    assert await partitions.ensure(connection, [DAY]) == 1

    assert not partitions.missing(NOON_US, NOON_US)
    assert await append(connection, NOON_US) == "breaker_outcomes_20260102"


async def test_a_transition_needs_no_partition_of_its_day(connection: asyncpg.Connection) -> None:
    assert await append(connection, -NOON_US, kind=10) == "breaker_transitions"


@pytest.mark.parametrize("settings", [{}, {"timezone": "Pacific/Kiritimati", "datestyle": "SQL, DMY"}])
async def test_a_day_is_a_day_of_utc_to_the_microsecond(
    connection: asyncpg.Connection, settings: dict[str, str]
) -> None:
    """Whatever the session takes a day or a date to be."""
    for name, value in settings.items():
        await connection.execute("SELECT set_config($1, $2, false)", name, value)
    await OutcomePartitions().ensure(connection, [DAY - 1, DAY])

    assert await append(connection, DAY * DAY_US - 1) == "breaker_outcomes_20260101"
    assert await append(connection, DAY * DAY_US) == "breaker_outcomes_20260102"
    assert await append(connection, (DAY + 1) * DAY_US - 1) == "breaker_outcomes_20260102"


async def test_only_the_days_that_are_asked_for_are_made(connection: asyncpg.Connection) -> None:
    partitions = OutcomePartitions()
    times_us = [NOON_US + 40 * DAY_US, NOON_US, NOON_US + DAY_US, NOON_US + 1]

    assert partitions.missing_days(times_us) == {DAY, DAY + 1, DAY + 40}
    assert await partitions.ensure(connection, partitions.missing_days(times_us)) == 3

    assert await list_days(connection) == ["20260102", "20260103", "20260211"]
    assert partitions.missing_days(times_us) == set()
    assert not partitions.missing(NOON_US, NOON_US + DAY_US)
    assert partitions.missing(NOON_US, NOON_US + 40 * DAY_US)


async def test_a_day_that_is_there_is_made_by_nobody_again(connection: asyncpg.Connection) -> None:
    assert await OutcomePartitions().ensure(connection, [DAY]) == 1
    assert await OutcomePartitions().ensure(connection, [DAY, DAY + 1]) == 1
    assert await OutcomePartitions().ensure(connection, []) == 0


async def test_what_is_known_is_not_asked_for(connection: asyncpg.Connection) -> None:
    partitions = OutcomePartitions()
    await partitions.keep_ahead(connection, NOON_US)
    await connection.close()

    assert await partitions.ensure(connection, [DAY]) == 0
    assert await partitions.keep_ahead(connection, NOON_US + 1) == 0


async def test_yesterday_and_the_days_ahead_are_made_and_one_more_each_day(
    connection: asyncpg.Connection,
) -> None:
    partitions = OutcomePartitions(days_ahead=2)
    assert await partitions.keep_ahead(connection, NOON_US) == 4
    assert await list_days(connection) == ["20260101", "20260102", "20260103", "20260104"]
    assert not partitions.missing(NOON_US - DAY_US, NOON_US + 2 * DAY_US)

    assert await partitions.keep_ahead(connection, (DAY + 1) * DAY_US - 1) == 0
    assert await partitions.keep_ahead(connection, (DAY + 1) * DAY_US) == 1


@pytest.mark.parametrize("now_us", [FIRST_US, LAST_US])
async def test_keeping_ahead_stops_at_the_ends_of_time(connection: asyncpg.Connection, now_us: int) -> None:
    await OutcomePartitions().keep_ahead(connection, now_us)
    assert (await append(connection, now_us)).startswith("breaker_outcomes_")


async def test_a_forgotten_day_is_asked_for_again(owner: asyncpg.Connection) -> None:
    """As after an append that found its partition dropped."""
    partitions = OutcomePartitions()
    await partitions.keep_ahead(owner, NOON_US)
    await owner.execute("DROP TABLE breaker_outcomes_20260102")

    partitions.forget()

    assert partitions.missing(NOON_US, NOON_US)
    assert await partitions.ensure(owner, [DAY]) == 1
    assert await partitions.keep_ahead(owner, NOON_US) == 0


async def test_many_days_are_made_in_pieces(connection: asyncpg.Connection) -> None:
    """The server's table of locks would not hold those of one transaction over years."""
    assert await OutcomePartitions().ensure(connection, range(DAY, DAY + 250)) == 250
    assert len(await list_days(connection)) == 250


@pytest.mark.parametrize(
    ("days", "runs"),
    [
        ([], []),
        ([5], [range(5, 6)]),
        ([5, 6, 7, 9, 11, 12], [range(5, 8), range(9, 10), range(11, 13)]),
        (range(205), [range(100), range(100, 200), range(200, 205)]),
    ],
)
def test_consecutive_days_are_made_together(days: list[int], runs: list[range]) -> None:
    assert list(consecutive_runs(days)) == runs


async def test_two_who_make_the_same_days_at_once_make_them_once(
    connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await other.execute("SET lock_timeout = '10s'")
    days = range(DAY, DAY + 20)
    made = await asyncio.gather(*(OutcomePartitions().ensure(maker, days) for maker in (connection, other)))
    assert sum(made) == 20
    assert len(await list_days(connection)) == 20


@pytest.mark.parametrize("at_us", [FIRST_US, LAST_US])
async def test_far_days_have_their_partition(connection: asyncpg.Connection, at_us: int) -> None:
    await OutcomePartitions().ensure(connection, [at_us // DAY_US])
    assert await append(connection, at_us) in {"breaker_outcomes_19700101", "breaker_outcomes_21991231"}


@pytest.mark.parametrize("day", [-1, LAST_DAY + 1, -(10**12), 10**12])
async def test_an_absurd_day_is_an_error_and_nothing_is_made(
    connection: asyncpg.Connection, day: int
) -> None:
    partitions = OutcomePartitions()
    assert partitions.missing(day * DAY_US, day * DAY_US)

    with pytest.raises(NoPartitionError) as caught:
        await partitions.ensure(connection, [DAY, day])

    assert caught.value.day == day
    assert await list_days(connection) == []
    assert partitions.missing(NOON_US, NOON_US)


@pytest.mark.parametrize(
    ("first", "last", "error"),
    [
        ("1969-12-31", "1970-01-01", asyncpg.DatetimeFieldOverflowError),
        ("2199-12-31", "2200-01-01", asyncpg.DatetimeFieldOverflowError),
        ("-infinity", "infinity", asyncpg.DatetimeFieldOverflowError),
        ("2026-01-02", "infinity", asyncpg.DatetimeFieldOverflowError),
        ("2026-01-02", "2026-01-01", asyncpg.DatetimeFieldOverflowError),
        ("2026-01-02", None, asyncpg.DatetimeFieldOverflowError),
        ("2026-01-01", "2027-02-05", asyncpg.ProgramLimitExceededError),
    ],
)
async def test_the_database_refuses_absurd_days_by_itself(
    connection: asyncpg.Connection, first: str, last: str | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await connection.execute(
            f"SELECT ensure_outcome_partitions('{first}', {'NULL' if last is None else repr(last)})"
        )
    assert await list_days(connection) == []


async def test_partitions_are_made_outside_a_transaction_alone(connection: asyncpg.Connection) -> None:
    partitions = OutcomePartitions()
    async with connection.transaction():
        with pytest.raises(RuntimeError, match="outside a transaction"):
            await partitions.ensure(connection, [DAY])
    assert partitions.missing(NOON_US, NOON_US)


async def test_a_partition_is_made_while_an_append_is_open(
    connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    """It waits for no append's end; the next append finds it."""
    await OutcomePartitions().ensure(connection, [DAY])
    async with connection.transaction():
        await append(connection, NOON_US)
        await append(connection, NOON_US, kind=10)
        assert await OutcomePartitions().ensure(other, [DAY + 1]) == 1
    assert await append(connection, NOON_US + DAY_US) == "breaker_outcomes_20260103"


async def test_appends_go_on_while_a_partition_is_being_made(
    connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await OutcomePartitions().ensure(connection, [DAY])
    async with connection.transaction():
        await connection.execute("SELECT ensure_outcome_partitions('2026-01-03', '2026-01-09')")
        assert await append(other, NOON_US) == "breaker_outcomes_20260102"
        await other.copy_records_to_table(
            "breaker_events",
            columns=["occurred_at", "user_id", "writer_id", "writer_seq", "generation", "era", "kind"],
            records=[(dt.datetime(2026, 1, 2, 13, tzinfo=dt.UTC), 1, 1, 2, 0, 0, 2)],
        )


async def test_a_detached_day_does_not_come_back_beside_its_own_past(owner: asyncpg.Connection) -> None:
    await OutcomePartitions().ensure(owner, [DAY])
    await owner.execute("ALTER TABLE breaker_outcomes DETACH PARTITION breaker_outcomes_20260102")
    with pytest.raises(asyncpg.DuplicateTableError):
        await OutcomePartitions().ensure(owner, [DAY])


async def test_a_new_day_is_indexed_like_all_others(connection: asyncpg.Connection) -> None:
    await OutcomePartitions().ensure(connection, [DAY])
    rows = await connection.fetch(
        "SELECT indrelid::regclass::text AS name, indisvalid"
        " FROM pg_partition_tree('breaker_events_history') JOIN pg_index ON indexrelid = relid"
    )
    assert {row["name"]: row["indisvalid"] for row in rows} == dict.fromkeys(
        ["breaker_events", "breaker_transitions", "breaker_outcomes", "breaker_outcomes_20260102"], True
    )


async def test_only_who_may_call_the_function_makes_partitions_and_needs_no_more(
    owner: asyncpg.Connection,
) -> None:
    """They belong to the log's owner, and a table of the caller's own in a nearer schema deceives nobody."""
    await owner.execute("BEGIN; CREATE ROLE stranger; CREATE SCHEMA theirs AUTHORIZATION stranger")
    await owner.execute("GRANT EXECUTE ON FUNCTION ensure_outcome_partitions TO stranger; SAVEPOINT granted")
    await owner.execute("SET ROLE stranger; SET search_path = theirs, public")
    await owner.execute(
        "CREATE TABLE breaker_outcomes (occurred_at timestamptz) PARTITION BY RANGE (occurred_at)"
    )
    await owner.execute("SELECT ensure_outcome_partitions('2026-01-02', '2026-01-02')")
    owners = "SELECT schemaname, tableowner <> 'stranger' FROM pg_tables WHERE tablename = 'breaker_outcomes_20260102'"
    assert tuple(await owner.fetchrow(owners)) == ("public", True)

    await owner.execute(
        "ROLLBACK TO granted; REVOKE EXECUTE ON FUNCTION ensure_outcome_partitions FROM stranger"
    )
    await owner.execute("SET ROLE stranger")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await owner.execute("SELECT ensure_outcome_partitions('2026-01-02', '2026-01-02')")
    await owner.execute("ROLLBACK")
