"""A transaction that a dead process had under way may be committed after its successor has looked: nothing is doubled."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from breaker_store import BreakerStore, CircuitBreakerOpenError, CircuitState, Policy
from tests.crash.stored import complaints_about, left_files
from tests.postgres.proxy import Proxy

POLICY = Policy(failure_threshold=2)
USER = 7
BEFORE, REFUSALS = 3, 5
CALLS = "SELECT sum(coalesce(count, 1)) FROM breaker_outcomes"
WAITING_FOR_THE_POSITION = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'log_position'::regclass"
WAITING_FOR_THE_OTHER = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
LAST_OF_A_QUESTION = b"QS"


class NoAnswerError(Exception):
    """What a sick service brings about."""


async def call(store: BreakerStore, times: int, *, fails: bool = False) -> None:
    async def answer() -> None:
        if fails:
            raise NoAnswerError

    for _ in range(times):
        with suppress(NoAnswerError, CircuitBreakerOpenError):
            await store.registry.get_breaker(USER).call(answer)


async def wait_until(connection: asyncpg.Connection, question: str) -> None:
    async with asyncio.timeout(10):
        while not await connection.fetchval(question):
            pass


@pytest.mark.parametrize("events", [20, 200], ids=["a statement", "a copy"])
async def test_a_transaction_that_is_committed_late_is_not_stored_again_by_the_next_process(
    database_url: str, connection: asyncpg.Connection, connect, tmp_path: Path, events: int
) -> None:
    watcher = await connect(database_url)
    options = {"policy": POLICY, "durability": "journaled"}
    async with (
        Proxy.to(database_url) as proxy,
        BreakerStore.open(
            database_url=proxy.url, spool_dir=tmp_path / "of the dead", drain_seconds=0, **options
        ) as store,
    ):
        await call(store, BEFORE)
        await store.flush()
        async with connection.transaction():
            # An append takes its position last, so the ledger has this one's entry, for itself alone.
            await connection.execute("LOCK TABLE log_position IN SHARE MODE")
            await call(store, events)
            await call(store, POLICY.failure_threshold, fails=True)
            await wait_until(watcher, WAITING_FOR_THE_POSITION)
            while proxy.asked[-1] not in LAST_OF_A_QUESTION:
                await watcher.execute("SELECT 'the rest of the question has time to come through'")
            proxy.freeze()
            await call(store, REFUSALS)
            # The process is dead from here on: this is what it leaves, and a transaction that goes on without it.
            shutil.copytree(tmp_path / "of the dead", tmp_path / "of the living")
            opening = BreakerStore.open(
                database_url=database_url, spool_dir=tmp_path / "of the living", **options
            )
            opened = asyncio.ensure_future(opening.__aenter__())
            await wait_until(watcher, WAITING_FOR_THE_OTHER)
        successor = await opened
        ours, theirs = (each.registry.get_breaker(USER).state for each in (store, successor))
        assert (ours.state, ours.last_transition) == (CircuitState.OPEN, theirs.last_transition)
        await opening.__aexit__(None, None, None)
        await proxy.close()
    assert await connection.fetchval(CALLS) == BEFORE + events + POLICY.failure_threshold + REFUSALS
    assert await complaints_about(connection, POLICY) == []
    assert left_files(tmp_path / "of the living") == []
