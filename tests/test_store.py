"""A store is opened on a database that is there and fits, or says why it can't be; what it knew outlives it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest
from pytest_postgresql.executors import NoopExecutor

import breaker_store.runtime.registry
from breaker_store import (
    BreakerStore,
    CircuitBreakerOpenError,
    CircuitBreakerRegistry,
    CircuitState,
    ConfigurationError,
    LogUnavailableError,
    Policy,
    get_circuit_breaker_registry,
)
from breaker_store.errors import NotMigratedError, SchemaBehindError, SchemaTooNewError
from breaker_store.postgres.migrating import downgrade
from breaker_store.settings import DATA_DIR_VARIABLE, DATABASE_URL_VARIABLE
from tests.conftest import make_database
from tests.postgres.proxy import Proxy

USER = 101
QUICK = Policy(failure_threshold=2, timeout_seconds=30, success_threshold=2)


class NoAnswerError(Exception):
    """What a sick service brings about."""


async def ok() -> str:
    return "sent"


async def bad() -> str:
    raise NoAnswerError("no answer")


async def fail(registry: CircuitBreakerRegistry, times: int = 1, user_id: int = USER) -> None:
    for _ in range(times):
        with pytest.raises(NoAnswerError):
            await registry.get_breaker(user_id).call(bad)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Begin with an environment that says nothing."""
    monkeypatch.delenv(DATABASE_URL_VARIABLE, raising=False)
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    return monkeypatch


async def open_and_close(**options: object) -> None:
    async with BreakerStore.open(**options):
        pass


async def test_a_store_that_nobody_told_where_is_an_error_that_says_how() -> None:
    with pytest.raises(ConfigurationError, match=DATABASE_URL_VARIABLE):
        await open_and_close()


async def test_two_places_at_once_are_an_error(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="exclude"):
        await open_and_close(database_url=database_url, data_dir=tmp_path)


async def test_two_places_in_the_environment_are_an_error(
    database_url: str, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(DATABASE_URL_VARIABLE, database_url)
    environment.setenv(DATA_DIR_VARIABLE, str(tmp_path))
    with pytest.raises(ConfigurationError, match="exclude"):
        await open_and_close()


async def test_an_address_of_something_else_is_an_error_that_does_not_show_it() -> None:
    with pytest.raises(ConfigurationError, match="postgresql://") as error:
        await open_and_close(database_url="mysql://user:secret@localhost/db")
    assert "secret" not in str(error.value)


async def test_a_registry_that_is_handed_over_has_its_own_policy(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="policy"):
        await open_and_close(database_url=database_url, registry=CircuitBreakerRegistry(), policy=QUICK)


async def test_the_environment_says_where_the_database_is(
    database_url: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(DATABASE_URL_VARIABLE, database_url)
    await open_and_close()


async def test_what_is_said_outright_goes_before_the_environment(
    database_url: str, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(DATA_DIR_VARIABLE, str(tmp_path))
    await open_and_close(database_url=database_url)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - a look at an empty folder blocks nobody


async def test_an_address_with_sqlalchemys_driver_in_it_is_understood(database_url: str) -> None:
    await open_and_close(database_url=database_url.replace("postgresql://", "postgresql+asyncpg://"))


async def test_a_database_that_was_never_migrated_is_an_error_that_says_what_to_do(
    empty_database_url: str,
) -> None:
    with pytest.raises(NotMigratedError, match="breaker-store migrate up"):
        await open_and_close(database_url=empty_database_url)


async def test_a_database_that_is_behind_is_an_error(database_url: str, owner_url: str) -> None:
    await downgrade(owner_url, "-1")
    with pytest.raises(SchemaBehindError, match="breaker-store migrate up"):
        await open_and_close(database_url=database_url)


async def test_a_database_with_a_newer_schema_is_an_error(
    database_url: str, owner: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE breaker_store_alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNewError, match="newer schema"):
        await open_and_close(database_url=database_url)


async def test_a_database_that_refuses_connections_is_an_error_at_once(unused_tcp_port: int) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(LogUnavailableError):
            await open_and_close(database_url=f"postgresql://me@127.0.0.1:{unused_tcp_port}/bots")


async def test_a_database_that_is_not_there_is_an_error(database_url: str) -> None:
    with pytest.raises(LogUnavailableError):
        await open_and_close(database_url=database_url.replace("/breaker_store_test", "/missing"))


async def test_a_connection_that_is_lost_at_its_first_question_is_an_error(database_url: str) -> None:
    async with Proxy.to(database_url) as proxy:
        proxy.cut_at = b"SELECT (extract(epoch FROM clock_timestamp())"
        with pytest.raises(LogUnavailableError):
            await open_and_close(database_url=proxy.url)
        assert proxy.cuts == 1


async def test_a_database_that_makes_no_partitions_in_time_is_an_error(
    database_url: str, owner: asyncpg.Connection
) -> None:
    await owner.execute("ALTER FUNCTION ensure_outcome_partitions SET lock_timeout = '50ms'")
    async with owner.transaction():
        await owner.execute("SELECT ensure_outcome_partitions('1970-01-01', '1970-01-01')")
        with pytest.raises(LogUnavailableError, match="lock timeout"):
            await open_and_close(database_url=database_url)


async def test_a_store_that_could_not_be_opened_leaves_the_registry_in_memory(
    empty_database_url: str,
) -> None:
    registry = CircuitBreakerRegistry(policy=QUICK)
    await fail(registry, 2)
    with pytest.raises(NotMigratedError):
        await open_and_close(database_url=empty_database_url, registry=registry)
    assert registry.get_open_breakers() == [USER]
    assert not registry.surroundings.journal.kept


async def test_an_embedded_database_is_started_and_migrated_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    async with BreakerStore.open(data_dir=folder, policy=QUICK) as store:
        await fail(store.registry, 2)
    async with BreakerStore.open(data_dir=str(folder), policy=QUICK) as store:
        assert store.registry.get_open_breakers() == [USER]
        assert 20 < store.registry.get_breaker(USER).get_state()["timeout_remaining"] <= 30
    assert "ERROR" not in [record.levelname for record in caplog.records]


async def test_a_restart_forgets_nothing(database_url: str) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        registry = store.registry
        await registry.get_breaker(1).call(ok)
        await fail(registry, 1, user_id=2)
        await fail(registry, 2, user_id=3)
        registry.set_policy(4, Policy(failure_threshold=9), actor="ann", reason="slow partner")
        await fail(registry, 8, user_id=4)
        before = registry.get_all_states()
        opened_by = registry.get_breaker(3).state.opened_by
        registry.get_breaker(5)
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        after = store.registry.get_all_states()
        assert after.keys() == {1, 2, 3, 4}
        for user_id, state in after.items():
            assert state == pytest.approx(before[user_id], abs=5)
        assert after[3]["timeout_remaining"] > 20
        with pytest.raises(CircuitBreakerOpenError) as refusal:
            await store.registry.get_breaker(3).call(ok)
        assert refusal.value.opened_by == opened_by
        assert "no answer" in str(refusal.value)
        await fail(store.registry, 1, user_id=4)
        assert store.registry.get_open_breakers() == [3, 4]


async def test_a_policy_that_a_deployment_changes_holds_for_those_who_have_none_of_their_own(
    database_url: str,
) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        await fail(store.registry, 1)
        store.registry.set_policy(USER + 1, QUICK)
    today = Policy(failure_threshold=7, timeout_seconds=5)
    async with BreakerStore.open(database_url=database_url, policy=today) as store:
        assert store.registry.get_breaker(USER).state.policy == today
        assert store.registry.get_breaker(USER).state.failure_count == 1
        assert store.registry.get_breaker(USER + 1).state.policy == QUICK


async def test_an_open_breaker_waits_no_longer_than_todays_policy_says(database_url: str) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        await fail(store.registry, 2)
    today = Policy(failure_threshold=2, timeout_seconds=5)
    async with BreakerStore.open(database_url=database_url, policy=today) as store:
        assert 0 < store.registry.get_breaker(USER).get_state()["timeout_remaining"] <= 5


@pytest.fixture
def new_database_url(databases: ExitStack, migrated_server: NoopExecutor) -> str:
    """Address one more migrated database."""
    return databases.enter_context(make_database(migrated_server, migrated_server.template_dbname))


@pytest.fixture
def shared_registry(environment: pytest.MonkeyPatch) -> CircuitBreakerRegistry:
    """Give the process's registry as a process begins with it."""
    environment.setattr(breaker_store.runtime.registry, "_shared", None)
    return get_circuit_breaker_registry()


async def test_the_shared_registry_says_once_that_it_is_in_memory_and_then_is_made_durable(
    shared_registry: CircuitBreakerRegistry, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    breaker = shared_registry.get_breaker(USER)
    shared_registry.get_breaker(USER + 1)
    assert caplog.text.count("in memory only") == 1
    async with BreakerStore.open(database_url=database_url, registry=shared_registry):
        await fail(shared_registry, 5)
        assert breaker.state.state is CircuitState.OPEN
    async with BreakerStore.open(database_url=database_url) as store:
        assert store.registry.get_open_breakers() == [USER]


async def test_what_the_log_knows_takes_the_place_of_what_memory_knew(database_url: str) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        await fail(store.registry, 2)
    registry = CircuitBreakerRegistry(policy=QUICK)
    held, other = registry.get_breaker(USER), registry.get_breaker(USER + 1)
    await fail(registry, 2, user_id=USER + 1)
    async with BreakerStore.open(database_url=database_url, registry=registry):
        assert held.state.state is CircuitState.OPEN
        assert other.state.state is CircuitState.CLOSED


async def test_a_registry_that_moves_to_another_database_is_kept_there_whole(
    database_url: str, connect: Callable[..., Awaitable[asyncpg.Connection]], new_database_url: str
) -> None:
    registry = CircuitBreakerRegistry(policy=QUICK)
    async with BreakerStore.open(database_url=database_url, registry=registry):
        await registry.get_breaker(USER).call(ok)
    async with BreakerStore.open(database_url=new_database_url, registry=registry) as store:
        await fail(registry, 2)
        await store.flush()
        connection = await connect(new_database_url)
        assert await connection.fetchval("SELECT state FROM breaker_states WHERE user_id = $1", USER) == 1


async def test_after_the_store_the_registry_goes_on_in_memory(database_url: str) -> None:
    registry = CircuitBreakerRegistry(policy=QUICK)
    async with BreakerStore.open(database_url=database_url, registry=registry):
        await registry.get_breaker(USER).call(ok)
    await fail(registry, 2)
    assert registry.get_open_breakers() == [USER]
    async with BreakerStore.open(database_url=database_url, registry=registry):
        assert registry.get_open_breakers() == []


async def test_a_store_leaves_no_task_and_no_connection_behind(
    database_url: str, connection: asyncpg.Connection
) -> None:
    before = asyncio.all_tasks()
    async with BreakerStore.open(database_url=database_url) as store:
        await store.registry.get_breaker(USER).call(ok)
        store.registry.reset_breaker(USER)
        await store.flush()
    assert asyncio.all_tasks() == before
    left = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(5):
        while await connection.fetchval(left):
            pass


async def test_an_error_inside_reaches_the_caller_and_what_happened_is_stored(
    database_url: str, connection: asyncpg.Connection
) -> None:
    with pytest.raises(NoAnswerError):
        async with BreakerStore.open(database_url=database_url) as store:
            await store.registry.get_breaker(USER).call(bad)
    assert await connection.fetchval("SELECT count(*) FROM breaker_events") == 1
