"""What a store's durability promises, with a real Postgres behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from breaker_store import BreakerStore, ConfigurationError, NotCommittedError
from breaker_store.settings import SPOOL_DIR_VARIABLE, find_spool_dir
from tests.postgres.living import USER, NoAnswerError, bad, ok
from tests.postgres.proxy import Proxy

COUNT = "SELECT count(*) FROM breaker_events"


async def open_and_close(**options: object) -> None:
    async with BreakerStore.open(**options):
        pass


async def test_journaled_needs_a_spool(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SPOOL_DIR_VARIABLE, raising=False)
    with pytest.raises(ConfigurationError, match="spool_dir"):
        await open_and_close(database_url=database_url, durability="journaled")


async def test_a_durability_that_does_not_exist_is_an_error_that_names_those_that_do(
    database_url: str,
) -> None:
    with pytest.raises(ConfigurationError, match="behind, journaled, committed, not 'sure'"):
        await open_and_close(database_url=database_url, durability="sure")


async def test_the_environment_says_where_the_spool_is(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SPOOL_DIR_VARIABLE, str(tmp_path / "spool"))
    await open_and_close(database_url=database_url, durability="journaled")
    assert (tmp_path / "spool" / "lock").exists()


def test_what_is_said_outright_goes_before_the_environment_and_nothing_is_no_spool(tmp_path: Path) -> None:
    environment = {SPOOL_DIR_VARIABLE: "/elsewhere"}
    assert find_spool_dir(tmp_path, environment) == tmp_path
    assert find_spool_dir(None, environment) == Path("/elsewhere")
    assert find_spool_dir(None, {SPOOL_DIR_VARIABLE: ""}) is None
    assert find_spool_dir(None, {}) is None
    assert find_spool_dir("~/spool", {}) == Path.home() / "spool"


@pytest.mark.parametrize("has_spool", [False, True])
async def test_a_committed_call_returns_when_others_can_read_its_event(
    database_url: str, connection: asyncpg.Connection, tmp_path: Path, *, has_spool: bool
) -> None:
    spool_dir = tmp_path / "spool" if has_spool else None
    async with BreakerStore.open(
        database_url=database_url, spool_dir=spool_dir, durability="committed"
    ) as store:
        breaker = store.registry.get_breaker(USER)
        for stored in range(1, 20, 3):
            await breaker.call(ok)
            assert await connection.fetchval(COUNT) == stored
            with pytest.raises(NoAnswerError):
                await breaker.call(bad)
            assert await connection.fetchval(COUNT) == stored + 1
            async with breaker:
                pass
            assert await connection.fetchval(COUNT) == stored + 2


async def test_concurrent_committed_calls_share_their_commits(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async with BreakerStore.open(database_url=database_url, durability="committed") as store:
        await asyncio.gather(*(store.registry.get_breaker(user_id).call(ok) for user_id in range(64)))
        assert await connection.fetchval(COUNT) == 64
        assert await connection.fetchval("SELECT count(*) FROM writer_batches") <= 3


async def test_one_call_may_be_committed_where_the_others_are_behind(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async with BreakerStore.open(database_url=database_url) as store:
        breaker = store.registry.get_breaker(USER)
        await breaker.call(ok)
        await breaker.with_durability("committed").call(ok)
        assert await connection.fetchval(COUNT) == 2


async def test_a_commit_that_an_outage_holds_up_until_the_store_closes_says_so_and_is_stored_later(
    database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with Proxy.to(database_url) as proxy:
        async with BreakerStore.open(
            database_url=proxy.url, spool_dir=tmp_path, durability="committed", drain_seconds=0.1
        ) as store:
            await store.registry.get_breaker(USER).call(ok)
            await proxy.close()
            calling = asyncio.ensure_future(store.registry.get_breaker(USER).call(ok))
        with pytest.raises(NotCommittedError) as error:
            await calling
        assert error.value.result == "sent"
    assert await connection.fetchval(COUNT) == 1
    await open_and_close(database_url=database_url, spool_dir=tmp_path)
    assert await connection.fetchval(COUNT) == 2
