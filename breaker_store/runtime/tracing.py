"""What the breakers need of a product that follows calls through all services: OpenTelemetry is one."""

from __future__ import annotations

from typing import Protocol

from breaker_store.core.events import Transition
from breaker_store.errors import CircuitBreakerOpenError


class Tracing(Protocol):
    """Knows the trace of the call under way, and takes down what its breaker does.

    It is asked and told within the call, by the task that makes it: so it is quick, and raises nothing.
    """

    def trace_id(self) -> int | None:
        """Tell the 128-bit id of the trace of the call; None if there is none, or it is not kept."""

    def tell_refusal(self, error: CircuitBreakerOpenError) -> None:
        """Hear with which error the call is refused."""

    def tell_transition(self, user_id: int | None, transition: Transition) -> None:
        """Hear what the call, or whoever acts by hand, made of the breaker."""
