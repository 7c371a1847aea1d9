"""Starts that deliver an old spool, and whose connections are cut at one message of the protocol after another."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from breaker_store import BreakerStore, LogUnavailableError
from tests.crash.cuts import POLICY, ok
from tests.postgres.proxy import Disturbance, Proxy

EVENTS_LEFT = 40


@dataclass
class Starter:
    """Stores that reach Postgres through a proxy, one after the other, all with the same spool.

    Attributes:
        happened: how many events there were.
        failed: how many starts failed, as a start may.

    """

    proxy: Proxy
    spool_dir: Path
    happened: int = 0
    failed: int = 0

    async def list_disturbances(self) -> list[Disturbance]:
        """Give one for each message of an undisturbed start, in either direction, before and after it arrives."""
        for _ in range(2):  # the first one has partitions made as well
            await self.leave_events()
            self.proxy.disturb(None)
            await self.start()
        return [
            Disturbance(number, from_server, passed_on)
            for from_server, messages in ((False, self.proxy.asked), (True, self.proxy.answered))
            for number in range(1, len(messages) + 1)
            for passed_on in (False, True)
        ]

    async def leave_events(self) -> None:
        """Let events happen whose process ends while Postgres is away."""
        async with self._store() as store:
            await self.proxy.close()
            for _ in range(EVENTS_LEFT):
                await store.registry.get_breaker(self.happened).call(ok)
            self.happened += EVENTS_LEFT
        await self.proxy.open()

    async def start(self) -> bool:
        """Open a store and close it; tell whether it could be opened."""
        try:
            async with self._store():
                return True
        except LogUnavailableError:
            self.failed += 1
            return False

    def _store(self) -> AbstractAsyncContextManager[BreakerStore]:
        return BreakerStore.open(
            database_url=self.proxy.url, policy=POLICY, spool_dir=self.spool_dir, drain_seconds=0
        )


async def cut_starts(starter: Starter, first: int = 0, step: int = 1) -> int:
    """Cut some of the ways that a start can be cut, each with an old spool to deliver; count them."""
    disturbances = list(islice(await starter.list_disturbances(), first, None, step))
    for disturbance in disturbances:
        await starter.leave_events()
        starter.proxy.disturb(disturbance)
        await starter.start()
        starter.proxy.disturb(None)
        assert await starter.start()
    return len(disturbances)
