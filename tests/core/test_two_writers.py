"""Two processes that part and meet again over one log (DESIGN rules 13 and 14)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from breaker_store.core.decide import Abandon, Admit, ChangePolicy, Command, Report, Reset, decide, permit_of
from breaker_store.core.events import EventId, Kind, Outcome, Permit, StoredEvent, Transition
from breaker_store.core.policy import MICROSECONDS, Policy
from breaker_store.core.rebuild import ChainHead, rebuild, rebuild_from
from breaker_store.core.state import BreakerState, evolve
from tests.core.scenario import START, head_after

DEFAULT = Policy(failure_threshold=2, timeout_seconds=1, success_threshold=1, half_open_max_calls=2)


@dataclass
class Log:
    """The shared log: what is stored, and the compare-and-set that makes a chain of the transitions that win."""

    stored: list[StoredEvent] = field(default_factory=list)
    head: ChainHead = field(default_factory=ChainHead)

    def append(self, event: StoredEvent) -> bool:
        """Store an event for ever; tell whether it won, if it is a transition that had to."""
        won = isinstance(event, Transition) and self.head.admits(event)
        if isinstance(event, Transition) and won:
            self.head = head_after(event)
            event = replace(event, position=len(self.chain) + 1)
        self.stored.append(event)
        return won or isinstance(event, Outcome)

    @property
    def chain(self) -> list[Transition]:
        return [
            event for event in self.stored if isinstance(event, Transition) and event.position is not None
        ]

    @property
    def outcomes(self) -> list[Outcome]:
        return [event for event in self.stored if isinstance(event, Outcome)]


@dataclass
class Writer:
    """A process: its live state, the events it has not sent yet, and the calls that run in it."""

    writer_id: int
    state: BreakerState = field(default_factory=lambda: BreakerState(DEFAULT))
    queue: list[StoredEvent] = field(default_factory=list)
    in_flight: list[Permit] = field(default_factory=list)
    writer_seq: int = 1
    built_on: EventId | None = None
    """The transition that the live state comes from."""
    predecessors: dict[EventId, EventId | None] = field(default_factory=dict)

    def run(self, command: Command) -> Permit | None:
        events = decide(self.state, command)
        for event in events:
            if isinstance(event, Outcome | Transition):
                self.writer_seq += 1
                self.queue.append(event)
            if isinstance(event, Transition):
                self.predecessors[event.event_id] = self.built_on
                self.built_on = event.event_id
            self.state = evolve(self.state, event)
        return permit_of(self.state, events)

    def take_on(self, log: Log) -> None:
        """Start again from what is stored, together with its own outcomes that are not stored yet."""
        last = log.chain[-1] if log.chain else None
        unsent = [event for event in self.queue if isinstance(event, Outcome)]
        self.state = rebuild_from(DEFAULT, [] if last is None else [last], [*log.outcomes, *unsent])
        self.built_on = last.event_id if last else None

    def flush(self, log: Log, count: int) -> None:
        """Send the first events of the queue; take on what is stored if one of them lost."""
        batch, self.queue = self.queue[:count], self.queue[count:]
        results = [log.append(event) for event in batch]
        if not all(results):
            self.take_on(log)

    def follow(self, log: Log) -> None:
        """Hear of the chain's transitions, again of those that are known."""
        for transition in log.chain:
            before = self.state
            self.state = evolve(before, transition)
            if self.state is not before:
                self.built_on = transition.event_id


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

    @rule(index=st.integers(0, 1), kinds=st.lists(st.sampled_from([Kind.SUCCESS, Kind.FAILURE]), max_size=3))
    def call(self, index: int, kinds: list[Kind]) -> None:
        writer = self.writers[index]
        for kind in kinds:
            permit = writer.run(Admit(*self.identity(writer)))
            if permit is not None:
                writer.run(Report(*self.identity(writer), kind, permit))

    @rule(index=st.integers(0, 1), kind=st.sampled_from([Kind.SUCCESS, Kind.FAILURE, None]), data=st.data())
    def end_a_call(self, index: int, kind: Kind | None, data: st.DataObject) -> None:
        writer = self.writers[index]
        if writer.in_flight:
            permit = writer.in_flight.pop(data.draw(st.integers(0, len(writer.in_flight) - 1)))
            command = Abandon(permit) if kind is None else Report(*self.identity(writer), kind, permit)
            writer.run(command)

    @rule(index=st.integers(0, 1))
    def reset(self, index: int) -> None:
        writer = self.writers[index]
        writer.run(Reset(*self.identity(writer)))

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
    )


TestTwoWriters = TwoWriters.TestCase
TestTwoWriters.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
