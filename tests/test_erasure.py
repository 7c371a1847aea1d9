"""Who is erased is nowhere in the log any more, and the rest of it is as whole as before."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest
from opentelemetry.sdk.trace import TracerProvider

from breaker_store import BreakerStore, CircuitState, Policy
from breaker_store.erasure import BrokenRecordError, erase
from breaker_store.errors import UnknownBreakerError
from breaker_store.integrations.opentelemetry import instrument
from breaker_store.postgres.event_log import PostgresEventLog
from breaker_store.postgres.partitions import DAY_US
from breaker_store.postgres.verification import verify
from tests.conftest import Connect
from tests.postgres.conftest import store  # noqa: F401 - a fixture
from tests.postgres.histories import START
from tests.postgres.living import Ear, fail, ok, trip
from tests.postgres.tampering import tamper
from tests.postgres.test_codec import log, make_batch  # noqa: F401 - a fixture

USER, OTHER = 7_100_200_300, 7_100_200_301
SECRET = "no chat with Ada Lovelace"

TABLES = (
    "breaker_events", "breaker_states", "writer_batches", "resealed_batches", "log_position", "log_gaps", "recorders",
    "staged_resets", "staged_reset_breakers",
)  # fmt: skip


async def live(store: BreakerStore) -> None:  # noqa: F811
    """Let both users fail and trip, in the same batches, and one be reset with a text about them."""
    for user_id in (USER, OTHER):
        breaker = store.registry.get_breaker(user_id)
        await breaker.call(ok)
        await fail(breaker, error=SECRET if user_id == USER else "no answer")
        await trip(breaker)
    store.registry.get_breaker(USER).reset(actor="ann", reason=SECRET)
    store.registry.get_breaker(USER).suspend(actor="ann", reason=SECRET)
    store.registry.get_breaker(USER).set_policy(Policy(failure_threshold=3))
    await store.flush()


async def stored_texts(owner: asyncpg.Connection) -> str:
    rows = [
        str(row)
        for table in TABLES
        for row in await owner.fetch(f"SELECT to_jsonb(row)::text FROM {table} AS row")
    ]
    return "\n".join(rows)


async def test_nothing_of_who_is_erased_is_left(
    store: BreakerStore,  # noqa: F811
    owner: asyncpg.Connection,
    maintenance_url: str,
) -> None:
    await live(store)
    before = await stored_texts(owner)
    assert SECRET in before
    assert str(USER) in before
    erasure = await erase(maintenance_url, USER, actor="dpo")
    after = await stored_texts(owner)
    assert SECRET not in after
    assert str(USER) not in after
    assert str(OTHER) in after
    assert (erasure.events, erasure.batches) == (7, 1)


async def test_no_trace_of_who_is_erased_is_left(
    store: BreakerStore,  # noqa: F811
    owner: asyncpg.Connection,
    database_url: str,
    maintenance_url: str,
) -> None:
    with instrument(store), TracerProvider().get_tracer("a bot").start_as_current_span("answer") as span:
        await trip(store.registry.get_breaker(USER))
    await store.flush()
    trace_id = str(UUID(int=span.get_span_context().trace_id))
    assert trace_id in await stored_texts(owner)
    await erase(maintenance_url, USER)
    assert trace_id not in await stored_texts(owner)
    assert (await verify(database_url)).findings == ()


async def test_the_record_is_whole_afterwards_and_goes_on_from_a_head_of_before(
    store: BreakerStore,  # noqa: F811
    owner: asyncpg.Connection,
    database_url: str,
    maintenance_url: str,
) -> None:
    await live(store)
    counts = "SELECT kind, count(*), min(occurred_at), max(duration_us) FROM breaker_events GROUP BY kind ORDER BY kind"
    counted = await owner.fetch(counts)
    head = (await verify(database_url)).head
    await erase(maintenance_url, USER)
    found = await verify(database_url, head)
    assert (found.findings, found.batches.resealed_batches) == ((), 1)
    assert (await owner.fetch(counts))[: len(counted)] == counted


async def test_two_who_share_batches_are_erased_one_after_the_other(
    store: BreakerStore,  # noqa: F811
    database_url: str,
    maintenance_url: str,
) -> None:
    await live(store)
    head = (await verify(database_url)).head
    for user_id in (USER, OTHER):
        await erase(maintenance_url, user_id)
    assert (await verify(database_url, head)).findings == ()


async def test_the_erasure_itself_is_in_the_log(
    store: BreakerStore,  # noqa: F811
    owner: asyncpg.Connection,
    maintenance_url: str,
) -> None:
    await live(store)
    await erase(maintenance_url, USER, actor="dpo")
    row = await owner.fetchrow("SELECT * FROM breaker_transitions ORDER BY position DESC LIMIT 1")
    assert (row["kind"], row["user_id"] < -(2**62)) == (19, True)
    assert '"actor": "dpo"' in row["details"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE breaker_outcomes SET duration_us = duration_us + 1 WHERE kind = 2",
        "UPDATE breaker_outcomes SET error_message = 'other' WHERE user_id = 7100200301 AND kind = 2",
        "UPDATE writer_batches SET seal = sha256('') || substr(seal, 33) WHERE event_count > 1",
        "UPDATE resealed_batches SET digest_after = sha256('')",
        "DELETE FROM resealed_batches",
        "UPDATE breaker_transitions SET private_digest = sha256('') WHERE private_digest IS NOT NULL",
    ],
)
async def test_what_is_tampered_with_after_an_erasure_is_found(
    store: BreakerStore,  # noqa: F811
    owner: asyncpg.Connection,
    database_url: str,
    maintenance_url: str,
    statement: str,
) -> None:
    await live(store)
    await erase(maintenance_url, USER)
    await tamper(owner, statement)
    assert (await verify(database_url)).problems > 0


async def test_an_erasure_covers_up_nothing(
    store: BreakerStore,  # noqa: F811
    owner: asyncpg.Connection,
    maintenance_url: str,
) -> None:
    await live(store)
    await tamper(owner, "UPDATE breaker_outcomes SET duration_us = 0 WHERE kind = 2")
    before = await stored_texts(owner)
    with pytest.raises(BrokenRecordError, match="is not as it was sealed"):
        await erase(maintenance_url, USER)
    assert await stored_texts(owner) == before


async def test_the_breaker_of_who_was_erased_begins_anew_where_it_runs(
    store: BreakerStore,  # noqa: F811
    database_url: str,
    maintenance_url: str,
) -> None:
    breaker = store.registry.get_breaker(USER)
    await trip(breaker)
    await store.flush()
    ear = Ear(store.registry)
    await erase(maintenance_url, USER)
    await ear.wait_for(lambda _, transition: transition.actor is None and transition.kind.label == "erased")
    assert breaker.state.state is CircuitState.CLOSED
    await trip(breaker)
    await store.flush()
    async with BreakerStore.open(database_url=database_url) as again:
        assert again.registry.get_breaker(USER).state.state is CircuitState.OPEN
    assert (await verify(database_url)).findings == ()


async def test_texts_beside_the_log_go_as_well(
    store: BreakerStore,  # noqa: F811
    owner: asyncpg.Connection,
    maintenance_url: str,
) -> None:
    await live(store)
    for user_ids, text in (((USER,), SECRET), ((USER, OTHER), "all of them")):
        number = await owner.fetchval(
            "INSERT INTO staged_resets (per_second, total, filter, reason)"
            " VALUES (1, 2, jsonb_build_object('error', $1::text), $1) RETURNING id",
            text,
        )
        await owner.execute(
            "INSERT INTO staged_reset_breakers (staged_reset_id, user_id, version) SELECT $1, unnest($2::bigint[]), 1",
            number,
            user_ids,
        )
    await owner.execute("UPDATE recorders SET last_error = $1", f"{SECRET} {USER}")
    await erase(maintenance_url, USER)
    after = await stored_texts(owner)
    assert (SECRET in after, str(USER) in after) == (False, False)
    assert after.count("all of them") == 2


async def test_a_longer_batch_of_others_is_not_taken_for_a_broken_one(
    log: PostgresEventLog,  # noqa: F811
    maintenance_url: str,
) -> None:
    """It begins before the days that are read, and has the user's number, but as a duration."""
    rest = (0, 0, 1, 0, None, None, None, None, None, None, None)
    long = [(START - days * DAY_US, OTHER, 1, 5, *rest) for days in (3, 2, 1)]
    for rows in (long, [(START, 5, 1, 7, *rest)]):
        await log.append(log.seal(make_batch(rows, [])))
    assert (await erase(maintenance_url, 5)).batches == 1


async def test_a_process_that_runs_on_forgets_who_was_erased_and_never_tripped(
    store: BreakerStore,  # noqa: F811
    owner: asyncpg.Connection,
    database_url: str,
    maintenance_url: str,
) -> None:
    breaker, other = (store.registry.get_breaker(user_id) for user_id in (USER, OTHER))
    await fail(breaker, error=SECRET)
    await fail(other)
    await store.flush()
    ear = Ear(store.registry)
    await erase(maintenance_url, USER)
    await ear.wait_for(lambda _, transition: transition.kind.label == "erased")
    assert (breaker.state.failures, other.state.failure_count) == ((), 1)
    await trip(breaker)
    await store.flush()
    assert SECRET not in await stored_texts(owner)
    assert (await verify(database_url)).findings == ()


async def test_nobody_is_erased_of_whom_nothing_is_stored(maintenance_url: str) -> None:
    with pytest.raises(UnknownBreakerError):
        await erase(maintenance_url, USER)


ERASE = """
SELECT erase_person(
    {user}, {pseudonym}, array_agg(event.writer_id), array_agg(event.writer_seq), array_agg(batch.writer_id),
    array_agg(batch.batch_no), '{{0123456789abcdef}}', array_agg(batch.digest), array_agg(batch.digest),
    77, 1, 2::smallint, 2::smallint, sha256(''), now(), '{change}', sha256('') || substr(sha256(''), 17)
)
FROM breaker_outcomes AS event, writer_batches AS batch
WHERE event.user_id = {user} AND batch.batch_no = {batch_no}
"""
ERASED, RESET = (
    f'{{"changes": [{{"kind": {kind}, "user_id": -4611686018427387905, "seq": 1}}]}}' for kind in (19, 13)
)


@pytest.mark.parametrize(
    ("change", "batch_no", "said"),
    [
        (RESET, 1, "no erasure"),
        (ERASED, 1, "is not as it was sealed"),
        (ERASED, 2, "has nothing of this user"),
    ],
)
async def test_whoever_may_erase_can_do_nothing_else_by_it(
    store: BreakerStore,  # noqa: F811
    connect: Connect,
    maintenance_url: str,
    change: str,
    batch_no: int,
    said: str,
) -> None:
    for user_id in (USER, OTHER):
        await store.registry.get_breaker(user_id).call(ok)
        await store.flush()
    maintenance = await connect(maintenance_url)
    with pytest.raises(asyncpg.InvalidParameterValueError, match=said):
        await maintenance.execute(
            ERASE.format(user=USER, pseudonym=-(2**62) - 1, change=change, batch_no=batch_no)
        )


async def test_a_row_of_the_log_can_be_changed_in_no_other_way(
    store: BreakerStore,  # noqa: F811
    owner: asyncpg.Connection,
) -> None:
    await live(store)
    async with owner.transaction():
        await owner.execute("SELECT set_config('breaker_store.erasing', 'on', true)")
        with pytest.raises(asyncpg.RestrictViolationError):
            async with owner.transaction():
                await owner.execute("UPDATE breaker_outcomes SET error_message = NULL")
