"""Prometheus: counters of what happened to breakers, and gauges of the recorder, in the process of the bots.

    with instrument(store):
        prometheus_client.start_http_server(9_000)

Events are counted when they have been stored, off the calls' way: while Postgres is away counters stand still, and gauges
tell what waits. They are counted here and made into metrics when somebody scrapes, in whichever thread that is: to take
each event to the client's own metrics would hold up the event loop several times as long.

No label has a value for each user, unless for those who were named, nor one for each error that may ever come: after
`ERROR_TYPES_LIMIT` types the rest is `other`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Final

import prometheus_client
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import CollectorRegistry

from breaker_store.core.events import CircuitState, Kind
from breaker_store.core.policy import MICROSECONDS
from breaker_store.ports import Batch
from breaker_store.postgres.fleet_counts import FleetCounts
from breaker_store.runtime.recorder import Recorder
from breaker_store.runtime.registry import CircuitBreakerRegistry
from breaker_store.store import BreakerStore

ERROR_TYPES_LIMIT: Final = 50
"""How many types of errors a process has a label's value for."""

OTHER: Final = "other"
"""Stands for all types of errors beyond that."""

LOOK_INTERVAL_SECONDS: Final = 1.0
"""How old the gauges of the recorder may be: they are read on the event loop, and scraped anywhere."""

CALL_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
FLUSH_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
"""The upper bounds of the histograms' buckets, in seconds."""

_EVENT_LABELS: Final = ("kind", "state", "error_type")
_RECORDER_GAUGES: Final = {
    "queued_events": "Events that wait in memory",
    "spooled_events": "Events that wait on disk alone",
    "set_aside_events": "Events that were put into files, for a person to look at",
    "lost_events": "Events that are nowhere",
    "oldest_waiting_seconds": "How long the oldest event that is not stored has waited; 0 if none waits",
}

_KIND_LABELS: Final = {kind.value: kind.label for kind in Kind}
_REJECTED: Final = int(Kind.REJECTED)
_CLOSED, _OPEN, _HALF_OPEN = (
    state.value for state in (CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN)
)


@contextmanager
def instrument(
    store: BreakerStore,
    registry: CollectorRegistry = prometheus_client.REGISTRY,
    users: Collection[int] = (),
) -> Iterator[None]:
    """Have a store's metrics in a registry, for the length of a `with`, in any thread.

    A context manager, as the store is one: so it ends before the store does, and nothing has to be remembered.

    Args:
        store: an open one.
        registry: the default is what `prometheus_client` serves by itself. A second store needs another one.
        users: whose events are also counted by `user_id`; each costs as many series as all together.

    Raises:
        ValueError: the registry has metrics of these names.

    """
    make = store.registry.surroundings.decisions.make
    collector = _StoreCollector(store, frozenset(users))
    registry.register(collector)
    unsubscribe = store.recorder.subscribe(collector.take)
    try:
        make(collector.look)
        yield
    finally:
        make(collector.stop)
        unsubscribe()
        registry.unregister(collector)


class _StoreCollector:
    """Counts what is stored, and makes metrics of it when asked.

    What it counts is changed by the event loop alone. Others copy it whole before they look through it.
    """

    def __init__(self, store: BreakerStore, users: frozenset[int]) -> None:
        self._breakers: CircuitBreakerRegistry = store.registry
        self._recorder: Recorder = store.recorder
        self._users = users
        self._events: Counter[tuple[str, ...]] = Counter()
        self._user_events: Counter[tuple[str, ...]] = Counter()
        self._named_errors: set[str] = set()
        self._calls = {
            Kind.SUCCESS.value: _Histogram(CALL_BOUNDS),
            Kind.FAILURE.value: _Histogram(CALL_BOUNDS),
        }
        self._flushes = _Histogram(FLUSH_BOUNDS)
        self._stats = self._recorder.stats()
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Read how recording goes, now and every second; on the event loop of the store."""
        self._stats = self._recorder.stats()
        self._timer = asyncio.get_running_loop().call_later(LOOK_INTERVAL_SECONDS, self.look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def take(self, batch: Batch, seconds: float) -> None:
        """Count what a flush has stored."""
        self._flushes.observe(round(seconds * MICROSECONDS))
        for _, user_id, _, duration_us, _, _, kind, _, probe, count, _, _, _, error_type, _ in batch.outcomes:
            state = _HALF_OPEN if probe is not None else _OPEN if kind == _REJECTED else _CLOSED
            self._count(user_id, (_KIND_LABELS[kind], state, self._label_error(error_type)), count or 1)
            if duration_us is not None and kind != _REJECTED:
                self._calls[kind].observe(duration_us)
        for user_id, transition in batch.transitions:
            cause = transition.causes[-1].error_type if transition.causes else None
            labels = transition.kind.label, transition.to_state.value, self._label_error(cause)
            self._count(user_id, labels, 1)
        self._stats = self._recorder.stats()

    def _count(self, user_id: int, labels: tuple[str, str, str], times: int) -> None:
        self._events[labels] += times
        if user_id in self._users:
            self._user_events[str(user_id), *labels] += times

    def _label_error(self, error_type: str | None) -> str:
        if error_type is None:
            return ""
        if error_type not in self._named_errors:
            if len(self._named_errors) >= ERROR_TYPES_LIMIT:
                return OTHER
            self._named_errors.add(error_type)
        return error_type

    def collect(self) -> Iterator[Metric]:
        what = "of breakers by kind, by the state in which the call was let through or refused, and by error"
        yield _counter("breaker_store_events", f"Stored events {what}", _EVENT_LABELS, self._events)
        yield _counter(
            "breaker_store_user_events",
            "The same of the users that were named",
            ("user_id", *_EVENT_LABELS),
            self._user_events,
        )
        yield from self._histograms()
        yield _breakers_gauge(
            "breaker_store_breakers",
            "Breakers of this process by state",
            self._breakers.count_by_state().items(),
        )
        yield from self._recorder_gauges()

    def _histograms(self) -> Iterator[Metric]:
        calls = HistogramMetricFamily(
            "breaker_store_call_duration_seconds", "How long the calls of stored events took", labels=["kind"]
        )
        for kind, histogram in self._calls.items():
            calls.add_metric([_KIND_LABELS[kind]], *histogram.read())
        yield calls
        flushes = HistogramMetricFamily(
            "breaker_store_flush_duration_seconds", "How long it took until what went out together was stored"
        )
        flushes.add_metric([], *self._flushes.read())
        yield flushes

    def _recorder_gauges(self) -> Iterator[Metric]:
        stats = self._stats
        waiting = stats.oldest_waiting_seconds or 0.0
        values = (stats.queued, stats.spooled, stats.set_aside, stats.lost, waiting)
        for (name, text), value in zip(_RECORDER_GAUGES.items(), values, strict=True):
            yield GaugeMetricFamily(f"breaker_store_recorder_{name}", text, value)


class _Histogram:
    """Counts durations by bucket."""

    def __init__(self, bounds: Iterable[float]) -> None:
        self._bounds = tuple(bounds)
        self._bounds_us = [round(bound * MICROSECONDS) for bound in self._bounds]
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum_us = 0

    def observe(self, duration_us: int) -> None:
        self._counts[bisect_left(self._bounds_us, duration_us)] += 1
        self._sum_us += duration_us

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Give the buckets, each with all that is not longer, and the sum in seconds."""
        names = [*map(str, self._bounds), "+Inf"]
        return list(zip(names, accumulate(list(self._counts)), strict=True)), self._sum_us / MICROSECONDS


def _counter(
    name: str, text: str, label_names: Collection[str], counts: Counter[tuple[str, ...]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=list(label_names))
    for labels, count in dict(counts).items():
        family.add_metric(labels, count)
    return family


def _breakers_gauge(name: str, text: str, counts: Iterable[tuple[CircuitState, int]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["state"])
    for state, count in counts:
        family.add_metric([state.value], count)
    return family


def expose(counts: FleetCounts) -> bytes:
    """Write the counts of a whole fleet in the text format of `prometheus_client.CONTENT_TYPE_LATEST`."""
    registry = CollectorRegistry()
    registry.register(_FleetCollector(counts))
    return prometheus_client.generate_latest(registry)


class _FleetCollector:
    """Makes metrics of counts that were read."""

    def __init__(self, counts: FleetCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        yield _breakers_gauge(
            "breaker_store_fleet_breakers", "Breakers in the log by state", self._counts.breakers.items()
        )
        names = ("recorders", *_RECORDER_GAUGES)
        texts = ("Recorders that reported in the last 24 hours", *_RECORDER_GAUGES.values())
        families = [
            GaugeMetricFamily(f"breaker_store_fleet_{name}", text, labels=["status"])
            for name, text in zip(names, texts, strict=True)
        ]
        for status, each in self._counts.recorders.items():
            values = (
                each.recorders,
                each.queued,
                each.spooled,
                each.set_aside,
                each.lost,
                each.oldest_waiting_seconds,
            )
            for family, value in zip(families, values, strict=True):
                family.add_metric([status], value)
        yield from families
