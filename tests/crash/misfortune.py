"""Processes, their log and what may become of them: a machine for hypothesis, with a model of what must hold."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from breaker_store import (
    BreakerStore,
    CircuitBreakerOpenError,
    CircuitBreakerRegistry,
    LogUnavailableError,
    NotCommittedError,
    Policy,
)
from breaker_store.core.events import Kind, Outcome, Transition
from breaker_store.core.rebuild import rebuild
from breaker_store.core.state import BreakerState
from breaker_store.settings import Durability
from breaker_store.spool import Spool
from tests.crash.history import History, Told, count_refusals
from tests.crash.stored import left_files
from tests.crash.world import WeatheredLog, World

POLICY = Policy(failure_threshold=2, timeout_seconds=0.05, success_threshold=1)
USERS = st.integers(1, 3)
QUEUE_LIMIT = 100_000

# From less than a question takes to longer than anybody's patience.
CALLS_SECONDS = st.sampled_from([0.0, 0.0, 0.004, 0.1])
SPANS_SECONDS = st.sampled_from([0.0005, 0.003, 0.03, 0.3, 6.0, 40.0])


class SickError(Exception):
    """What a sick service brings about."""


@dataclass
class Process:
    """One life of the program: a store as `BreakerStore.open` makes it, on the world's log.

    Attributes:
        running: calls that have not returned.
        was_surprised: whether a predecessor's events came after the start; it does not hear of those that are no
            transitions.

    """

    store: BreakerStore
    spool: Spool
    running: set[asyncio.Task[None]] = field(default_factory=set)
    history: History = field(default_factory=History)
    was_surprised: bool = False

    @classmethod
    def on(cls, world: World, directory: Path, durability: Durability) -> Process:
        registry = CircuitBreakerRegistry(policy=POLICY, clock=world.clock)
        spool = Spool(directory)
        log = WeatheredLog(world)
        return cls(
            BreakerStore(registry, log, spool=spool, durability=durability, queue_limit=QUEUE_LIMIT), spool
        )

    def states(self) -> dict[int, BreakerState]:
        """Give what a rebuild can know of each breaker."""
        return {
            breaker.user_id or 0: breaker.state.without_calls_in_flight() for breaker in self.store.registry
        }


class AnyMisfortune(RuleBasedStateMachine):
    """Calls, outages and crashes in any order, with a log and a spool directory that outlive the processes.

    Attributes:
        durability: the store's.
        others: what some calls have instead.

    """

    durability: ClassVar[Durability]
    others: ClassVar[tuple[Durability, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="breaker-store-machine-")
        self._spool_dir = Path(self._folder.name, "spool")
        self._world = World()
        self._past: list[Process] = []
        self._process: Process | None = None
        self._calls = 0
        self._known: dict[int, BreakerState] = {}

    # What bots do.

    @precondition(lambda self: self._process is not None)
    @rule(user_id=USERS, succeeds=st.booleans(), seconds=CALLS_SECONDS, choice=st.integers(0, 3))
    def call(self, user_id: int, succeeds: bool, seconds: float, choice: int = 0) -> None:
        process = self._process
        durability = (self.durability, *self.others)[choice % (1 + len(self.others))]
        call = self._world.create_task(self._call(process, user_id, durability, succeeds, seconds))
        process.running.add(call)
        call.add_done_callback(process.running.discard)
        self._world.run(asyncio.sleep(0))

    @precondition(lambda self: self._process is not None)
    @rule(
        user_id=USERS,
        times=st.sampled_from([3, 30]),
        interval_seconds=st.sampled_from([0.001, 0.007, 0.03]),
    )
    def call_steadily(self, user_id: int, times: int, interval_seconds: float) -> None:
        for number in range(times):
            self.call(user_id, number % 4 > 1, 0.004 if number % 3 else 0.0, number // 5)
            self.wait(interval_seconds)

    @precondition(lambda self: self._process is not None and self._world.weather.is_clear)
    @rule(user_id=USERS)
    def call_until_it_is_stored(self, user_id: int) -> None:
        """Have calls go on at the moment when the log is back: that may be seconds later."""
        batches = self._world.log.batches
        enough = len(batches) + 2
        for number in range(1_000):
            self.call(user_id, number % 4 > 1, 0.0, number // 5)
            self.wait(0.007)
            if len(batches) >= enough:
                break

    async def _call(
        self, process: Process, user_id: int, durability: Durability, succeeds: bool, seconds: float
    ) -> None:
        name: str | None = None
        told_before = 0

        async def answer() -> None:
            nonlocal name, told_before
            await asyncio.sleep(seconds)
            # The name says when the call was over, for this is what events are in the order of.
            self._calls += 1
            name = answer.__name__ = str(self._calls)
            told_before = process.history.end_call(name)
            if not succeeds:
                raise SickError(name)

        breaker = process.store.registry.get_breaker(user_id)
        try:
            await breaker.with_durability(durability).call(answer)
        except NotCommittedError:
            return
        except SickError as error:
            if hasattr(error, "__notes__"):  # that it may not be stored
                return
        except CircuitBreakerOpenError:
            pass
        news = Told(name, user_id if name is None else None, breaker.state.last_transition)
        process.history.tell(news, durability, told_before)

    @rule(seconds=SPANS_SECONDS)
    def wait(self, seconds: float) -> None:
        self._world.run(asyncio.sleep(seconds))

    # What becomes of the log.

    @rule()
    def clear_up(self) -> None:
        weather = self._world.weather
        weather.is_away = weather.is_frozen = False
        weather.answers_to_lose = 0

    @rule(freezes=st.booleans())
    def begin_an_outage(self, freezes: bool) -> None:
        self._world.weather.is_frozen = freezes
        self._world.weather.is_away = not freezes

    @rule(answers=st.integers(1, 2))
    def lose_answers(self, answers: int) -> None:
        self._world.weather.answers_to_lose = answers

    @precondition(lambda self: self._world.weather.under_way)
    @rule()
    def let_late_batches_arrive(self) -> None:
        before = len(self._world.log.batches)
        self._world.run(self._world.let_late_batches_arrive())
        if len(self._world.log.batches) > before:
            self._known = {}
            if self._process is not None:
                self._process.was_surprised = True

    # What becomes of the process.

    @initialize()
    def start_for_the_first_time(self) -> None:
        self.start()

    @precondition(lambda self: self._process is None)
    @rule()
    def start(self) -> None:
        process = Process.on(self._world, self._spool_dir, self.durability)
        try:
            self._world.run(process.store._start())
        except LogUnavailableError:
            process.spool.close()
            return
        self._process = process
        self._compare_states(process.states(), self._fold())
        if self._known:
            self._compare_states(process.states(), self._known)
            self._known = {}

    @precondition(lambda self: self._process is not None)
    @rule()
    def kill(self) -> None:
        process = self._take_process()
        if process.running or process.history.certain_count < len(process.history.told):
            self._known = {}  # some of it may be gone
        # The one thing of it that is not in memory alone: as the kernel does it, its descriptors are closed.
        process.spool.leave_to_parent()
        self._world.end_all_tasks()

    @precondition(lambda self: self._process is not None)
    @rule(drain_seconds=st.sampled_from([0.0, 0.01, 10.0]))
    def end(self, drain_seconds: float) -> None:
        for call in self._process.running:
            call.cancel()
        self.wait(0)
        process = self._take_process()
        process.history.be_certain()
        self._world.run(process.store._stop(drain_seconds))
        process.spool.close()

    def _take_process(self) -> Process:
        process, self._process = self._process, None
        assert process is not None
        self._known = {} if process.was_surprised else process.states()
        self._past.append(process)
        return process

    # What must hold.

    @invariant()
    def nothing_is_stored_twice_or_out_of_order(self) -> None:
        for names in self._stored_by_writer():
            numbers = [int(name) for name in names]
            assert numbers == sorted(set(numbers))

    def teardown(self) -> None:
        try:
            self._come_to_an_end()
        finally:
            self._world.close()
            self._folder.cleanup()

    def _come_to_an_end(self) -> None:
        self.clear_up()
        self.wait(60.0)
        self.let_late_batches_arrive()
        if self._process is None:
            self.start()
        self.end(10.0)
        if self._known:
            self._compare_states(self._known, self._fold())
        self._compare_calls()
        self._compare_refusals()
        self._compare_transitions()
        assert not any(self._world.log.gaps.values())
        assert left_files(self._spool_dir) == []

    def _compare_states(self, these: dict[int, BreakerState], those: dict[int, BreakerState]) -> None:
        assert self._touched(these) == self._touched(those)

    def _touched(self, states: dict[int, BreakerState]) -> dict[int, BreakerState]:
        """Leave out breakers in their first state, and the end of a wait that is over: each loading moves it."""
        now = self._world.clock.now_us()
        return {
            user_id: state if state.remaining_us(now) else replace(state, retry_at=None)
            for user_id, state in states.items()
            if state != BreakerState(POLICY)
        }

    def _compare_calls(self) -> None:
        stored = {name for names in self._stored_by_writer() for name in names}
        for history in self._histories():
            assert history.certain_names <= stored
            missing = sorted(int(name) for name in history.names - stored)
            # What is missing is the last of what happened.
            assert not missing or all(int(name) < missing[0] for name in history.names & stored)
            stored -= history.names | history.waiting
        assert stored == set()

    def _compare_refusals(self) -> None:
        stored: Counter[int] = Counter()
        for user_id, events in self._world.log.events.items():
            stored[user_id] = sum(event.count for event in events if event.kind is Kind.REJECTED)
        certain = sum((count_refusals(history.certain) for history in self._histories()), Counter())
        told = sum((count_refusals(history.told) for history in self._histories()), Counter())
        assert certain <= stored <= told

    def _compare_transitions(self) -> None:
        """What somebody has seen in force is in force: a restart undoes no trip."""
        events = [event for of_user in self._world.log.events.values() for event in of_user]
        won = {event.event_id for event in events if isinstance(event, Transition) and event.position}
        for history in self._histories():
            assert history.certain_transitions <= won

    def _histories(self) -> list[History]:
        return [process.history for process in self._past]

    def _fold(self) -> dict[int, BreakerState]:
        return {
            user_id: rebuild(POLICY, events) for user_id, events in self._world.log.events.items() if events
        }

    def _stored_by_writer(self) -> Iterator[list[str]]:
        """Give the names of the calls that are stored, in the order of their numbers."""
        by_writer: defaultdict[int, list[Outcome]] = defaultdict(list)
        for events in self._world.log.events.values():
            for event in events:
                if isinstance(event, Outcome) and event.kind is not Kind.REJECTED:
                    by_writer[event.event_id.writer_id].append(event)
        for outcomes in by_writer.values():
            outcomes.sort(key=lambda outcome: outcome.event_id)
            yield [outcome.error_message or outcome.operation or "" for outcome in outcomes]
