"""Nobody changes what is in the log: not through the parent, not by way of a partition, not as the superuser."""

from __future__ import annotations

import asyncpg
import pytest

LEAF = "breaker_outcomes_20260102"
PARTITIONED = ["breaker_events", "breaker_outcomes"]
OUTCOMES = [*PARTITIONED, LEAF]
TRANSITIONS = ["breaker_events", "breaker_transitions"]
LEDGER = "writer_batches"
GAPS = "log_gaps"
EVERY_TABLE = sorted({*OUTCOMES, *TRANSITIONS, LEDGER, GAPS})

FILL = """
SELECT ensure_outcome_partitions('2026-01-01', '2026-01-03');
INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind, position, version)
VALUES ('2026-01-02 12:00+00', 1, 1, 1, 0, 0, 1, NULL, NULL), ('2026-01-02 12:00+00', 1, 1, 2, 1, 5, 10, 1, 1);
INSERT INTO writer_batches
    (writer_id, batch_no, first_seq, last_seq, event_count, format, source, digest, earliest, latest)
VALUES (1, 1, 1, 2, 2, 1, 0, sha256('events'), '2026-01-02 12:00+00', '2026-01-02 12:00+00');
INSERT INTO log_gaps
    (writer_id, batch_no, gap_no, reason, first_at, last_at, successes, refusals, failures, transitions, unknown)
VALUES (1, 1, 1, 2, '2026-01-02 12:00+00', '2026-01-02 12:00+00', 5, 0, 0, 0, 0);
"""

CHANGES = {
    "a delete": "DELETE FROM {table}",
    "an update": "UPDATE {table} SET writer_id = 2",
    "an update that changes nothing": "UPDATE {table} SET writer_id = writer_id",
    "a merge": "MERGE INTO {table} t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
    "a truncate": "TRUNCATE {table}",
    "a truncate with all that depends on it": "TRUNCATE {table} CASCADE",
    "a delete among other work": "WITH gone AS (DELETE FROM {table} RETURNING 1) SELECT count(*) FROM gone",
}


@pytest.fixture
async def log(owner: asyncpg.Connection) -> asyncpg.Connection:
    await owner.execute(FILL)
    return owner


async def read_log(connection: asyncpg.Connection) -> list[list[asyncpg.Record]]:
    return [
        await connection.fetch(f"SELECT tableoid::regclass::text, * FROM {table} ORDER BY writer_seq")
        for table in (
            "breaker_events",
            f"(SELECT tableoid, *, first_seq AS writer_seq FROM {LEDGER}) ledger",
            f"(SELECT tableoid, *, gap_no AS writer_seq FROM {GAPS}) gaps",
        )
    ]


async def assert_refused(log: asyncpg.Connection, statement: str) -> None:
    before = await read_log(log)
    with pytest.raises(asyncpg.RestrictViolationError, match="the log is append-only"):
        await log.execute(statement)
    assert await read_log(log) == before
    assert [len(rows) for rows in before] == [2, 1, 1]


@pytest.mark.parametrize("table", EVERY_TABLE)
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_is_refused_and_changes_nothing(
    log: asyncpg.Connection, table: str, change: str
) -> None:
    await assert_refused(log, CHANGES[change].format(table=table))


@pytest.mark.parametrize("table", EVERY_TABLE)
@pytest.mark.parametrize("change", ["a delete", "an update", "a truncate"])
async def test_calling_oneself_a_replica_does_not_help(
    log: asyncpg.Connection, table: str, change: str
) -> None:
    """An ordinary trigger would not fire in such a session, which a superuser may open."""
    try:
        await log.execute("SET session_replication_role = replica")
    except asyncpg.InsufficientPrivilegeError:
        pytest.skip("only a superuser can")
    await assert_refused(log, CHANGES[change].format(table=table))


async def test_the_superuser_is_refused_too(log: asyncpg.Connection) -> None:
    if not await log.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        pytest.skip("the tests don't run as the superuser")
    await assert_refused(log, "DELETE FROM breaker_events")


@pytest.mark.parametrize("table", OUTCOMES)
async def test_an_outcome_moves_to_no_other_day(log: asyncpg.Connection, table: str) -> None:
    await assert_refused(
        log, f"UPDATE {table} SET occurred_at = occurred_at + interval '1 day' WHERE kind = 1"
    )


async def test_an_outcome_does_not_become_a_transition(log: asyncpg.Connection) -> None:
    await assert_refused(log, "UPDATE breaker_events SET kind = 11 WHERE kind = 1")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO writer_batches TABLE writer_batches ON CONFLICT (writer_id, batch_no) DO UPDATE SET source = 2",
        "INSERT INTO log_gaps TABLE log_gaps ON CONFLICT (writer_id, batch_no, gap_no) DO UPDATE SET unknown = 6",
        "INSERT INTO breaker_transitions TABLE breaker_transitions ON CONFLICT (writer_id, writer_seq) DO UPDATE SET era = 6",
    ],
)
async def test_an_insert_that_turns_into_an_update_is_refused(
    log: asyncpg.Connection, statement: str
) -> None:
    await assert_refused(log, statement)


async def test_a_refusal_names_the_table(log: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.RestrictViolationError) as caught:
        await log.execute("DELETE FROM breaker_events WHERE kind = 1")
    assert (caught.value.schema_name, caught.value.table_name) == ("public", LEAF)


async def test_every_partition_refuses_by_both_triggers(log: asyncpg.Connection) -> None:
    """Also one that was made later than the others."""
    await log.execute("SELECT ensure_outcome_partitions('2026-02-01', '2026-02-01')")
    unprotected = """
        SELECT relid::text, (
            SELECT array_agg(tgname::text || tgenabled::text ORDER BY tgname)
            FROM pg_trigger WHERE tgrelid = relid
        ) AS triggers
        FROM pg_partition_tree('breaker_events')
    """
    found = {row["relid"]: row["triggers"] for row in await log.fetch(unprotected)}
    assert len(found) == 3 + 3 + 1
    assert set(map(tuple, found.values())) == {("append_onlyA", "append_only_truncateA")}


BATCH = {
    "writer_id": 2,
    "batch_no": 1,
    "first_seq": 1,
    "last_seq": 2,
    "event_count": 2,
    "format": 1,
    "source": 0,
    "digest": "sha256('a')",
    "previous_digest": "NULL",
    "earliest": "'2026-01-01'",
    "latest": "'2026-01-01'",
}


async def enter(log: asyncpg.Connection, batch: dict[str, object]) -> None:
    await log.execute(
        f"INSERT INTO writer_batches ({', '.join(batch)}) VALUES ({', '.join(map(str, batch.values()))})"
    )


async def test_the_ledger_takes_no_batch_that_contradicts_itself(log: asyncpg.Connection) -> None:
    for wrong in (
        {"event_count": 3},
        {"event_count": -1},
        {"event_count": 0, "last_seq": -1},
        {"last_seq": 0},
        {"first_seq": 0, "last_seq": 1},
        {"batch_no": 0},
        {"digest": "'short'"},
        {"previous_digest": "sha256('b')"},
        {"batch_no": 2},
        {"batch_no": 2, "previous_digest": "'short'"},
        {"latest": "'2025-12-31'"},
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await enter(log, BATCH | wrong)


@pytest.mark.parametrize("last_seq", [0, 2])
async def test_the_ledger_takes_a_batch_that_has_no_events(log: asyncpg.Connection, last_seq: int) -> None:
    await enter(log, BATCH | {"event_count": 0, "last_seq": last_seq})


async def test_a_gap_that_ends_before_it_begins_is_refused(log: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await log.execute(
            "INSERT INTO log_gaps VALUES (1, 1, '2026-01-02', '2026-01-01', 1, 0, 0, 0, 0, now(), 2, 1)"
        )
