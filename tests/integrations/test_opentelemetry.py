"""What a breaker does is on the span of the call, and the trace of the call with its event; with the real SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Span, Tracer

from breaker_store import BreakerStore, CircuitBreakerOpenError, ConfigurationError, Policy
from breaker_store.integrations.opentelemetry import instrument
from breaker_store.postgres.explaining import why
from breaker_store.postgres.queries import HistoryFilter, events, transitions
from breaker_store.postgres.reading import create_engine, reading
from breaker_store.postgres.verification import verify

USER = 101
QUICK = Policy(failure_threshold=2, timeout_seconds=30)


class NoAnswerError(Exception):
    """What a sick service brings about."""


async def ok() -> str:
    return "sent"


async def bad() -> str:
    raise NoAnswerError("no answer")


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("a bot")


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[BreakerStore]:
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as store:
        with instrument(store):
            yield store


async def fail(store: BreakerStore, tracer: Tracer) -> Span:
    """Make a call that fails or is refused, in a trace of its own."""
    with tracer.start_as_current_span("answer") as span, suppress(NoAnswerError, CircuitBreakerOpenError):
        await store.registry.get_breaker(USER).call(bad)
    return span


def trace_id_of(span: Span) -> UUID:
    return UUID(int=span.get_span_context().trace_id)


def told(span: ReadableSpan) -> list[tuple[str, dict[str, object]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


async def test_a_trip_is_an_event_on_the_span_of_the_call_that_made_it(
    store: BreakerStore, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    for _ in range(2):
        await fail(store, tracer)
    first, second = exporter.get_finished_spans()
    opened_by = store.registry.get_breaker(USER).state.opened_by
    assert told(first) == []
    assert told(second) == [
        (
            "circuit_breaker.opened",
            {
                "user.id": "101",
                "error.type": f"{__name__}.NoAnswerError",
                "circuit_breaker.event_id": str(opened_by),
                "circuit_breaker.from_state": "closed",
                "circuit_breaker.to_state": "open",
                "circuit_breaker.failure_count": 2,
                "circuit_breaker.reason": "2 failures in a row",
            },
        )
    ]


async def test_each_refusal_is_on_the_span_of_who_was_refused_and_names_the_opening(
    store: BreakerStore, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    for _ in range(4):
        await fail(store, tracer)
    opened_by = str(store.registry.get_breaker(USER).state.opened_by)
    for span in exporter.get_finished_spans()[2:]:
        [(name, attributes)] = told(span)
        assert name == "circuit_breaker.refused"
        assert 0 < attributes.pop("circuit_breaker.timeout_remaining") <= 30
        assert attributes == {
            "user.id": "101",
            "error.type": f"{__name__}.NoAnswerError",
            "circuit_breaker.opened_by": opened_by,
        }


@pytest.mark.parametrize("durability", ["behind", "journaled", "committed"])
async def test_every_call_is_stored_with_its_trace(
    database_url: str, connection: asyncpg.Connection, tracer: Tracer, tmp_path: Path, durability: str
) -> None:
    expected = []
    async with BreakerStore.open(
        database_url=database_url, spool_dir=tmp_path, durability=durability
    ) as store:
        breaker = store.registry.get_breaker(USER)
        with instrument(store):
            for _ in range(3):
                with tracer.start_as_current_span("answer") as span:
                    await breaker.call(ok)
                expected.append(trace_id_of(span))
            with tracer.start_as_current_span("answer") as span:
                async with breaker:
                    await ok()
            expected.append(trace_id_of(span))
            expected.append(trace_id_of(await fail(store, tracer)))
            with tracer.start_as_current_span("answer") as span:
                await breaker.call(ok)
            expected.append(trace_id_of(span))
        with tracer.start_as_current_span("after it has ended"):
            await breaker.call(ok)
        await store.flush()
    rows = await connection.fetch("SELECT trace_id FROM breaker_outcomes ORDER BY writer_seq")
    assert [row["trace_id"] for row in rows] == [*expected, None]


async def test_a_call_without_a_trace_or_in_one_that_nobody_keeps_is_stored_with_none(
    store: BreakerStore, connection: asyncpg.Connection
) -> None:
    sampled_out = TracerProvider(sampler=ALWAYS_OFF).get_tracer("a bot")
    breaker = store.registry.get_breaker(USER)
    await breaker.call(ok)
    with sampled_out.start_as_current_span("answer"):
        await breaker.call(ok)
    for _ in range(3):
        await fail(store, sampled_out)
    await store.flush()
    rows = await connection.fetch("SELECT kind, trace_id FROM breaker_outcomes ORDER BY writer_seq")
    assert [tuple(row) for row in rows] == [(1, None), (1, None), (2, None), (2, None), (3, None)]


async def test_why_and_history_show_the_traces_of_the_failures(
    store: BreakerStore, database_url: str, tracer: Tracer
) -> None:
    traces = [trace_id_of(await fail(store, tracer)) for _ in range(2)]
    await store.flush()
    engine = create_engine(database_url)
    async with reading(engine) as reader:
        explained = await why(reader, USER)
        listed = await events(reader, USER, HistoryFilter())
        [opened] = (await transitions(reader, USER, HistoryFilter())).items
    await engine.dispose()
    assert [failure.trace_id for failure in explained.event.failures] == traces
    assert [cause.trace_id for cause in opened.causes] == traces
    assert [item.trace_id for item in reversed(listed.items) if item.kind == "failure"] == traces


async def test_a_restart_forgets_no_trace_of_a_run_of_failures(
    store: BreakerStore, database_url: str, tracer: Tracer
) -> None:
    traces = [trace_id_of(await fail(store, tracer))]
    await store.flush()
    async with BreakerStore.open(database_url=database_url, policy=QUICK) as again:
        with instrument(again):
            traces.append(trace_id_of(await fail(again, tracer)))
        state = again.registry.get_breaker(USER).state
        assert state.last_failure is not None
        assert state.last_failure.trace_id == traces[1]
        await again.flush()
    engine = create_engine(database_url)
    async with reading(engine) as reader:
        explained = await why(reader, USER)
    await engine.dispose()
    assert [failure.trace_id for failure in explained.event.failures] == traces


async def test_a_record_with_traces_is_whole(store: BreakerStore, database_url: str, tracer: Tracer) -> None:
    for _ in range(3):
        await fail(store, tracer)
    store.registry.get_breaker(USER).reset()
    await fail(store, tracer)
    await store.flush()
    found = await verify(database_url)
    assert (found.findings, found.batches.events) == ((), 6)


async def test_a_trip_that_was_done_by_hand_is_on_the_span_of_who_did_it(
    store: BreakerStore, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    with tracer.start_as_current_span("maintain"):
        store.registry.get_breaker(USER).force_open(actor="ann", reason="maintenance")
    [span] = exporter.get_finished_spans()
    [(name, attributes)] = told(span)
    assert name == "circuit_breaker.forced_open"
    assert attributes["circuit_breaker.actor"] == "ann"
    assert attributes["circuit_breaker.reason"] == "maintenance"


async def test_a_store_is_followed_once(store: BreakerStore) -> None:
    with pytest.raises(ConfigurationError, match="traced already"), instrument(store):
        pass
    assert store.registry.surroundings.tracing is not None
