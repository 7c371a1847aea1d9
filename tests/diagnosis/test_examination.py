"""Each thing is broken for real, and the examination names it and says what to do."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from breaker_store import BreakerStore
from breaker_store.diagnosis.examination import examine
from breaker_store.diagnosis.finding import Finding, Verdict
from breaker_store.postgres.privileges import DEFAULT_APPLICATION
from tests.conftest import Server, make_url

TODAY = "(clock_timestamp() AT TIME ZONE 'UTC')::date"
REPORT = """
INSERT INTO recorders
    (writer_id, started_at, reported_at, queued, flushed, spooled, set_aside, lost, pid, ended, host, durability)
VALUES (1, now(), now() - interval '1 minute', 0, 0, 0, 0, {lost}, 1, {ended}, 'bots-1', 'behind')
"""
ON_EACH_DAY = """
DO $$
DECLARE
    leaf regclass;
BEGIN
    FOR leaf IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'breaker_outcomes'::regclass LOOP
        EXECUTE format('%s', leaf);
    END LOOP;
END
$$
"""
NOT_OURS = """
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE ON writer_batches
FOR EACH ROW EXECUTE FUNCTION nothing();
ALTER TABLE writer_batches ENABLE ALWAYS TRIGGER append_only;
"""


@pytest.fixture
async def used_url(database_url: str) -> str:
    """Address a database in which a process has recorded, and which is as it should be."""
    async with BreakerStore.open(database_url=database_url):
        pass
    return database_url


async def findings(url: str, spool_dir: Path | None = None) -> dict[str, Finding]:
    return {finding.check: finding async for finding in examine(url, spool_dir)}


async def test_where_all_is_well_every_check_says_so_and_advises_nothing(
    used_url: str, tmp_path: Path
) -> None:
    found = await findings(used_url, tmp_path)
    # The tests' own server does not wait for its disk.
    trouble = [each for name, each in found.items() if each.verdict is not Verdict.OK and name != "settings"]
    assert trouble == []
    assert {each.advice for each in found.values() if each.verdict is Verdict.OK} == {None}
    assert set(found) == {
        *("connection", "versions", "writes", "settings", "clocks", "schema", "role", "rights", "functions"),
        *(
            "triggers",
            "days ahead",
            "detached days",
            "recorders",
            "losses",
            "roll-ups",
            "retention",
            "spool",
            "spool's disk",
            "set aside",
        ),
    }


BREAKING = {
    "the role may update": (
        f"GRANT UPDATE ON breaker_events TO {DEFAULT_APPLICATION}",
        *("role", Verdict.WRONG, "UPDATE on breaker_events"),
    ),
    "the role may delete from a day": (
        ON_EACH_DAY.replace("%s", f"GRANT DELETE ON %s TO {DEFAULT_APPLICATION}"),
        *("role", Verdict.WRONG, "DELETE on breaker_outcomes_"),
    ),
    "everybody may truncate the ledger": (
        "GRANT TRUNCATE ON writer_batches TO PUBLIC",
        *("role", Verdict.WRONG, "TRUNCATE on writer_batches"),
    ),
    "the role may not append": (
        f"REVOKE INSERT ON breaker_events FROM {DEFAULT_APPLICATION}",
        *("rights", Verdict.WRONG, "INSERT on breaker_events"),
    ),
    "the role may not call": (
        f"REVOKE EXECUTE ON FUNCTION finish_batch FROM {DEFAULT_APPLICATION}",
        *("rights", Verdict.WRONG, "EXECUTE on finish_batch"),
    ),
    "the role may not read the schema's revision": (
        f"REVOKE SELECT ON breaker_store_alembic_version FROM {DEFAULT_APPLICATION}",
        *("schema", Verdict.WRONG, "may not look at it"),
    ),
    "the schema is old": (
        "UPDATE breaker_store_alembic_version SET version_num = '0001'",
        *("schema", Verdict.WRONG, "0001"),
    ),
    "everybody may act as the owner": (
        "GRANT EXECUTE ON FUNCTION ensure_outcome_partitions TO PUBLIC",
        *("functions", Verdict.WRONG, "ensure_outcome_partitions"),
    ),
    "a search path is gone": (
        "ALTER FUNCTION ensure_outcome_partitions RESET search_path",
        *("functions", Verdict.WRONG, "ensure_outcome_partitions"),
    ),
    "a trigger of the parent is off": (
        "ALTER TABLE ONLY breaker_events DISABLE TRIGGER append_only",
        *("triggers", Verdict.WRONG, "breaker_events"),
    ),
    "a trigger is an ordinary one": (
        "ALTER TABLE breaker_transitions ENABLE TRIGGER append_only_truncate",
        *("triggers", Verdict.WRONG, "breaker_transitions"),
    ),
    "a day can be truncated": (
        ON_EACH_DAY.replace("%s", "DROP TRIGGER append_only_truncate ON %s"),
        *("triggers", Verdict.WRONG, "breaker_outcomes_"),
    ),
    "the ledger's trigger calls something else": (
        NOT_OURS,
        *("triggers", Verdict.WRONG, "writer_batches"),
    ),
    "days are missing": (
        ON_EACH_DAY.replace("%s", "DROP TABLE %s"),
        *("days ahead", Verdict.WARNING, "no partition yet"),
    ),
    "today is detached": (
        ON_EACH_DAY.replace("%s", "ALTER TABLE breaker_outcomes DETACH PARTITION %s"),
        *("detached days", Verdict.WRONG, "can't be stored"),
    ),
    "an old day is detached": (
        "CREATE TABLE breaker_outcomes_20200101 (LIKE breaker_outcomes)",
        *("detached days", Verdict.WARNING, "breaker_outcomes_20200101"),
    ),
    "a recorder is silent": (
        REPORT.format(lost=0, ended=False),
        "recorders",
        Verdict.WARNING,
        "1 fell silent",
    ),
    "nobody rolls up": (
        (
            "INSERT INTO writer_batches (writer_id, batch_no, first_seq, last_seq, event_count, format, source, digest,"
            " earliest, latest, recorded_at) SELECT 1, 1, 1, 1, 1, 1, 0, sha256('old'), at, at, at"
            " FROM (SELECT now() - interval '2 hours' AS at) AS earlier"
        ),
        *("roll-ups", Verdict.WARNING, "nobody has rolled up ever"),
    ),
    "nobody drops what should be gone": (
        (
            "SELECT ensure_outcome_partitions('2024-03-01', '2024-03-02');"
            "INSERT INTO retention (kind, keep_days, set_at) VALUES ('outcomes', 30, now() - interval '2 days')"
        ),
        *(
            "retention",
            Verdict.WARNING,
            "2 days or months should be gone, the first of them the outcomes of 2024-03-01",
        ),
    ),
    "a recorder lost events": (
        REPORT.format(lost=7, ended=True),
        "losses",
        Verdict.WRONG,
        "7 events are lost",
    ),
}


@pytest.mark.parametrize("trouble", BREAKING)
async def test_what_is_broken_is_named_with_what_to_do(
    used_url: str, owner: asyncpg.Connection, trouble: str
) -> None:
    breaking, check, verdict, told = BREAKING[trouble]
    await owner.execute(breaking)
    finding = (await findings(used_url))[check]
    assert (finding.verdict, told in finding.found) == (verdict, True), finding
    assert finding.advice


async def test_the_owner_is_warned_that_the_log_is_not_safe_from_it(used_url: str, owner_url: str) -> None:
    finding = (await findings(owner_url))["role"]
    assert finding.verdict is Verdict.WARNING
    assert "can take its triggers away" in finding.found


async def test_settings_that_may_cost_the_database_are_named(
    owner: asyncpg.Connection, used_url: str
) -> None:
    if await owner.fetchval("SHOW fsync") == "on":
        pytest.skip("this server keeps what it commits")
    finding = (await findings(used_url))["settings"]
    assert finding.verdict is Verdict.WRONG
    assert "fsync is off" in finding.found


async def test_a_server_that_takes_no_writes_is_named(owner: asyncpg.Connection, used_url: str) -> None:
    name = await owner.fetchval("SELECT current_database()")
    await owner.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    assert (await findings(used_url))["writes"].verdict is Verdict.WRONG


async def test_without_a_connection_the_rest_is_left_out(postgres_server: Server, tmp_path: Path) -> None:
    server = postgres_server
    nowhere = make_url(server.host, server.port, server.user, server.password, "nowhere")
    found = await findings(nowhere, tmp_path)
    assert found["connection"].verdict is Verdict.WRONG
    assert set(found) == {"connection", "spool", "spool's disk", "set aside"}


async def test_without_tables_nothing_is_said_of_them(empty_database_url: str) -> None:
    found = await findings(empty_database_url)
    assert found["schema"].verdict is Verdict.WRONG
    assert "migrate up" in (found["schema"].advice or "")
    assert "triggers" not in found


async def test_an_unused_database_is_told_from_one_whose_writers_are_gone(database_url: str) -> None:
    assert (await findings(database_url))["days ahead"].verdict is Verdict.OK
