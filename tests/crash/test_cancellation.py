"""Recording that is cancelled at any of its awaits loses nothing: what was not stored is spooled, and stored later."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, groupby
from pathlib import Path

import asyncpg
import pytest

from breaker_store import BreakerStore, NotCommittedError, Policy, StoreError
from tests.crash.cancelling import CancelsTask
from tests.crash.stored import complaints_about, left_files

RECORDER = "breaker-store recorder"
POLICY = Policy(failure_threshold=2)
WITH_A_STATEMENT, WITH_COPY = 10, 80

_CALLS = """
SELECT writer_id, coalesce(error_message, operation) AS name FROM breaker_outcomes ORDER BY writer_id, writer_seq
"""


class NoAnswerError(Exception):
    """What a sick service brings about."""


@dataclass
class Recording:
    """One store after the other, all with the same spool.

    Attributes:
        called: how many calls there were; they have numbers for names.

    """

    database_url: str
    spool_dir: Path
    durability: str
    calls_at_once: int
    called: int = 0
    _users: Iterator[int] = field(default_factory=lambda: count(1))

    async def be_cancelled_at(self, suspension: int) -> bool:
        """Record, with the recorder cancelled at its n-th suspension; tell whether there were that many."""
        cancelling = CancelsTask(RECORDER, suspension)
        asyncio.get_running_loop().set_task_factory(cancelling)
        try:
            await self.live(cancelling.cancelled)
        finally:
            asyncio.get_running_loop().set_task_factory(None)
        return cancelling.cancelled.is_set()

    async def live(self, cancelled: asyncio.Event) -> None:
        """Open a store, call, and close it at once when all is stored or recording was cancelled."""
        async with BreakerStore.open(
            database_url=self.database_url,
            policy=POLICY,
            spool_dir=self.spool_dir,
            durability=self.durability,
            drain_seconds=0,
        ) as store:
            working = [asyncio.create_task(self._work(store)), asyncio.create_task(cancelled.wait())]
            await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            if cancelled.is_set():
                working.append(asyncio.create_task(self._call(store, next(self._users))))
                await asyncio.sleep(0)
        working.pop(1).cancel()
        await asyncio.gather(*working)

    async def _work(self, store: BreakerStore) -> None:
        steady, sick = next(self._users), next(self._users)
        calls = [self._call(store, steady) for _ in range(self.calls_at_once)]
        calls += [self._call(store, sick, fails=True) for _ in range(POLICY.failure_threshold)]
        await asyncio.gather(*calls)
        with suppress(StoreError):  # the store was closed
            await store.flush()

    async def _call(self, store: BreakerStore, user_id: int, *, fails: bool = False) -> None:
        self.called += 1
        name = str(self.called)

        async def answer() -> None:
            if fails:
                raise NoAnswerError(name)

        answer.__name__ = name
        with suppress(NoAnswerError, NotCommittedError):
            await store.registry.get_breaker(user_id).call(answer)


@pytest.mark.parametrize("calls_at_once", [WITH_A_STATEMENT, WITH_COPY])
@pytest.mark.parametrize("durability", ["behind", "journaled", "committed"])
async def test_recording_that_is_cancelled_at_any_await_loses_nothing_and_doubles_nothing(
    database_url: str, connection: asyncpg.Connection, tmp_path: Path, durability: str, calls_at_once: int
) -> None:
    recording = Recording(database_url, tmp_path / "spool", durability, calls_at_once)
    suspensions = 0
    while await recording.be_cancelled_at(suspensions + 1):
        suspensions += 1
    assert suspensions > 3
    calls = await connection.fetch(_CALLS)
    assert sorted(int(call["name"]) for call in calls) == list(range(1, recording.called + 1))
    for _, of_one in groupby(calls, key=lambda call: call["writer_id"]):
        names = [int(call["name"]) for call in of_one]
        assert names == sorted(names)
    assert await complaints_about(connection, POLICY) == []
    assert left_files(recording.spool_dir) == []
