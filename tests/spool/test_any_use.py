"""For any use of a spool: it gives what a plain list would give, and it knows how much room its files take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from breaker_store.ports import Batch, Gap, OutcomeRow, UserTransition
from breaker_store.spool import Spool, SpoolWriter
from tests.depth import DEPTH
from tests.spool.batches import (
    GAP,
    STARTED,
    batch_of,
    content,
    failed,
    opening,
    refusals,
    seq_of,
    spool_files,
    success,
)

LIMIT_BYTES = 20 * 700

Maker = Callable[[int], OutcomeRow | UserTransition]
MAKERS: list[Maker] = [success, failed, refusals, opening]


class Model:
    """What one writer wrote, as lists. Each gap stands with the number of the event before it."""

    def __init__(self, writer: SpoolWriter) -> None:
        self.writer = writer
        self.last_seq = 0
        self.stored_seq = 0
        self.read_seq = 0
        self.events: list[OutcomeRow | UserTransition] = []
        self.gaps: list[tuple[int, Gap]] = []
        self.gaps_read = 0
        self.perhaps_stored: set[Gap] = set()

    def add(self, batch: Batch) -> None:
        events = content([batch]).events
        self.events += events
        self.gaps += [(self.last_seq, gap) for gap in batch.gaps]
        self.last_seq = seq_of(events[-1]) if events else self.last_seq

    def read(self, limit: int) -> None:
        """Read and compare; gaps that came after the last stored event may be stored, and may come again."""
        batch = self.writer.read(self.read_seq, limit)
        events = [event for event in self.events if seq_of(event) > self.read_seq][:limit]
        found = content([] if batch is None else [batch])
        assert [seq_of(event) for event in found.events] == [seq_of(event) for event in events]
        self.read_seq = seq_of(events[-1]) if events else self.read_seq
        whole = len(events) < limit
        due = [gap for before, gap in self.gaps[self.gaps_read :] if before < self.read_seq or whole]
        assert [gap for gap in due if gap in found.gaps] == found.gaps
        assert set(due) - set(found.gaps) <= self.perhaps_stored
        self.gaps_read += len(due)

    def forget(self, through_seq: int) -> None:
        self.writer.forget(through_seq)
        self.stored_seq = max(self.stored_seq, through_seq)
        if self.read_seq < self.stored_seq:
            self.read_seq = self.stored_seq
            self.gaps_read = max(self.gaps_read, self.gaps_before(self.stored_seq))

    def gaps_before(self, seq: int) -> int:
        return sum(before < seq for before, _ in self.gaps)

    def go_back(self) -> None:
        """Begin again after what is stored."""
        first = self.gaps_before(self.stored_seq)
        self.perhaps_stored |= {
            gap for before, gap in self.gaps[first : self.gaps_read] if before == self.stored_seq
        }
        self.read_seq, self.gaps_read = self.stored_seq, first


class AnyUse(RuleBasedStateMachine):
    """One process after another writes, reads and forgets; each leaves what it has not forgotten to the next."""

    @initialize()
    def open(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name)
        self.spool = Spool(self.path, limit_bytes=LIMIT_BYTES)
        self.writer_id = self.gap_count = 0
        self.left: list[Model] = []
        self.begin()

    def begin(self) -> None:
        self.writer_id += 1
        self.own = Model(self.spool.begin(self.writer_id, STARTED + self.writer_id))

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
            self.directory.cleanup()

    @rule(count=st.integers(1, 12), step=st.integers(1, 2))
    def write_successes(self, count: int, step: int) -> None:
        for _ in range(count):
            row = success(self.own.last_seq + step)
            at, user_id, seq, duration_us, generation, era, *_, operation, _, _ = row
            self.own.writer.write_success(seq, user_id, at, duration_us or 0, generation, era, operation)
            self.own.add(batch_of(row))

    @rule(makers=st.lists(st.sampled_from(MAKERS), min_size=1, max_size=15), with_gap=st.booleans())
    def write_a_batch(self, makers: list[Maker], with_gap: bool) -> None:
        events = [make(seq) for seq, make in enumerate(makers, self.own.last_seq + 1)]
        self.write(batch_of(*events, gaps=[self.gap()] if with_gap else [], writer_id=self.writer_id))

    @rule()
    def write_a_gap(self) -> None:
        self.write(batch_of(gaps=[self.gap()], writer_id=self.writer_id))

    def gap(self) -> Gap:
        self.gap_count += 1
        return GAP._replace(unknown=self.gap_count)

    def write(self, batch: Batch) -> None:
        self.own.writer.write(batch)
        self.own.add(batch)

    @rule(limit=st.integers(1, 10))
    def read(self, limit: int) -> None:
        self.own.read(limit)

    @precondition(lambda self: self.own.read_seq > self.own.stored_seq)
    @rule(data=st.data())
    def store_what_was_read(self, data: st.DataObject) -> None:
        self.own.forget(data.draw(st.integers(self.own.stored_seq, self.own.read_seq)))

    @rule()
    def store_everything_from_memory(self) -> None:
        self.own.forget(self.own.last_seq)

    @precondition(lambda self: self.own.read_seq > self.own.stored_seq)
    @rule(limit=st.integers(1, 10))
    def send_again(self, limit: int) -> None:
        self.own.go_back()
        self.own.read(limit)

    @precondition(lambda self: self.left)
    @rule(limit=st.integers(1, 10), is_stored=st.booleans())
    def deliver_what_was_left(self, limit: int, is_stored: bool) -> None:
        self.left[0].read(limit)
        if is_stored:
            self.left[0].forget(self.left[0].read_seq)

    @precondition(lambda self: self.left and self.left[0].read_seq > self.left[0].stored_seq)
    @rule(limit=st.integers(1, 10))
    def send_what_was_left_again(self, limit: int) -> None:
        self.left[0].go_back()
        self.left[0].read(limit)

    @precondition(lambda self: self.left)
    @rule()
    def remove_what_was_left(self) -> None:
        self.left.pop(0).writer.remove()

    @rule()
    def die(self) -> None:
        """Have another process take over."""
        models = [*self.left, self.own]
        self.spool.close()
        self.spool = Spool(self.path, limit_bytes=LIMIT_BYTES)
        writers = {writer.writer_id: writer for writer in self.spool.leftovers()}
        self.left = []
        for model in models:
            model.go_back()
            writer = writers.pop(model.writer.writer_id, None)
            if writer is not None:
                model.writer = writer
                self.left.append(model)
            else:
                assert model.last_seq <= model.stored_seq
                assert {gap for _, gap in model.gaps[model.gaps_read :]} <= model.perhaps_stored
        assert not writers
        self.begin()

    @invariant()
    def the_room_that_is_used_is_that_of_the_files(self) -> None:
        assert self.spool.used_bytes == sum(path.stat().st_size for path in spool_files(self.path))

    @invariant()
    def nothing_is_taken_for_damage(self) -> None:
        assert all(model.writer.damaged == [] for model in [self.own, *self.left])


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(max_examples=30 * DEPTH, stateful_step_count=40, deadline=None)
