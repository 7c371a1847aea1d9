"""What a scrape of the bots' process tells, over a socket and read by the client's own parser."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import asyncpg
import prometheus_client
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from breaker_store import BreakerStore, CircuitBreakerOpenError, Policy
from breaker_store.in_thread import open_in_thread
from breaker_store.integrations import prometheus
from breaker_store.integrations.prometheus import instrument

USER, OTHER = 101, 102
QUICK = Policy(failure_threshold=2, timeout_seconds=30)
AT_ONCE = Policy(failure_threshold=2, timeout_seconds=0, success_threshold=1)

Scrape = Callable[[], Awaitable["Scraped"]]


class NoAnswerError(Exception):
    """What a sick service brings about."""


NO_ANSWER = f"{__name__}.NoAnswerError"


class Scraped:
    """Values by the name of a sample and its labels."""

    def __init__(self, text: str) -> None:
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def of(self, name: str) -> dict[tuple[str, ...], float]:
        """Give the values of a sample, by what their labels say in the order of their names."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for sample in self.samples
            if sample.name == name
        }

    def value(self, name: str) -> float:
        [value] = self.of(name).values()
        return value

    @property
    def label_names(self) -> set[str]:
        return {name for sample in self.samples for name in sample.labels}


@contextmanager
def served(registry: CollectorRegistry) -> Iterator[str]:
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def metrics() -> CollectorRegistry:
    return CollectorRegistry(auto_describe=True)


@pytest.fixture
def scrape(metrics: CollectorRegistry) -> Iterator[Scrape]:
    with served(metrics) as url:

        def read() -> str:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own
                return answer.read().decode()

        async def scrape() -> Scraped:
            return Scraped(await asyncio.to_thread(read))

        yield scrape


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[BreakerStore]:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        yield store


async def ok() -> str:
    return "sent"


async def fail(
    store: BreakerStore, times: int = 1, user_id: int = USER, error: Exception | None = None
) -> None:
    async def bad() -> None:
        raise error or NoAnswerError("no answer")

    for _ in range(times):
        with suppress(Exception):
            await store.registry.get_breaker(user_id).call(bad)


async def test_what_is_stored_is_counted_by_kind_state_and_error(
    store: BreakerStore, metrics: CollectorRegistry, scrape: Scrape
) -> None:
    with instrument(store, metrics):
        await store.registry.get_breaker(USER).call(ok)
        await fail(store, 5)
        await store.flush()
        found = (await scrape()).of("breaker_store_events_total")
    # By error_type, kind and state.
    assert found == {
        ("", "success", "closed"): 1,
        (NO_ANSWER, "failure", "closed"): 2,
        (NO_ANSWER, "opened", "open"): 1,
        ("", "rejected", "open"): 3,
    }


async def test_probes_are_counted_as_such(
    store: BreakerStore, metrics: CollectorRegistry, scrape: Scrape
) -> None:
    with instrument(store, metrics):
        store.registry.set_policy(USER, AT_ONCE)
        await fail(store, 3)
        await store.registry.get_breaker(USER).call(ok)
        await store.flush()
        found = (await scrape()).of("breaker_store_events_total")
    assert found[NO_ANSWER, "failure", "half_open"] == 1
    assert found["", "success", "half_open"] == 1
    assert found["", "half_opened", "half_open"] == 2
    assert found["", "closed", "closed"] == 1


async def test_what_was_counted_is_what_the_log_has(
    store: BreakerStore, metrics: CollectorRegistry, scrape: Scrape, connection: asyncpg.Connection
) -> None:
    with instrument(store, metrics):
        for user_id in range(50):
            for _ in range(user_id):
                await store.registry.get_breaker(user_id).call(ok)
            await fail(store, user_id % 5, user_id)
        await store.flush()
        found = (await scrape()).of("breaker_store_events_total")
    stored = await connection.fetchval("SELECT sum(coalesce(count, 1)) FROM breaker_events")
    assert sum(found.values()) == stored


async def test_durations_of_calls_and_flushes_are_histograms(
    store: BreakerStore, metrics: CollectorRegistry, scrape: Scrape, connection: asyncpg.Connection
) -> None:
    async def take_a_while() -> None:
        await asyncio.sleep(0.02)

    with instrument(store, metrics):
        await store.registry.get_breaker(USER).call(take_a_while)
        await fail(store)
        await store.flush()
        found = await scrape()
    assert found.of("breaker_store_call_duration_seconds_count") == {("success",): 1, ("failure",): 1}
    microseconds = await connection.fetchval("SELECT duration_us FROM breaker_outcomes WHERE kind = 1")
    assert found.of("breaker_store_call_duration_seconds_sum")[("success",)] == microseconds / 1_000_000
    # By kind and le.
    buckets = found.of("breaker_store_call_duration_seconds_bucket")
    assert buckets["success", "0.01"] == 0
    assert buckets["success", "30.0"] == buckets["success", "+Inf"] == 1
    assert buckets["failure", "0.01"] == 1
    assert found.value("breaker_store_flush_duration_seconds_count") >= 1
    assert found.value("breaker_store_flush_duration_seconds_sum") > 0


async def test_breakers_are_counted_by_state_those_that_nobody_has_asked_for_among_them(
    database_url: str, metrics: CollectorRegistry, scrape: Scrape
) -> None:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        for user_id in range(5):
            await store.registry.get_breaker(user_id).call(ok)
        await fail(store, 2, user_id=4)
        await fail(store, 1, user_id=3)
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        with instrument(store, metrics):
            found = (await scrape()).of("breaker_store_breakers")
    assert found == {("closed",): 4, ("open",): 1, ("half_open",): 0}


async def test_users_have_no_series_but_those_that_were_named(
    store: BreakerStore, metrics: CollectorRegistry, scrape: Scrape
) -> None:
    with instrument(store, metrics, users=(USER,)):
        for user_id in (USER, OTHER):
            await fail(store, 1, user_id)
        await store.flush()
        found = await scrape()
    # By error_type, kind, state and user_id.
    assert found.of("breaker_store_user_events_total") == {(NO_ANSWER, "failure", "closed", "101"): 1}
    assert found.of("breaker_store_events_total") == {(NO_ANSWER, "failure", "closed"): 2}


async def test_nobody_who_was_not_named_has_a_label(
    store: BreakerStore, metrics: CollectorRegistry, scrape: Scrape
) -> None:
    with instrument(store, metrics):
        await fail(store, 4)
        await store.flush()
        found = await scrape()
    assert found.label_names == {"kind", "state", "error_type", "le"}


async def test_after_so_many_types_of_errors_the_rest_is_other(
    store: BreakerStore, metrics: CollectorRegistry, scrape: Scrape
) -> None:
    with instrument(store, metrics):
        for number in range(prometheus.ERROR_TYPES_LIMIT + 7):
            await fail(store, user_id=number, error=type(f"Error{number}", (Exception,), {})())
        await store.flush()
        found = (await scrape()).of("breaker_store_events_total")
    assert len(found) == prometheus.ERROR_TYPES_LIMIT + 1
    assert found["other", "failure", "closed"] == 7


async def test_gauges_tell_what_waits_while_the_log_does_not_answer(
    store: BreakerStore, metrics: CollectorRegistry, scrape: Scrape, owner: asyncpg.Connection
) -> None:
    with instrument(store, metrics):
        assert (await scrape()).value("breaker_store_recorder_queued_events") == 0
        async with owner.transaction():
            await owner.execute("LOCK TABLE writer_batches IN ACCESS EXCLUSIVE MODE")
            await fail(store)
            async with asyncio.timeout(10):
                while (found := await scrape()).value("breaker_store_recorder_queued_events") == 0:
                    pass
        assert found.value("breaker_store_recorder_oldest_waiting_seconds") > 0
        assert found.value("breaker_store_recorder_lost_events") == 0
        await store.flush()
        found = await scrape()
    assert found.value("breaker_store_recorder_queued_events") == 0
    assert found.value("breaker_store_recorder_oldest_waiting_seconds") == 0


async def test_nothing_is_left_of_it_afterwards(
    store: BreakerStore, metrics: CollectorRegistry, scrape: Scrape
) -> None:
    with instrument(store, metrics):
        pass
    await fail(store)
    await store.flush()
    assert (await scrape()).samples == []
    with instrument(store, metrics):
        assert (await scrape()).of("breaker_store_events_total") == {}


def test_bots_without_an_event_loop_have_metrics_too(database_url: str, metrics: CollectorRegistry) -> None:
    with open_in_thread(database_url=database_url) as store, instrument(store, metrics):
        store.registry.get_breaker(USER).call_sync(int)
        store.flush_sync()
        scraped = Scraped(prometheus_client.generate_latest(metrics).decode())
    assert scraped.of("breaker_store_events_total") == {("", "success", "closed"): 1}
    assert prometheus_client.generate_latest(metrics) == b""


async def test_two_stores_do_not_mix_in_one_registry(store: BreakerStore, metrics: CollectorRegistry) -> None:
    with (
        instrument(store, metrics),
        pytest.raises(ValueError, match="Duplicated"),
        instrument(store, metrics),
    ):
        pass
    with instrument(store, metrics):
        pass


async def test_a_refused_call_is_told_apart_from_a_failed_one(
    store: BreakerStore, metrics: CollectorRegistry, scrape: Scrape
) -> None:
    with instrument(store, metrics):
        store.registry.get_breaker(USER).force_open(reason="maintenance")
        with pytest.raises(CircuitBreakerOpenError):
            await store.registry.get_breaker(USER).call(ok)
        await store.flush()
        found = await scrape()
    assert found.of("breaker_store_events_total") == {
        ("", "forced_open", "open"): 1,
        ("", "rejected", "open"): 1,
    }
    assert found.of("breaker_store_call_duration_seconds_count") == {("success",): 0, ("failure",): 0}
