"""Whatever stands against a batch: it is stored once, or its events are somewhere and counted (DESIGN rules 10, 15 and 17)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from breaker_store.core.events import Kind, Outcome
from breaker_store.errors import LedgerError
from breaker_store.memory import MemoryBatch
from breaker_store.ports import Batch, Fate, Gap, GapReason, LedgerHead
from breaker_store.runtime.sending import LONGEST_PAUSE_SECONDS, Sender
from breaker_store.runtime.tally import Tally
from breaker_store.spool import Spool
from tests.runtime.driving import START, USER, Recording, fail_times, succeed, trip
from tests.runtime.recorders import RuledLog

GAP = Gap(GapReason.QUEUE_FULL, START, START, successes=3)


class Sending:
    """A sender with its log, and events for it."""

    def __init__(self, spool: Spool | None) -> None:
        self.log = RuledLog()
        self.tally = Tally()
        self.pauses: list[float] = []
        self.after_pauses: Callable[[], Awaitable[None]] | None = None
        self.fates: list[Fate] = []
        self.recording = Recording()
        self.sender = Sender(self.log, self.tally, spool, settle=self.settle, pause=self.pause)

    @property
    def writer_id(self) -> int:
        return self.recording.journal.writer_id

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) == 5:
            self.log.is_away = False

    async def settle(self, fates: list[Fate]) -> None:
        self.fates += fates

    async def successes(self, count: int) -> Batch:
        for _ in range(count):
            await self.recording.breaker.call(succeed)
        return self.recording.cut()

    async def send(self, count: int = 1) -> set[int]:
        return await self.sender.deliver(await self.successes(count))

    def is_a_chain(self) -> bool:
        """Tell whether the ledger has all batches of this writer one after the other."""
        batches = [
            sealed
            for (writer_id, _), sealed in sorted(self.log.batches.items())
            if writer_id == self.writer_id
        ]
        before = [None, *(sealed.digest for sealed in batches)]
        return [sealed.batch.batch_no for sealed in batches] == list(range(1, len(batches) + 1)) and all(
            sealed.batch.previous_digest == digest for sealed, digest in zip(batches, before, strict=False)
        )


@pytest.fixture
def spool(directory: Path) -> Iterator[Spool]:
    with closing(Spool(directory)) as spool:
        yield spool


@pytest.fixture(params=["with a spool", "without a spool"])
def sending(request: pytest.FixtureRequest, spool: Spool) -> Sending:
    return Sending(spool if request.param == "with a spool" else None)


@pytest.fixture
def spooled(spool: Spool) -> Sending:
    return Sending(spool)


async def test_batches_are_stored_as_a_chain_and_counted(sending: Sending) -> None:
    for count in (1, 3, 2):
        assert await sending.send(count) == set()
    assert sending.log.numbers() == [1, 2, 3, 4, 5, 6]
    assert sending.is_a_chain()
    assert (sending.tally.flushed, sending.tally.last_error, sending.pauses) == (6, None, [])


async def test_while_the_log_is_away_the_same_bytes_are_sent_again_after_ever_longer_bounded_pauses(
    sending: Sending,
) -> None:
    sending.log.is_away = True
    await sending.send(3)
    assert len({sealed.digest for sealed in sending.log.asked}) == 1
    assert len({id(sealed) for sealed in sending.log.asked}) == 1
    assert len(sending.pauses) == 5
    assert all(0 <= seconds <= LONGEST_PAUSE_SECONDS for seconds in sending.pauses)
    assert sending.log.numbers() == [1, 2, 3]
    assert sending.tally.last_error == "the log is away"


async def test_a_batch_whose_answer_is_lost_is_stored_once_and_what_became_of_it_is_heard(
    sending: Sending,
) -> None:
    await trip(sending.recording.breaker)
    sending.log.answers_to_lose = 3
    await sending.sender.deliver(sending.recording.cut())
    assert sending.log.numbers() == [1, 2, 3, 4, 5, 6]
    assert sending.fates == [Fate(USER, 6, 1)]
    assert sending.tally.flushed == 6


async def test_a_breaker_that_can_not_take_its_fate_on_does_not_stop_the_others(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    async def stumble(_fates: list[Fate]) -> None:
        raise ZeroDivisionError

    sending = Sending(spool)
    sending.sender = Sender(sending.log, sending.tally, spool, settle=stumble)
    sending.recording.breaker.reset()
    await sending.sender.deliver(sending.recording.cut())
    await sending.send()
    assert sending.log.numbers() == [1, 2]
    assert "can't be taken on" in caplog.text


# An event that can't be stored.


@pytest.mark.parametrize("refused", [{1}, {8}, {3, 4}, {1, 2, 3, 4, 5, 6, 7, 8}])
async def test_refused_events_are_found_kept_in_files_and_told_and_the_others_are_stored(
    spooled: Sending, directory: Path, refused: set[int]
) -> None:
    spooled.log.refuses = lambda batch: any(row[2] in refused for row in batch.outcomes)
    assert await spooled.send(8) == refused
    assert spooled.log.numbers() == [number for number in range(1, 9) if number not in refused]
    assert await spooled.sender.deliver(spooled.tally.tell_gaps(await spooled.successes(1))) == set()
    assert spooled.is_a_chain()
    (gap,) = spooled.log.told()
    assert (gap.reason, gap.successes, gap.event_count) == (GapReason.REFUSED, len(refused), len(refused))
    assert (spooled.tally.set_aside, spooled.tally.lost.total()) == (len(refused), 0)
    kept = [read_aside(path) for path in (directory / "aside").iterdir()]
    assert {lines[0]["first_seq"] for lines in kept} == refused
    assert {lines[1]["event"] for lines in kept} == {f"{spooled.writer_id}-{number}" for number in refused}


def read_aside(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_refused_events_are_lost_without_a_spool_and_that_is_counted_and_told() -> None:
    sending = Sending(None)
    sending.log.refuses = lambda batch: any(row[2] == 2 for row in batch.outcomes)
    assert await sending.send(3) == {2}
    assert (sending.tally.set_aside, sending.tally.lost) == (0, {GapReason.REFUSED: 1})
    assert sending.tally.lost_why == "the database refused them"
    assert [gap.reason for gap in sending.tally.gaps] == [GapReason.REFUSED]


async def test_refused_events_are_lost_where_the_disk_refuses_them_too(
    spooled: Sending, directory: Path
) -> None:
    spooled.log.refuses = lambda batch: any(row[2] == 2 for row in batch.outcomes)
    (directory / "aside").write_text("in the way")
    assert await spooled.send(3) == {2}
    assert (spooled.tally.set_aside, spooled.tally.lost) == (0, {GapReason.REFUSED: 1})


async def test_an_event_is_sent_without_its_texts_before_it_is_given_up(sending: Sending) -> None:
    sending.log.refuses = lambda batch: any(row[-1] == "no answer" for row in batch.outcomes)
    await fail_times(sending.recording.breaker, 1)
    assert await sending.sender.deliver(sending.recording.cut()) == set()
    (stored,) = sending.log.stored()
    assert isinstance(stored, Outcome)
    assert (stored.kind, stored.error_type, stored.operation) == (Kind.FAILURE, None, None)
    assert "can't be stored" in str(stored.error_message)
    assert sending.tally.set_aside == 0


async def test_gaps_that_come_with_a_refused_batch_are_told_once(sending: Sending) -> None:
    sending.log.refuses = lambda batch: any(row[2] == 2 for row in batch.outcomes)
    await sending.sender.deliver(replace(await sending.successes(4), gaps=(GAP,)))
    await sending.sender.deliver(sending.tally.tell_gaps(await sending.successes(1)))
    assert sorted(gap.reason for gap in sending.log.told()) == [GapReason.QUEUE_FULL, GapReason.REFUSED]
    assert sending.tally.gaps == []


async def test_gaps_that_the_log_refuses_do_not_hold_up_events_for_ever(sending: Sending) -> None:
    sending.log.refuses = lambda batch: bool(batch.gaps)
    await sending.sender.deliver(replace(await sending.successes(2), gaps=(GAP,)))
    await sending.sender.deliver(sending.tally.gaps_alone(sending.writer_id, 2))
    await sending.send()
    assert sending.log.numbers() == [1, 2, 3]
    assert sending.tally.gaps == []


async def test_a_breaker_whose_first_event_was_put_aside_is_named_with_the_next_batch(
    sending: Sending,
) -> None:
    sending.log.refuses = lambda batch: any(row[2] == 1 for row in batch.outcomes)
    await sending.send()
    await sending.send()
    ((_, stored),) = sending.log.batches.items()
    assert set(stored.batch.newcomers) == {USER}


# A ledger that says something else.


async def test_other_contents_under_the_next_number_cost_one_batch_and_recording_goes_on(
    spooled: Sending, directory: Path
) -> None:
    await spooled.send(2)
    head = await spooled.log.ledger_head(spooled.writer_id)
    assert head is not None
    batch = await spooled.successes(1)
    strange = replace(
        batch,
        batch_no=2,
        previous_digest=head.digest,
        outcomes=[(*batch.outcomes[0][:3], 7, *batch.outcomes[0][4:])],
    )
    await spooled.log.append(spooled.log.seal(strange))
    assert await spooled.sender.deliver(batch) == {3}
    for _ in range(2):
        assert await spooled.sender.deliver(spooled.tally.tell_gaps(await spooled.successes(2))) == set()
    assert spooled.log.numbers() == [1, 2, 3, 4, 5, 6, 7]
    assert spooled.is_a_chain()
    assert [gap[:1] + gap[3:] for gap in spooled.log.told()] == [(GapReason.CONTRADICTED, 1, 0, 0, 0, 0)]
    assert (spooled.tally.set_aside, spooled.tally.lost.total()) == (1, 0)
    (kept,) = (directory / "aside").iterdir()
    assert "other contents" in str(read_aside(kept)[0]["why"])


async def test_other_contents_under_the_next_number_are_lost_without_a_spool() -> None:
    sending = Sending(None)
    batch = await sending.successes(2)
    strange = replace(batch, batch_no=1, outcomes=batch.outcomes[:1], last_seq=1)
    await sending.log.append(sending.log.seal(strange))
    assert await sending.sender.deliver(batch) == {1, 2}
    assert sending.tally.lost == {GapReason.CONTRADICTED: 2}
    assert await sending.send() == set()


@pytest.mark.parametrize("left", [0, 1, 3])
async def test_a_database_that_was_restored_has_forgotten_and_recording_goes_on(
    sending: Sending, left: int
) -> None:
    for _ in range(4):
        await sending.send(5)
    sending.log.forget_after(sending.writer_id, left)
    assert await sending.send(2) == set()
    assert await sending.sender.deliver(sending.tally.tell_gaps(await sending.successes(1))) == set()
    assert sending.log.numbers() == [*range(1, 5 * left + 1), 21, 22, 23]
    assert sending.is_a_chain()
    forgotten = 20 - 5 * left
    assert sending.tally.lost == {GapReason.FORGOTTEN: forgotten}
    assert sending.tally.lost_why == "the database has forgotten them"
    assert [gap[:1] + gap[3:] for gap in sending.log.told()] == [(GapReason.FORGOTTEN, 0, 0, 0, 0, forgotten)]


async def test_a_last_batch_that_is_there_with_other_contents_is_taken_for_what_the_ledger_has(
    sending: Sending,
) -> None:
    """As after a failover to a copy that had another end."""
    await sending.send(2)
    batch = await sending.successes(2)
    sending.log.forget_after(sending.writer_id, 0)
    strange = replace(
        batch,
        batch_no=1,
        first_seq=1,
        last_seq=2,
        outcomes=[(*row[:2], row[2] - 2, *row[3:]) for row in batch.outcomes],
    )
    other = sending.log.seal(replace(strange, outcomes=[(*row[:3], 7, *row[4:]) for row in strange.outcomes]))
    await sending.log.append(other)
    assert await sending.sender.deliver(batch) == set()
    assert sending.log.numbers() == [1, 2, 3, 4]
    assert sending.is_a_chain()


class ContraryLog(RuledLog):
    """A ledger that takes nothing, whatever it says that it has."""

    heads: Iterator[LedgerHead | None]

    async def append(self, sealed: MemoryBatch) -> list[Fate]:
        self.asked.append(sealed)
        raise LedgerError("no")

    async def ledger_head(self, writer_id: int) -> LedgerHead | None:
        return next(self.heads)


def nothing() -> Iterator[LedgerHead | None]:
    while True:
        yield None


def one_then_another() -> Iterator[LedgerHead | None]:
    while True:
        yield LedgerHead(1, 1, b"1")
        yield None


def ever_more() -> Iterator[LedgerHead | None]:
    for number in range(1, 10_000):
        yield LedgerHead(number, number, bytes(number))


def ever_other() -> Iterator[LedgerHead | None]:
    for number in range(1, 10_000):
        yield LedgerHead(1, 1, bytes(number))


@pytest.mark.parametrize("heads", [nothing, one_then_another, ever_more, ever_other])
@pytest.mark.parametrize("is_inherited", [False, True])
async def test_a_ledger_that_takes_nothing_is_not_asked_for_ever(
    spool: Spool, heads: Callable[[], Iterator[LedgerHead | None]], *, is_inherited: bool
) -> None:
    sending = Sending(spool)
    sending.log = ContraryLog()
    sending.log.heads = heads()
    sender = Sender(sending.log, sending.tally, spool, inherited=is_inherited)
    for _ in range(3):
        await sender.deliver(await sending.successes(2))
    assert len(sending.log.asked) <= 9
    assert sending.tally.set_aside + sending.tally.lost.total() >= (0 if is_inherited else 6)
