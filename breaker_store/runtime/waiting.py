"""Those who wait until events are stored."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import NamedTuple

from breaker_store.errors import LedgerError, NotCommittedError


class _Waiter(NamedTuple):
    """Somebody who waits until all events up to a number are stored; or, for a commit, until that one is."""

    target_seq: int
    for_commit: bool
    future: asyncio.Future[None]


class Waiters:
    """Lets those go on whose events are stored, and tells the others why they wait in vain."""

    def __init__(self) -> None:
        self._waiters: set[_Waiter] = set()

    async def wait(self, target_seq: int, *, for_commit: bool) -> None:
        """Wait until every event up to this one is stored or given up; for a commit, until this one is stored.

        Raises:
            LedgerError: recording ended before.
            NotCommittedError: the event whose commit was waited for is not stored, and never will be.

        """
        waiter = _Waiter(target_seq, for_commit, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        try:
            await waiter.future
        finally:
            self._waiters.discard(waiter)

    def release(self, done_seq: int) -> None:
        for waiter in self._waiters:
            if waiter.target_seq <= done_seq and not waiter.future.done():
                waiter.future.set_result(None)

    def disappoint(self, numbers: Container[int]) -> None:
        """Tell those who wait for the commit of events that are not stored, and never will be."""
        for waiter in self._waiters:
            if waiter.for_commit and waiter.target_seq in numbers and not waiter.future.done():
                waiter.future.set_exception(NotCommittedError("the event could not be stored"))

    def pass_over(self, done_seq: int, last_seq: int, present: Container[int]) -> None:
        """Tell those who wait for the commit of what lies between two numbers, the last included, and is not present."""
        for waiter in self._waiters:
            is_passed = done_seq < waiter.target_seq <= last_seq and waiter.target_seq not in present
            if waiter.for_commit and is_passed and not waiter.future.done():
                waiter.future.set_exception(NotCommittedError("the event was lost on disk"))

    def fail(self, why: str) -> None:
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_exception(LedgerError(why))
