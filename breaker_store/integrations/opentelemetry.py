"""OpenTelemetry: what a breaker does is seen on the span of the call, and the trace of the call with the event.

    with instrument(store):
        await breaker.call(bot.send_message, chat_id=1, text="hi")

A refusal is a span event `circuit_breaker.refused` on the current span, and a transition that the call brings about one
such as `circuit_breaker.opened`. The trace id is stored with each success and failure whose trace is sampled: one that
nobody keeps would lead nowhere. Refusals of one flush are one event and of many traces, so they have none; their span
event names the event that opened the breaker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace

from breaker_store.core.events import Failure, Transition
from breaker_store.errors import CircuitBreakerOpenError, ConfigurationError
from breaker_store.store import BreakerStore

_REFUSED: Final = "circuit_breaker.refused"
_SAMPLED: Final = trace.TraceFlags.SAMPLED


@contextmanager
def instrument(store: BreakerStore) -> Iterator[None]:
    """Follow the calls of a store's breakers, for the length of a `with`.

    A context manager, as the store is one: so it ends before the store does, and nothing has to be remembered.

    Raises:
        ConfigurationError: they are followed already.

    """
    surroundings = store.registry.surroundings
    if surroundings.tracing is not None:
        raise ConfigurationError("the calls of this store are traced already")
    surroundings.trace(_CurrentSpan())
    try:
        yield
    finally:
        surroundings.trace(None)


class _CurrentSpan:
    """The span in which a call is made; what is done to it raises nothing, as its specification says."""

    def trace_id(self) -> int | None:
        context = trace.get_current_span().get_span_context()
        # Not `trace_flags.sampled`, which takes as long as all the rest of it.
        is_kept = context.is_valid and context.trace_flags & _SAMPLED
        return context.trace_id if is_kept else None

    def tell_refusal(self, error: CircuitBreakerOpenError) -> None:
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(_REFUSED, _describe_refusal(error))

    def tell_transition(self, user_id: int | None, transition: Transition) -> None:
        span = trace.get_current_span()
        if span.is_recording():
            name = f"circuit_breaker.{transition.kind.label}"
            span.add_event(name, _describe_transition(user_id, transition))


def _describe_refusal(error: CircuitBreakerOpenError) -> dict[str, str | int | float]:
    return _known(
        {
            "user.id": _text(error.user_id),
            "error.type": _error_type(error.last_failure),
            "circuit_breaker.opened_by": _text(error.opened_by),
            "circuit_breaker.timeout_remaining": error.timeout_remaining,
        }
    )


def _describe_transition(user_id: int | None, transition: Transition) -> dict[str, str | int | float]:
    return _known(
        {
            "user.id": _text(user_id),
            "error.type": _error_type(transition.last_failure),
            "circuit_breaker.event_id": str(transition.event_id),
            "circuit_breaker.from_state": transition.from_state.value,
            "circuit_breaker.to_state": transition.to_state.value,
            "circuit_breaker.failure_count": transition.failure_count,
            "circuit_breaker.reason": transition.reason,
            "circuit_breaker.actor": transition.actor,
        }
    )


def _error_type(failure: Failure | None) -> str | None:
    return None if failure is None else failure.error_type


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _known(attributes: Mapping[str, str | int | float | None]) -> dict[str, str | int | float]:
    """Leave out what is not known: an attribute has a value."""
    return {name: value for name, value in attributes.items() if value is not None}
