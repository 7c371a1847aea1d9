"""Whatever is altered, taken out, put in or moved, by whoever owns the database: the check finds it and names it."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from breaker_store import BreakerStore, Policy
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.heads import Head
from breaker_store.postgres.outcome_days import DAY_LENGTH
from breaker_store.postgres.verification import Verification, verify
from breaker_store.runtime.clock import Clock
from tests.depth import DEPTH
from tests.postgres.histories import MIDNIGHT, STEPS, Past, Processes
from tests.postgres.living import fail, ok, trip
from tests.postgres.tampering import tamper
from tests.postgres.test_codec import make_batch, outcome_rows

OF_ANY = "(SELECT ctid FROM {} ORDER BY {} LIMIT 1)"
A_SUCCESS = OF_ANY.format("breaker_outcomes WHERE kind = 1", "writer_id, writer_seq")


@pytest.fixture
async def record(store: BreakerStore, owner: asyncpg.Connection) -> asyncpg.Connection:
    """Store what happened: one user is well, one fails, one tripped again and again, and one failed and is well again."""
    well, failing, sick, recovered = (store.registry.get_breaker(user_id) for user_id in (1, 2, 3, 4))
    for _ in range(70):
        await well.call(ok)
    await fail(failing)
    await fail(recovered)
    await recovered.call(ok)
    await store.flush()
    for _ in range(2):
        await trip(sick)
        await store.flush()
        sick.reset(actor="ann", reason="looked at it")
        await store.flush()
    await trip(sick)
    await store.flush()
    return owner


async def test_a_record_that_nobody_touched_is_whole(record: asyncpg.Connection, database_url: str) -> None:
    found = await verify(database_url)
    assert found.findings == ()
    assert (found.batches.events, found.transitions, found.breakers) == (84, 5, 4)


TAMPERED = {
    "an outcome's time": (
        "UPDATE breaker_outcomes SET occurred_at = occurred_at + interval '1 us' WHERE writer_seq = 5",
        "batch 1 of writer",
    ),
    "an outcome's user": ("UPDATE breaker_outcomes SET user_id = 2 WHERE writer_seq = 5", "batch 1 of writer"),
    "an error's text": (
        "UPDATE breaker_outcomes SET error_message = 'all well' WHERE kind = 2 AND user_id = 2",
        "is not as it was sealed",
    ),
    "a failure made a success": (
        "UPDATE breaker_outcomes SET kind = 1 WHERE kind = 2 AND user_id = 2",
        "is not as it was sealed",
    ),
    "an outcome taken out": ("DELETE FROM breaker_outcomes WHERE writer_seq = 5", "events are missing"),
    "all of a batch taken out": ("DELETE FROM breaker_outcomes WHERE user_id <= 2", "events are missing"),
    "an outcome put in": (
        ("INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind, verdict)"
        " SELECT occurred_at, user_id, writer_id, writer_seq, generation, era, kind, verdict FROM breaker_outcomes"
        " WHERE writer_seq = 5"),
        "and was sealed with",
    ),
    "an outcome put in for a writer of its own": (
        ("INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, kind, verdict)"
        " VALUES (now(), 1, 9223372036854775807, 1, 0, 0, 1, 0)"),
        "9223372036854775807-1 (",
    ),
    "two outcomes that changed places": (
        "UPDATE breaker_outcomes SET writer_seq = 65 - writer_seq WHERE writer_seq IN (5, 60)",
        "is not as it was sealed",
    ),
    "a transition's actor": (
        "UPDATE breaker_transitions SET details = jsonb_set(details, '{actor}', '\"bob\"') WHERE position = 2",
        "the transition at position 2",
    ),
    "a transition's reason": (
        "UPDATE breaker_transitions SET details = jsonb_set(details, '{reason}', '\"none\"') WHERE position = 2",
        "the transition at position 2",
    ),
    "a transition's user": (
        "UPDATE breaker_transitions SET user_id = 9 WHERE position = 5",
        "the transition at position 5",
    ),
    "a transition taken out": (
        "DELETE FROM breaker_transitions WHERE position = 3",
        "position 3 is missing",
    ),
    "the last transition taken out": (
        "DELETE FROM breaker_transitions WHERE position = 5",
        "the log's position says 5",
    ),
    "a transition put in": (
        ("INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, position, generation, era, version,"
        " kind, details, details_version) SELECT occurred_at, 1, writer_id, 1000, 6, generation, era, 1, kind, details,"
        " details_version FROM breaker_transitions WHERE position = 5"),
        "the transition at position 6",
    ),
    "two transitions that changed places": (
        """
        DO $$ BEGIN
            UPDATE breaker_transitions SET position = 102 WHERE position = 2;
            UPDATE breaker_transitions SET position = 2 WHERE position = 3;
            UPDATE breaker_transitions SET position = 3 WHERE position = 102;
        END $$
        """,
        "the transition at position 2",
    ),
    "a row of the ledger": (
        "UPDATE writer_batches SET digest = sha256('') WHERE batch_no = 2",
        "does not follow the one before it",
    ),
    "a row of the ledger taken out": ("DELETE FROM writer_batches WHERE batch_no = 1", "the ledger has no batch 1"),
    "what a batch says of itself": (
        "UPDATE writer_batches SET seal = sha256('') || substr(sha256(''), 1, 16) WHERE batch_no = 1",
        "batch 1 of writer",
    ),
    "a batch said to be of an older format": (
        "UPDATE writer_batches SET format = 3 WHERE batch_no = 1",
        "a format that is not known",
    ),
    "a batch said to be of a day that was dropped": (
        "UPDATE writer_batches SET earliest = earliest - interval '1 s' WHERE batch_no = 1",
        "batch 1 of writer",
    ),
    "what no transition has": (
        "UPDATE breaker_transitions SET error_message = 'no answer' WHERE position = 2",
        "in a column that no transition uses",
    ),
    "what no outcome has": (
        "UPDATE breaker_outcomes SET details = '{}' WHERE writer_seq = 5",
        "is not as it was sealed",
    ),
    "a superseded transition put in": (
        ("INSERT INTO breaker_events (occurred_at, user_id, writer_id, writer_seq, generation, era, version, kind,"
        " details, details_version) SELECT occurred_at, user_id, 7, 1, generation, era, version, kind, details, 1"
        " FROM breaker_transitions WHERE position = 5"),
        "transition 7-1 belongs to no batch",
    ),
    "a user passed off as erased": (
        ("UPDATE breaker_transitions SET salt = NULL, user_id = 9,"
        " private_digest = private_transition_digest(salt, user_id, details) WHERE position = 2"),
        "the transition at position 2",
    ),
    "a breaker's state": ("UPDATE breaker_states SET state = 0 WHERE user_id = 3", "the breaker of user 3"),
    "a breaker's count": (
        "UPDATE breaker_states SET tail_from = NULL WHERE user_id = 2",
        "the breaker of user 2 is not what its events say: failure_count",
    ),
    "a breaker's last failure": (
        """UPDATE breaker_states SET last_failure = last_failure || '{"error_message": "none"}' WHERE user_id = 4""",
        "the breaker of user 4 is not what its events say: last_failure",
    ),
    "a breaker's last failure, as one of a day that has no partition yet": (
        """
        UPDATE breaker_states
        SET last_failure = last_failure || '{"error_message": "none", "at": "2199-01-01T00:00:00+00:00"}'
        WHERE user_id = 4
        """,
        "the breaker of user 4 is not what its events say: last_failure",
    ),
    "a breaker's policy": (
        """UPDATE breaker_states SET policy = '{"failure_threshold": 99}', policy_is_own = true WHERE user_id = 1""",
        "the breaker of user 1 is not what its events say: policy",
    ),
    "the rules that a breaker goes by": (
        """UPDATE breaker_states SET policy = '{"failure_threshold": 99}' WHERE user_id = 3""",
        "the breaker of user 3 is not what its events say: policy",
    ),
    "an open breaker's last transition, and last failure": (
        "UPDATE breaker_states SET version = 9, since = 'infinity', last_failure = NULL WHERE user_id = 3",
        "the breaker of user 3 is not what its events say: version, since, last_failure",
    ),
    "a state that there is not": (
        "UPDATE breaker_states SET state = 7 WHERE user_id = 4",
        "the breaker of user 4 is not what its events say: state",
    ),
    "a last failure that is none": (
        "UPDATE breaker_states SET last_failure = '{}' WHERE user_id = 4",
        "the breaker of user 4 is not what its events say: last_failure",
    ),
    "causes that are none": (
        """UPDATE breaker_transitions SET details = details || '{"causes": [{"id": "x", "at": "y"}]}' WHERE position = 5""",
        "the transition at position 5",
    ),
    "a transition of a time that has no day": (
        "UPDATE breaker_transitions SET occurred_at = 'infinity' WHERE position = 5",
        "the transition at position 5",
    ),
    "a batch of a time that has no day": (
        "UPDATE writer_batches SET earliest = '0044-03-15 BC' WHERE batch_no = 1",
        "is of a time that has no day",
    ),
    "how long a breaker waits": (
        "UPDATE breaker_states SET retry_at = retry_at + interval '1 d' WHERE user_id = 3",
        "the breaker of user 3 is not what its events say: retry_at",
    ),
    "a wait of a breaker that is well": (
        "UPDATE breaker_states SET opened_at = now(), retry_at = now(), forced = true WHERE user_id = 1",
        "the breaker of user 1 is not what its events say: opened_at, retry_at, forced",
    ),
    "how often a breaker tripped, and of what": (
        "UPDATE breaker_states SET trips = 99, trip_error = 'none' WHERE user_id = 3",
        "the breaker of user 3 is not what its events say: trips, trip_error",
    ),
    "a breaker taken out": ("DELETE FROM breaker_states WHERE user_id = 2", "user 2 has events, and no breaker"),
    "the position": ("UPDATE log_position SET last = 6", "the log's position says 6"),
    "the count of breakers": ("UPDATE log_position SET breakers = 6", "the log's count of them says 6"),
    "the count of suspended bots": (
        "UPDATE log_position SET suspended_breakers = 6",
        "there are 0 suspended breakers, and the log's count of them says 6",
    ),
    "a suspension of which no event tells": (
        "UPDATE breaker_states SET suspended = true WHERE user_id = 1",
        "the breaker of user 1 is not what its events say: suspended",
    ),
    "the count of open breakers": (
        "UPDATE log_position SET open_breakers = 6",
        "there are 1 open breakers, and the log's count of them says 6",
    ),
    "something put in as missing": (
        ("INSERT INTO log_gaps (writer_id, batch_no, gap_no, reason, first_at, last_at, successes, refusals, failures,"
        " transitions, unknown) SELECT writer_id, 99, 1, 1, now(), now(), 0, 0, 9, 0, 0 FROM writer_batches LIMIT 1"),
        "told to be missing belongs to no batch",
    ),
    "a batch said to have no seal": (
        "UPDATE writer_batches SET format = 1, seal = NULL",
        "without a seal, was not stored as one",
    ),
    "a batch said to have none, and named as one that has none": (
        """
        DO $$ BEGIN
            UPDATE writer_batches SET format = 1, seal = NULL WHERE batch_no = 3;
            INSERT INTO unsealed_batches SELECT writer_id, batch_no FROM writer_batches WHERE format = 1;
        END $$
        """,
        "does not follow the one before it",
    ),
    "outcomes of many days in a partition": (
        """
        DO $$ BEGIN
            CREATE TABLE month (LIKE breaker_outcomes INCLUDING ALL);
            ALTER TABLE breaker_outcomes ATTACH PARTITION month FOR VALUES FROM ('2031-01-01') TO ('2031-02-01');
        END $$
        """,
        "the partition month",
    ),
    "outcomes of all other days in a partition": (
        """
        DO $$ BEGIN
            CREATE TABLE other (LIKE breaker_outcomes INCLUDING ALL);
            ALTER TABLE breaker_outcomes ATTACH PARTITION other DEFAULT;
        END $$
        """,
        "the partition other",
    ),
    "events of another kind": (
        """
        DO $$ BEGIN
            CREATE TABLE another_kind (LIKE breaker_events INCLUDING ALL);
            ALTER TABLE breaker_events ATTACH PARTITION another_kind FOR VALUES IN (500);
        END $$
        """,
        "the partition another_kind",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
async def test_it_is_found_and_named(record: asyncpg.Connection, database_url: str, what: str) -> None:
    statement, said = TAMPERED[what]
    await tamper(record, statement)
    found = await verify(database_url)
    assert any(said in text for text in found.findings), found.findings


async def test_another_reason_of_a_suspension_is_found_in_every_transition_that_has_it(
    record: asyncpg.Connection, database_url: str, store: BreakerStore
) -> None:
    bot = store.registry.get_breaker(1)
    bot.suspend(actor="ann", reason="unpaid bill")
    bot.set_policy(Policy(failure_threshold=9))
    await store.flush()
    assert (await verify(database_url)).findings == ()
    change = """UPDATE breaker_transitions SET details = jsonb_set(details, '{suspension,reason}', '"abuse"') WHERE position = 7"""
    await tamper(record, change)
    found = await verify(database_url)
    assert any("the transition at position 7" in text for text in found.findings), found.findings


async def test_a_cause_that_is_missing_is_named(record: asyncpg.Connection, database_url: str) -> None:
    (cause,) = await record.fetchrow(
        "SELECT details #>> '{causes,0,id}' FROM breaker_transitions WHERE position = 1"
    )
    await tamper(record, f"DELETE FROM breaker_outcomes WHERE writer_id || '-' || writer_seq = '{cause}'")
    found = await verify(database_url)
    assert f"{cause}, a cause of the transition at position 1, is missing" in found.findings


MISSING = """
INSERT INTO log_gaps (
    writer_id, batch_no, gap_no, reason, first_at, last_at, successes, refusals, failures, transitions, unknown
)
SELECT writer_id, 1, 1, 1, now(), now(), 0, 0, 9, 0, 0 FROM breaker_transitions WHERE position = 1
"""


async def test_what_is_said_to_be_missing_excuses_no_cause_that_a_batch_had(
    record: asyncpg.Connection, database_url: str
) -> None:
    await tamper(record, MISSING)
    await tamper(record, "DELETE FROM breaker_outcomes WHERE kind = 2 AND user_id = 3")
    found = await verify(database_url)
    assert any("a cause of the transition at position 1, is missing" in text for text in found.findings)


async def test_what_is_said_to_be_missing_is_covered_by_the_head(
    record: asyncpg.Connection, database_url: str
) -> None:
    head = (await verify(database_url)).head
    await tamper(record, MISSING)
    assert (await verify(database_url)).findings == ()
    assert (await verify(database_url, head)).problems == 1


async def test_a_head_that_is_taken_after_a_copy_was_restored_covers_what_came_with_it(
    record: asyncpg.Connection, database_url: str, store: BreakerStore
) -> None:
    """Another server counts its transactions anew, and is far behind those of the copy."""
    await tamper(record, "UPDATE writer_batches SET xid = (1000000000 + batch_no)::text::xid8")
    head = (await verify(database_url)).head
    await store.registry.get_breaker(1).call(ok)
    await store.flush()
    assert (await verify(database_url, head)).findings == ()
    await tamper(record, "UPDATE writer_batches SET digest = sha256('') WHERE batch_no = 1")
    found = await verify(database_url, head)
    assert any("is not what the head was taken of" in text for text in found.findings)


async def test_what_was_added_since_leaves_a_head_good(
    record: asyncpg.Connection, database_url: str, store: BreakerStore
) -> None:
    head = (await verify(database_url)).head
    await store.registry.get_breaker(1).call(ok)
    await trip(store.registry.get_breaker(1))
    await store.flush()
    found = await verify(database_url, Head.read(str(head)))
    assert found.findings == ()
    assert found.head != head


MADE_ANEW = """
DO $$
DECLARE
    transition record;
    head bytea := decode(repeat('00', 32), 'hex');
BEGIN
    FOR transition IN SELECT * FROM breaker_transitions WHERE position IS NOT NULL ORDER BY position LOOP
        head := chain_transition(
            head, transition.position, transition.occurred_at, transition.writer_id, transition.writer_seq,
            transition.generation, transition.era, transition.version, transition.kind, transition.details_version,
            transition.details, private_transition_digest(transition.salt, transition.user_id, transition.details)
        );
        UPDATE breaker_transitions SET chain = head WHERE position = transition.position;
    END LOOP;
    UPDATE log_position SET chain = head;
END
$$
"""


async def test_a_chain_that_was_made_anew_is_found_with_a_head_that_was_kept_elsewhere(
    record: asyncpg.Connection, database_url: str
) -> None:
    head = (await verify(database_url)).head
    await tamper(
        record, "UPDATE breaker_transitions SET occurred_at = occurred_at - interval '1 h' WHERE position = 2"
    )
    await tamper(record, MADE_ANEW)
    assert not any("position" in text for text in (await verify(database_url)).findings)
    assert "what is stored up to position 5" in (await verify(database_url, head)).findings[0]


async def test_a_writer_that_was_taken_out_as_a_whole_is_found_with_a_head(
    record: asyncpg.Connection, database_url: str
) -> None:
    async with BreakerStore.open(database_url=database_url) as other:
        await other.registry.get_breaker(9).call(ok)
    head = (await verify(database_url)).head
    (writer,) = await record.fetchrow("SELECT writer_id FROM breaker_outcomes WHERE user_id = 9")
    for table in ("breaker_outcomes", "writer_batches"):
        await tamper(record, f"DELETE FROM {table} WHERE writer_id = {writer}")
    await tamper(record, "DELETE FROM breaker_states WHERE user_id = 9")
    await tamper(record, "UPDATE log_position SET breakers = breakers - 1")
    assert (await verify(database_url)).findings == ()
    assert (await verify(database_url, head)).problems == 1


async def test_a_log_that_has_forgotten_what_a_head_tells_of_is_found(
    record: asyncpg.Connection, database_url: str
) -> None:
    head = (await verify(database_url)).head
    later = Head(head.position + 1, head.moment, head.digest)
    assert (await verify(database_url, later)).findings == (
        "the head is of position 6, and the log ends at 5",
    )


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_day_that_is_gone_is_told_and_not_wrong_if_the_log_says_that_it_was_dropped(
    past: Past, owner: asyncpg.Connection, database_url: str, is_told: bool
) -> None:
    processes = Processes(7, 0)
    await past.store(7, processes.live_through([(0, "succeed"), (0, "wait"), (0, "wait"), (0, "succeed")]))
    day = MIDNIGHT.date()
    await owner.execute(f"DROP TABLE breaker_outcomes_{day:%Y%m%d}")
    if is_told:
        await owner.execute(
            "INSERT INTO dropped_partitions (day, drops, outcomes, bytes) VALUES ($1, 1, 0, 0)", day
        )
    found = await verify(database_url)
    if is_told:
        assert (found.findings, found.batches.dropped_batches) == ((), 1)
        assert found.kept_from == day + DAY_LENGTH
    else:
        assert (found.batches.dropped_batches, found.kept_from) == (0, None)
        assert "events are missing" in found.findings[0]


databases = settings(
    max_examples=10 * DEPTH,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@databases
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(STEPS)), max_size=60), st.integers(0, 2_000_000))
async def test_whatever_three_processes_do_leaves_a_whole_record(
    past: Past, database_url: str, history: list[tuple[int, str]], skew_us: int
) -> None:
    user_id = len(past.histories) + 1
    await past.store(user_id, Processes(user_id, skew_us).live_through(history))
    found = await verify(database_url)
    # Rows of breakers hear of outcomes by marks, which these histories don't have.
    assert [text for text in found.findings if not text.startswith("the breaker of user")] == []


@databases
@given(st.lists(outcome_rows, min_size=1, max_size=80))
async def test_any_outcomes_of_any_days_are_covered(database_url: str, rows: list) -> None:
    """Batches of several days, with times in no order, as an import may bring them."""
    log = PostgresEventLog(database_url, Clock())
    await log.append(log.seal(make_batch(rows, [])))
    await log.close()
    found = await verify(database_url)
    assert [text for text in found.findings if "batch" in text] == []


async def test_it_is_checked_as_of_one_moment_while_the_log_goes_on(
    store: BreakerStore, database_url: str
) -> None:
    async def go_on() -> None:
        while True:
            for user_id in range(20):
                await trip(store.registry.get_breaker(user_id))
                store.registry.get_breaker(user_id).reset()
            await store.flush()

    going_on = asyncio.create_task(go_on())
    try:
        checked: list[Verification] = [await verify(database_url) for _ in range(3)]
    finally:
        going_on.cancel()
    assert [found.findings for found in checked] == [(), (), ()]
    assert checked[0].transitions < checked[-1].transitions
