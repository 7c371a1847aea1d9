"""Processes that record into a log which a test rules, by way of a spool, in a time that passes without being waited for."""

from __future__ import annotations

import asyncio
import selectors
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

from breaker_store import CircuitBreaker, CircuitBreakerRegistry, Policy
from breaker_store.core.events import StoredEvent
from breaker_store.errors import EventRefusedError, LogUnavailableError
from breaker_store.memory import MemoryBatch, MemoryEventLog
from breaker_store.ports import Batch, Fate, Gap, LedgerHead, RecorderReport
from breaker_store.runtime.clock import Clock
from breaker_store.runtime.follower import Follower
from breaker_store.runtime.journal import DEFAULT_QUEUE_LIMIT
from breaker_store.runtime.recorder import Recorder
from breaker_store.runtime.recovering import deliver_leftovers
from breaker_store.settings import Durability
from breaker_store.spool import DEFAULT_LIMIT_BYTES, Spool
from tests.runtime.driving import SECOND, START, USER, read, succeed

pass_time = asyncio.sleep
"""In a `LeapingLoop` nobody waits for it."""


class LeapingSelector(selectors.DefaultSelector):
    """Waits for no timer: where there is nothing to do, its time leaps to the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.now_seconds = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits, and nothing is to come")
        if not ready and timeout is not None:
            self.now_seconds += max(timeout, 0)
        return ready


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only where all that is left to do is to wait."""

    def __init__(self) -> None:
        self._leaping = LeapingSelector()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.now_seconds


def clock_of_the_loop() -> Clock:
    loop = asyncio.get_running_loop()
    return Clock(lambda: round(loop.time() * 1_000_000_000), START + round((loop.time() - 1_000) * SECOND))


class RuledLog(MemoryEventLog):
    """A log that does what a test says.

    Attributes:
        is_away: whether everything that it is asked fails.
        answers_to_lose: how many batches it stores without saying so.
        refuses: tells of a batch whether something in it can't be stored.
        seconds_per_batch: how long it takes to store one.
        correction: what its clock says, unlike the registry's, in microseconds.
        asked: what it was asked to append, in order.

    """

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.answers_to_lose = 0
        self.refuses: Callable[[Batch], bool] = lambda _batch: False
        self.seconds_per_batch = 0.0
        self.correction = 0
        self.asked: list[MemoryBatch] = []
        self._is_held = False
        self._let_through = 0
        self._change = asyncio.Condition()

    @property
    def correction_us(self) -> int:
        return self.correction

    def hold(self) -> None:
        """Give no answer, and store nothing, until `release`."""
        self._is_held = True

    async def release(self, batches: int | None = None) -> None:
        """Go on with all that is asked, or with so many batches, and then hold the others."""
        self._is_held = batches is not None
        self._let_through = batches or 0
        async with self._change:
            self._change.notify_all()

    async def be_asked(self, times: int = 1) -> None:
        """Wait until it was asked so often to append."""
        async with self._change:
            await self._change.wait_for(lambda: len(self.asked) >= times)

    async def append(self, sealed: MemoryBatch) -> list[Fate]:
        self.asked.append(sealed)
        async with self._change:
            self._change.notify_all()
            await self._change.wait_for(lambda: not self._is_held or self._let_through > 0)
        self._let_through -= 1
        await asyncio.sleep(self.seconds_per_batch)
        self._complain()
        if self.refuses(sealed.batch):
            raise EventRefusedError("something in it can't be stored")
        fates = await super().append(sealed)
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            raise LogUnavailableError("the answer is lost")
        return fates

    async def ledger_head(self, writer_id: int) -> LedgerHead | None:
        self._complain()
        return await super().ledger_head(writer_id)

    async def report(self, report: RecorderReport) -> None:
        self._complain()
        await super().report(report)

    def forget_after(self, writer_id: int, batch_no: int) -> None:
        """Be restored to how it was when it had just stored this batch of a writer, 0 for none."""
        while (head := self._ledger_heads.get(writer_id)) is not None and head.batch_no > batch_no:
            gone = self.batches.pop((writer_id, head.batch_no)).batch
            for events in self.events.values():
                events[:] = [event for event in events if event.event_id[1] not in numbers_of(gone)]
            before = self.batches.get((writer_id, head.batch_no - 1))
            if before is None:
                del self._ledger_heads[writer_id]
            else:
                last = before.batch.last_seq
                self._ledger_heads[writer_id] = LedgerHead(head.batch_no - 1, last, before.digest)

    def stored(self) -> list[StoredEvent]:
        """Give everything that is stored, in the order of writers and numbers; what is there twice, twice."""
        return sorted(
            (event for events in self.events.values() for event in events), key=lambda event: event.event_id
        )

    def numbers(self) -> list[int]:
        return [event.event_id.writer_seq for event in self.stored()]

    def told(self) -> list[Gap]:
        """Give the gaps of all writers."""
        return [gap for gaps in self.gaps.values() for gap in gaps]

    def _complain(self) -> None:
        if self.is_away:
            raise LogUnavailableError("the log is away")


def numbers_of(batch: Batch) -> list[int]:
    return [event.event_id.writer_seq for event in read(batch)]


class Process:
    """A registry and its recorder, as a store has them."""

    def __init__(
        self,
        log: RuledLog,
        directory: Path | None = None,
        durability: Durability = Durability.BEHIND,
        *,
        policy: Policy | None = None,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        queue_limit: int = DEFAULT_QUEUE_LIMIT,
    ) -> None:
        self.log = log
        self.clock = clock_of_the_loop()
        self.registry = CircuitBreakerRegistry(policy=policy, clock=self.clock)
        self.journal = self.registry.surroundings.journal
        self.spool = None if directory is None else Spool(directory, limit_bytes=limit_bytes)
        self.recorder = Recorder(
            self.journal,
            self.clock,
            log,
            Follower(self.registry, log, 0).settle,
            spool=self.spool,
            durability=durability,
            queue_limit=queue_limit,
        )

    @property
    def breaker(self) -> CircuitBreaker:
        return self.registry.get_breaker(USER)

    async def start(self) -> None:
        if self.spool is not None:
            await deliver_leftovers(self.spool, self.log, self.recorder.tally, self.clock)
        self.recorder.start()

    async def close(self, drain_seconds: float = 10) -> int:
        """End as a store does, and tell how much was not stored."""
        try:
            return await self.recorder.close(drain_seconds)
        finally:
            if self.spool is not None:
                self.spool.close()

    async def call(self, times: int, seconds_apart: float = 0.0) -> None:
        for _ in range(times):
            await self.breaker.call(succeed)
            if seconds_apart:
                await pass_time(seconds_apart)


@asynccontextmanager
async def recording(
    log: RuledLog,
    directory: Path | None = None,
    durability: Durability = Durability.BEHIND,
    *,
    drain_seconds: float = 0,
    policy: Policy | None = None,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
    queue_limit: int = DEFAULT_QUEUE_LIMIT,
) -> AsyncIterator[Process]:
    process = Process(
        log, directory, durability, policy=policy, limit_bytes=limit_bytes, queue_limit=queue_limit
    )
    await process.start()
    try:
        yield process
    finally:
        await process.close(drain_seconds)


async def restart(log: RuledLog, directory: Path) -> Process:
    """Begin with what a process that has ended left, and end when that is stored; the folder stays as it was."""
    with tempfile.TemporaryDirectory() as other:
        copy = Path(other, "spool")
        shutil.copytree(directory, copy)
        async with recording(log, copy, drain_seconds=10) as process:
            return process


def batches_on_disk(directory: Path) -> list[Batch]:
    """Read what a process would find that starts now."""
    with tempfile.TemporaryDirectory() as other:
        copy = Path(other, "spool")
        shutil.copytree(directory, copy)
        found: list[Batch] = []
        with closing(Spool(copy)) as spool:
            for left in spool.leftovers():
                while batch := left.read(found[-1].last_seq if found else 0, 100_000):
                    found.append(batch)
                assert left.damaged == []
        return found


def on_disk(directory: Path) -> list[StoredEvent]:
    return [event for batch in batches_on_disk(directory) for event in read(batch)]


def numbers_on_disk(directory: Path) -> list[int]:
    return [event.event_id.writer_seq for event in on_disk(directory)]


def files(directory: Path) -> list[Path]:
    """List the files with events in them."""
    return [path for path in sorted(directory.glob("*.spool")) if path.stat().st_size]


def are_consecutive(numbers: Sequence[int]) -> bool:
    return list(numbers) == list(range(1, len(numbers) + 1))
