"""Two processes that part and meet again over one log (DESIGN rules 13 and 14)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from breaker_store.core.commands import (
    Abandon,
    Admit,
    CarryOver,
    ChangePolicy,
    ForceOpen,
    Release,
    Report,
    Reset,
    Resume,
    Suspend,
)
from breaker_store.core.events import PERMANENT_REASON, EventId, Kind, Outcome, Transition
from breaker_store.core.policy import MICROSECONDS
from breaker_store.core.rebuild import rebuild
from breaker_store.core.state import BreakerState
from tests.core.scenario import START
from tests.core.writers import DEFAULT, Log, Writer
from tests.depth import DEPTH

Ending = dict[str, Any]

endings: st.SearchStrategy[Ending] = st.sampled_from(
    [
        {"kind": Kind.SUCCESS},
        {"kind": Kind.FAILURE},
        {"kind": Kind.FAILURE},
        {"kind": Kind.FAILURE, "opens_at_once": PERMANENT_REASON},
        {"kind": Kind.SUCCESS, "counts": False},
    ]
)
"""How calls end: an error may open the breaker at once, and an answer may say nothing of the bot."""


class TwoWriters(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.log = Log()
        self.writers = [Writer(1), Writer(2)]
        self.now = START
        self.eras = 0

    def identity(self, writer: Writer) -> tuple[int, EventId, int]:
        self.eras += 1
        return self.now, EventId(writer.writer_id, writer.writer_seq), self.eras

    @rule(index=st.integers(0, 1))
    def admit(self, index: int) -> None:
        writer = self.writers[index]
        permit = writer.run(Admit(*self.identity(writer)))
        if permit is not None:
            writer.in_flight.append(permit)

    @rule(index=st.integers(0, 1), ends=st.lists(endings, max_size=3))
    def call(self, index: int, ends: list[Ending]) -> None:
        writer = self.writers[index]
        for ending in ends:
            permit = writer.run(Admit(*self.identity(writer)))
            if permit is not None:
                writer.run(Report(*self.identity(writer), permit=permit, **ending))

    @rule(index=st.integers(0, 1), ending=st.none() | endings, data=st.data())
    def end_a_call(self, index: int, ending: Ending | None, data: st.DataObject) -> None:
        writer = self.writers[index]
        if writer.in_flight:
            permit = writer.in_flight.pop(data.draw(st.integers(0, len(writer.in_flight) - 1)))
            command = (
                Abandon(permit) if ending is None else Report(*self.identity(writer), permit=permit, **ending)
            )
            writer.run(command)

    @rule(index=st.integers(0, 1))
    def reset(self, index: int) -> None:
        writer = self.writers[index]
        if writer.state.suspension is None:
            writer.run(Reset(*self.identity(writer)))

    @rule(index=st.integers(0, 1), wait_us=st.sampled_from([None, 1, MICROSECONDS]))
    def force_open(self, index: int, wait_us: int | None) -> None:
        writer = self.writers[index]
        until = None if wait_us is None else self.now + wait_us
        if writer.state.suspension is None:
            writer.run(ForceOpen(*self.identity(writer), until))

    @rule(index=st.integers(0, 1))
    def release(self, index: int) -> None:
        writer = self.writers[index]
        if writer.state.suspension is not None:
            writer.run(Resume(*self.identity(writer)))
        elif writer.state.forced:
            writer.run(Release(*self.identity(writer)))

    @rule(index=st.integers(0, 1))
    def suspend(self, index: int) -> None:
        writer = self.writers[index]
        writer.run(Suspend(*self.identity(writer), "ann", "unpaid bill"))

    @rule(index=st.integers(0, 1))
    def carry_over(self, index: int) -> None:
        writer = self.writers[index]
        writer.run(CarryOver(*self.identity(writer)))

    @rule(index=st.integers(0, 1), failure_threshold=st.integers(1, 3))
    def change_policy(self, index: int, failure_threshold: int) -> None:
        writer = self.writers[index]
        at, event_id, _ = self.identity(writer)
        writer.run(ChangePolicy(at, event_id, replace(DEFAULT, failure_threshold=failure_threshold)))

    @rule(step_us=st.sampled_from([1, MICROSECONDS - 1, MICROSECONDS]))
    def wait(self, step_us: int) -> None:
        self.now += step_us

    @rule(index=st.integers(0, 1), count=st.integers(1, 4))
    def flush(self, index: int, count: int) -> None:
        self.writers[index].flush(self.log, count)

    @rule(index=st.integers(0, 1))
    def follow(self, index: int) -> None:
        self.writers[index].follow(self.log)

    @rule()
    def meet(self) -> None:
        """Once both have sent and heard all, both are what the log means."""
        for writer in self.writers:
            writer.flush(self.log, len(writer.queue))
        stored = rebuild(DEFAULT, self.log.stored)
        for writer in self.writers:
            writer.follow(self.log)
            assert chain_part(writer.state) == chain_part(stored)

    @invariant()
    def a_chain_link_was_decided_on_the_link_before_it(self) -> None:
        """What was built on a transition that lost has lost too."""
        before: EventId | None = None
        for version, link in enumerate(self.log.chain, start=1):
            assert link.version == version
            assert self.predecessor(link) == before
            before = link.event_id

    def predecessor(self, link: Transition) -> EventId | None:
        return self.writers[link.event_id.writer_id - 1].predecessors[link.event_id]

    @invariant()
    def outcomes_of_a_lost_era_count_for_nothing(self) -> None:
        lost = {
            (event.generation, event.era)
            for event in self.log.stored
            if isinstance(event, Transition) and event.position is None
        } - {(link.generation, link.era) for link in self.log.chain}
        kept = [
            event
            for event in self.log.stored
            if not (isinstance(event, Outcome) and event.permit[:2] in lost - {(0, 0)})
        ]
        assert rebuild(DEFAULT, kept) == rebuild(DEFAULT, self.log.stored)

    @invariant()
    def the_order_of_arrival_means_nothing(self) -> None:
        assert rebuild(DEFAULT, self.log.stored[::-1]) == rebuild(DEFAULT, self.log.stored)

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.meet()


def chain_part(state: BreakerState) -> tuple[object, ...]:
    """Give what the chain's last transition alone decides."""
    return (
        state.state,
        state.version,
        state.generation,
        state.era,
        state.policy,
        state.policy_is_own,
        state.since,
        state.opened_by,
        state.retry_at,
        state.suspension,
    )


TestTwoWriters = TwoWriters.TestCase
TestTwoWriters.settings = settings(max_examples=50 * DEPTH, stateful_step_count=40, deadline=None)
