"""A circuit breaker per user whose every success, failure and transition is an event in Postgres."""

from __future__ import annotations

from breaker_store.core.events import CircuitState, EventId, Failure, Kind, Transition
from breaker_store.core.policy import Policy
from breaker_store.errors import (
    BotSuspendedError,
    BreakerStoreError,
    CircuitBreakerOpenError,
    ConfigurationError,
    EventRefusedError,
    LedgerError,
    LogUnavailableError,
    MigrationBusyError,
    NestedCallError,
    NotCommittedError,
    NotForcedOpenError,
    NotMigratedError,
    NotSuspendedError,
    RateLimitedError,
    SchemaBehindError,
    SchemaError,
    SchemaTooNewError,
    SpoolBusyError,
    SpoolError,
    StoreError,
    SuspendedError,
    UnknownBreakerError,
)
from breaker_store.runtime.breaker import CircuitBreaker
from breaker_store.runtime.durable import DurableBreaker
from breaker_store.runtime.registry import CircuitBreakerRegistry, get_circuit_breaker_registry
from breaker_store.runtime.tally import RecorderStats
from breaker_store.runtime.told_state import StateDict
from breaker_store.settings import Durability
from breaker_store.store import BreakerStore

__all__ = [
    "BotSuspendedError",
    "BreakerStore",
    "BreakerStoreError",
    "CircuitBreaker",
    "CircuitBreakerOpenError",
    "CircuitBreakerRegistry",
    "CircuitState",
    "ConfigurationError",
    "Durability",
    "DurableBreaker",
    "EventId",
    "EventRefusedError",
    "Failure",
    "Kind",
    "LedgerError",
    "LogUnavailableError",
    "MigrationBusyError",
    "NestedCallError",
    "NotCommittedError",
    "NotForcedOpenError",
    "NotMigratedError",
    "NotSuspendedError",
    "Policy",
    "RateLimitedError",
    "RecorderStats",
    "SchemaBehindError",
    "SchemaError",
    "SchemaTooNewError",
    "SpoolBusyError",
    "SpoolError",
    "StateDict",
    "StoreError",
    "SuspendedError",
    "Transition",
    "UnknownBreakerError",
    "get_circuit_breaker_registry",
]
