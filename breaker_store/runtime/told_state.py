"""A breaker's state in the words of dashboards, the same whoever tells it."""

from __future__ import annotations

from typing import TypedDict

from breaker_store.core.policy import MICROSECONDS
from breaker_store.core.state import BreakerState


class StateDict(TypedDict):
    """A breaker's state for people and dashboards. `timeout_remaining` is 0.0 unless open; times are Unix seconds."""

    state: str
    failure_count: int
    success_count: int
    failure_threshold: int
    success_threshold: int
    timeout_seconds: float
    timeout_remaining: float
    last_failure_time: float | None


def describe_state(state: BreakerState, remaining_us: int) -> StateDict:
    """Put a state into the words of `StateDict`; `remaining_us` is how long it still refuses, 0 unless open."""
    return {
        "state": state.state.value,
        "failure_count": state.failure_count,
        "success_count": state.success_count,
        "failure_threshold": state.policy.failure_threshold,
        "success_threshold": state.policy.success_threshold,
        "timeout_seconds": state.policy.timeout_seconds,
        "timeout_remaining": remaining_us / MICROSECONDS,
        "last_failure_time": state.last_failure.at / MICROSECONDS if state.last_failure else None,
    }
