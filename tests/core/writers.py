"""Processes that part and meet again over one log, without a clock or a database."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from breaker_store.core.commands import Command
from breaker_store.core.decide import decide, permit_of
from breaker_store.core.events import EventId, Outcome, Permit, StoredEvent, Transition
from breaker_store.core.policy import Policy
from breaker_store.core.rebuild import ChainHead, rebuild_from
from breaker_store.core.state import BreakerState, evolve
from tests.core.scenario import head_after

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
