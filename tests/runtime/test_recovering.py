"""What an earlier process left in the spool is stored first, once, and under its own name (DESIGN rules 10, 13 and 16)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from breaker_store import CircuitState, LogUnavailableError, Policy
from breaker_store.core.rebuild import rebuild
from breaker_store.memory import MemoryBatch
from breaker_store.ports import Batch, Fate, Gap, GapReason, LedgerHead
from breaker_store.runtime.clock import ManualClock
from breaker_store.runtime.recovering import BATCH_SIZE, deliver_leftovers
from breaker_store.runtime.tally import Tally
from breaker_store.spool import Spool
from tests.runtime.driving import SECOND, START, USER, Recording, fail_times, read, succeed, trip
from tests.runtime.recorders import LeapingLoop, RuledLog, files

LOOP = LeapingLoop
GAP = Gap(GapReason.SPOOL_FULL, START, START, successes=3)
QUICK = Policy(failure_threshold=2)


class Dead:
    """A process that wrote into the spool, and sent some of it, before its death."""

    def __init__(self, directory: Path, *, started_seconds: int = 0) -> None:
        self.recording = Recording(QUICK)
        self.directory = directory
        self.started_us = START + started_seconds * SECOND
        self.batches: list[Batch] = []
        self._last: MemoryBatch | None = None

    @property
    def writer_id(self) -> int:
        return self.recording.journal.writer_id

    async def succeed(self, count: int, *gaps: Gap) -> None:
        """Have a batch of successes happen."""
        for _ in range(count):
            await self.recording.breaker.call(succeed)
        self.batches.append(replace(self.recording.cut(), gaps=gaps))

    async def trip(self) -> None:
        await trip(self.recording.breaker)
        self.batches.append(self.recording.cut())

    def write(self) -> None:
        with closing(Spool(self.directory)) as spool:
            writer = spool.begin(self.writer_id, self.started_us)
            for batch in self.batches:
                writer.write(batch)

    def next_to_send(self, log: RuledLog, batches: int = 1) -> list[MemoryBatch]:
        """Seal its next batches, as it did when it lived."""
        sealed: list[MemoryBatch] = []
        for batch in self.batches[:batches]:
            number, digest = (
                (1, None) if self._last is None else (self._last.batch.batch_no + 1, self._last.digest)
            )
            self._last = log.seal(replace(batch, batch_no=number, previous_digest=digest))
            sealed.append(self._last)
        return sealed


async def deliver(directory: Path, log: RuledLog) -> Tally:
    tally = Tally()
    with closing(Spool(directory)) as spool:
        await deliver_leftovers(spool, log, tally, ManualClock(START))
    return tally


async def test_where_nothing_was_left_nothing_is_asked(directory: Path, log: RuledLog) -> None:
    log.is_away = True
    assert await deliver(directory, log) == Tally()


async def test_what_several_processes_left_is_stored_oldest_first_under_their_own_ids(
    directory: Path, log: RuledLog, caplog: pytest.LogCaptureFixture
) -> None:
    dead = [Dead(directory, started_seconds=seconds) for seconds in (20, 0, 10)]
    for count, each in enumerate(dead, 2):
        await each.succeed(count)
        each.write()
    tally = await deliver(directory, log)
    second, third, first = dead[1], dead[2], dead[0]
    assert [sealed.batch.writer_id for sealed in log.asked] == [
        second.writer_id, third.writer_id, first.writer_id,
    ]  # fmt: skip
    assert [sealed.batch.event_count for sealed in log.asked] == [3, 4, 2]
    assert (tally.flushed, tally.set_aside, tally.lost.total(), tally.gaps) == (9, 0, 0, [])
    assert files(directory) == []
    assert f"3 events that writer {second.writer_id} had left" in caplog.text


async def test_what_was_left_keeps_its_times_and_its_numbers(directory: Path, log: RuledLog) -> None:
    dead = Dead(directory)
    for _ in range(3):
        await dead.succeed(1)
        dead.recording.clock.advance(100)
    await dead.trip()
    dead.write()
    await deliver(directory, log)
    happened = [event for batch in dead.batches for event in read(batch)]
    assert [(event.event_id, event.at) for event in log.stored()] == [
        (event.event_id, event.at) for event in happened
    ]


async def test_what_was_left_goes_in_batches(directory: Path, log: RuledLog) -> None:
    dead = Dead(directory)
    for count in (BATCH_SIZE, BATCH_SIZE - 1, 2):
        await dead.succeed(count)
    dead.write()
    tally = await deliver(directory, log)
    assert [sealed.batch.event_count for sealed in log.asked] == [BATCH_SIZE, BATCH_SIZE, 1]
    assert tally.flushed == len(log.stored()) == 2 * BATCH_SIZE + 1


@pytest.mark.parametrize("stored", [1, 2, 3])
async def test_what_was_stored_before_is_passed_over_and_the_ledger_is_continued(
    directory: Path, log: RuledLog, stored: int
) -> None:
    dead = Dead(directory)
    for count in (3, 2, 4):
        await dead.succeed(count)
    dead.write()
    for sealed in dead.next_to_send(log, stored):
        await log.append(sealed)
    tally = await deliver(directory, log)
    assert log.numbers() == list(range(1, 10))
    assert tally.flushed == sum([3, 2, 4][stored:])
    assert set(log.batches) == {(dead.writer_id, number) for number in range(1, min(stored + 1, 3) + 1)}
    assert files(directory) == []


class LateLog(RuledLog):
    """A log in which what a dead process had sent lands between the first look at the ledger and the first append."""

    late: Iterator[MemoryBatch] = iter(())

    async def append(self, sealed: MemoryBatch) -> list[Fate]:
        for each in self.late:
            await super().append(each)
            self.asked.clear()
            break
        return await super().append(sealed)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("count", [1, 4, 5])
async def test_a_dead_processs_last_transaction_that_lands_late_is_not_doubled(
    directory: Path, before: int, count: int
) -> None:
    log, dead = LateLog(), Dead(directory)
    for _ in range(before):
        await dead.succeed(2)
    await dead.succeed(count)
    await dead.succeed(5 - count) if count < 5 else None
    dead.write()
    sent = dead.next_to_send(log, before + 1)
    for sealed in sent[:before]:
        await log.append(sealed)
    log.late = iter(sent[before:])
    tally = await deliver(directory, log)
    assert log.numbers() == list(range(1, 2 * before + 6))
    assert (tally.set_aside, tally.lost.total()) == (0, 0)


@pytest.mark.parametrize("rest", [0, 3])
async def test_a_gap_that_landed_late_is_told_once(directory: Path, rest: int) -> None:
    log, dead = LateLog(), Dead(directory)
    await dead.succeed(4, GAP)
    await dead.succeed(rest) if rest else None
    dead.write()
    log.late = iter(dead.next_to_send(log))
    await deliver(directory, log)
    assert log.numbers() == list(range(1, 5 + rest))
    assert log.told() == [GAP]


async def test_a_gap_that_was_stored_before_is_told_once(directory: Path, log: RuledLog) -> None:
    dead = Dead(directory)
    await dead.succeed(4, GAP)
    await dead.succeed(3)
    dead.write()
    for sealed in dead.next_to_send(log):
        await log.append(sealed)
    await deliver(directory, log)
    assert log.told() == [GAP]


async def test_a_gap_of_the_dead_process_is_told_with_its_events(directory: Path, log: RuledLog) -> None:
    dead = Dead(directory)
    await dead.succeed(4)
    await dead.succeed(3, GAP)
    dead.write()
    await deliver(directory, log)
    assert log.told() == [GAP]


def damage(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("place", [0.02, 0.5, 0.98], ids=["at the beginning", "in the middle", "at the end"])
async def test_what_is_damaged_is_counted_kept_and_told_and_the_rest_is_stored(
    directory: Path, log: RuledLog, place: float
) -> None:
    dead = Dead(directory)
    for _ in range(10):
        await dead.succeed(10)
    dead.write()
    (file,) = files(directory)
    damage(file, int(file.stat().st_size * place))
    tally = await deliver(directory, log)
    assert (tally.flushed, tally.set_aside, tally.lost.total()) == (99, 1, 0)
    assert len(log.stored()) == 99
    assert [gap[:1] + gap[3:] for gap in (*log.told(), *tally.gaps)] == [(GapReason.DAMAGED, 0, 0, 0, 0, 1)]
    assert len(list((directory / "aside").iterdir())) == 1
    assert files(directory) == []


async def test_damage_at_the_end_is_told_to_the_log_with_what_comes_next(
    directory: Path, log: RuledLog
) -> None:
    """Nothing of the dead process follows it, so it goes with the events of the next."""
    old, young = Dead(directory), Dead(directory, started_seconds=10)
    await old.succeed(3)
    old.write()
    (file,) = files(directory)
    damage(file, file.stat().st_size - 3)
    await young.succeed(2)
    young.write()
    await deliver(directory, log)
    assert [gap.reason for gap in log.told()] == [GapReason.DAMAGED]


async def test_a_spool_that_is_damaged_all_over_does_not_keep_anybody_from_starting(
    directory: Path, log: RuledLog
) -> None:
    dead = Dead(directory)
    await dead.succeed(50)
    dead.write()
    (file,) = files(directory)
    file.write_bytes(bytes(byte ^ 0x55 for byte in file.read_bytes()))
    tally = await deliver(directory, log)
    assert (tally.flushed, log.stored(), files(directory)) == (0, [], [])
    assert tally.set_aside >= 1


@pytest.fixture
def monotonic_time_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have time pass for tenacity as it does for the event loop."""
    passed = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(passed)))
    return iter(())


@pytest.mark.usefixtures("monotonic_time_of_the_loop")
async def test_a_log_that_is_away_for_long_is_an_error_and_nothing_is_lost(
    directory: Path, log: RuledLog
) -> None:
    dead = Dead(directory)
    await dead.succeed(5)
    dead.write()
    log.is_away = True
    with pytest.raises(LogUnavailableError):
        await deliver(directory, log)
    log.is_away = False
    await deliver(directory, log)
    assert log.numbers() == [1, 2, 3, 4, 5]


class LogThatGoesAway(RuledLog):
    """A log that goes away after so many batches, the last of which it stores without saying so."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches_left = batches

    async def append(self, sealed: MemoryBatch) -> list[Fate]:
        self.batches_left -= 1
        self.is_away = self.is_away or self.batches_left < 0
        self.answers_to_lose = 1 if self.batches_left == 0 else 0
        return await super().append(sealed)


@pytest.mark.usefixtures("monotonic_time_of_the_loop")
@pytest.mark.parametrize("batches", [1, 2])
async def test_a_start_that_fails_halfway_is_taken_up_by_the_next(directory: Path, batches: int) -> None:
    dead, log = Dead(directory), LogThatGoesAway(batches)
    for count in (BATCH_SIZE, BATCH_SIZE, 500):
        await dead.succeed(count)
    dead.write()
    with pytest.raises(LogUnavailableError):
        await deliver(directory, log)
    log.is_away, log.batches_left = False, 100
    await deliver(directory, log)
    assert log.numbers() == list(range(1, 2 * BATCH_SIZE + 501))
    assert len(log.batches) == 3


async def test_a_short_absence_of_the_log_is_waited_for(directory: Path) -> None:
    class LogThatComesBack(RuledLog):
        looks = 0

        async def ledger_head(self, writer_id: int) -> LedgerHead | None:
            self.looks += 1
            self.is_away = self.looks < 4
            return await super().ledger_head(writer_id)

    dead, log = Dead(directory), LogThatComesBack()
    await dead.succeed(5)
    dead.write()
    await deliver(directory, log)
    assert log.numbers() == [1, 2, 3, 4, 5]


async def test_a_trip_that_was_left_is_in_force(directory: Path, log: RuledLog) -> None:
    dead = Dead(directory)
    await dead.succeed(1)
    await dead.trip()
    dead.write()
    await deliver(directory, log)
    state = rebuild(QUICK, log.events[USER])
    assert (state.state, state.opened_by) == (CircuitState.OPEN, (dead.writer_id, 4))
    assert log.batches[dead.writer_id, 1].batch.newcomers == {USER: QUICK}


async def test_events_that_the_log_refuses_are_put_aside_and_the_others_are_stored(
    directory: Path, log: RuledLog
) -> None:
    dead = Dead(directory)
    await dead.succeed(8)
    await fail_times(dead.recording.breaker, 1)
    dead.write()
    log.refuses = lambda batch: any(row[2] == 3 for row in batch.outcomes)
    tally = await deliver(directory, log)
    assert log.numbers() == [1, 2, 4, 5, 6, 7, 8]
    assert (tally.flushed, tally.set_aside) == (7, 1)
