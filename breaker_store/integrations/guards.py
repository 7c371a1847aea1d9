"""Whose call a request is, and what its errors mean: what all adapters of clients have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from breaker_store.core.failures import FailureTable
from breaker_store.runtime.protected_call import Guard

Request = TypeVar("Request")


def choose_guard(
    guard: Guard | None, guard_of: Callable[[Request], Guard] | None
) -> Callable[[Request], Guard]:
    """Tell whom to ask for the guard of a request.

    Raises:
        TypeError: neither of the two is given, or both are.

    """
    if guard_of is not None and guard is None:
        return guard_of
    if guard is not None and guard_of is None:
        return lambda _request: guard
    raise TypeError("either one guard for all requests is needed, or guard_of, which tells each one's")


def choose_table(given: FailureTable | None, guard: Guard, of_client: FailureTable) -> FailureTable:
    """Give what was said to the adapter, else what its user chose for the guard, else the client's own table."""
    return given or guard.failures or of_client
