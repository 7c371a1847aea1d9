"""Who is erased is nowhere in the log any more, and the rest of it is as whole as before."""

from __future__ import annotations

import asyncpg
import pytest

from breaker_store import BreakerStore, CircuitState, Policy
from breaker_store.erasure import BrokenRecordError, erase
from breaker_store.errors import UnknownBreakerError
from breaker_store.postgres.verification import verify
from tests.postgres.conftest import store  # noqa: F401 - a fixture
from tests.postgres.living import Ear, fail, ok, trip
from tests.postgres.tampering import tamper

USER, OTHER = 7_100_200_300, 7_100_200_301
SECRET = "no chat with Ada Lovelace"  # noqa: S105 - a text about a person

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


async def test_nobody_is_erased_of_whom_nothing_is_stored(maintenance_url: str) -> None:
    with pytest.raises(UnknownBreakerError):
        await erase(maintenance_url, USER)


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
