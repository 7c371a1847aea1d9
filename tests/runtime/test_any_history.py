"""For any history of calls over the public face: the live state is what the recorded events mean."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from breaker_store import CircuitBreaker, CircuitBreakerOpenError, Policy
from breaker_store.core.commands import Admit, Report
from breaker_store.core.decide import decide
from breaker_store.core.events import CircuitState, EventId, Kind, Outcome, Permit, StoredEvent
from breaker_store.core.rebuild import rebuild
from breaker_store.core.state import BreakerState, evolve
from breaker_store.failures import HTTP
from tests.depth import DEPTH
from tests.runtime.driving import (
    SECOND,
    USER,
    WAYS,
    Call,
    Recording,
    Way,
    begin,
    fail_times,
    read,
    recover,
    succeed,
    trip,
)

policies = st.builds(
    Policy,
    failure_threshold=st.integers(1, 4),
    timeout_seconds=st.sampled_from([0.0, 1.0, 60.0]),
    success_threshold=st.integers(1, 3),
    half_open_max_calls=st.integers(1, 3),
)
ways = st.sampled_from(WAYS)
revoke, hurry = (functools.partial(Call.be_answered, status=status) for status in (401, 429))
endings = st.sampled_from([Call.succeed, Call.fail, Call.fail, Call.cancel, revoke, hurry])
HOUR = 3_600 * SECOND


def timeless(state: BreakerState) -> tuple[object, ...]:
    """Give what a state says apart from times, which the log has on the database's clock."""
    return (
        state.state,
        state.policy,
        state.policy_is_own,
        state.version,
        state.generation,
        state.era,
        state.failure_count,
        state.success_count,
        [failure.event_id for failure in state.failures],
        state.opened_by,
    )


class AnyHistory(RuleBasedStateMachine):
    """Calls begin, overlap and end in any order while two breakers fill one journal, which is cut at any moment."""

    @initialize(policy=policies)
    def begin_to_record(self, policy: Policy) -> None:
        self.loop = asyncio.new_event_loop()
        self.recording = Recording(policy)
        self.recording.registry.surroundings.failures = HTTP
        self.calls: list[Call] = []
        self.refused = 0
        self.stored: dict[int, list[StoredEvent]] = {USER: [], USER + 1: []}
        self.last_seq = self.last_at = 0
        self.only_one_clock = True

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    @rule(user_id=st.sampled_from([USER, USER, USER, USER + 1]), way=ways)
    def begin_a_call(self, user_id: int, way: Way) -> None:
        breaker = self.recording.registry.get_breaker(user_id)
        try:
            self.calls.append(self.run(begin(breaker, way)))
        except CircuitBreakerOpenError:
            self.refused += 1
        else:
            assert len(breaker.state.probes) <= breaker.state.policy.half_open_max_calls

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), ending=endings)
    def end_a_call(self, data: st.DataObject, ending: Any) -> None:
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        self.run(ending(call))

    @rule(way=ways, failures=st.integers(0, 5))
    def make_calls_one_after_another(self, way: Way, failures: int) -> None:
        breaker = self.recording.breaker
        try:
            self.run(fail_times(breaker, failures, way))
            self.run(way(breaker, succeed))  # type: ignore[arg-type]
        except CircuitBreakerOpenError:
            self.refused += 1

    @rule(seconds=st.sampled_from([0.000001, 0.999999, 1, 59.999999, 60]))
    def wait(self, seconds: float) -> None:
        self.recording.clock.advance(seconds)

    @rule()
    def reset(self) -> None:
        self.recording.breaker.reset()

    @rule(policy=policies)
    def change_policy(self, policy: Policy) -> None:
        self.recording.registry.set_policy(USER, policy)

    @precondition(lambda self: self.recording.journal.pending)
    @rule(limit=st.integers(1, 20), correction=st.sampled_from([0, 0, 0, 0, 0, -HOUR, HOUR]))
    def cut(self, limit: int, correction: int) -> None:
        self.only_one_clock &= correction == 0
        batch = self.recording.cut(correction, limit)
        events = read(batch)
        numbers = [event.event_id.writer_seq for event in events]
        assert numbers == list(range(self.last_seq + 1, self.last_seq + 1 + len(events)))
        assert (batch.first_seq, batch.last_seq) == (numbers[0], numbers[-1])
        times = [self.last_at, *(event.at for event in events)]
        assert times == sorted(times)
        self.last_seq, self.last_at = numbers[-1], times[-1]
        users = {row[2]: row[1] for row in batch.outcomes}
        users |= {each.transition.event_id.writer_seq: each.user_id for each in batch.transitions}
        for event in events:
            self.stored[users[event.event_id.writer_seq]].append(event)

    @invariant()
    def live_state_is_what_the_recorded_events_mean(self) -> None:
        if not hasattr(self, "recording") or self.recording.journal.pending:
            return
        for user_id, events in self.stored.items():
            live = self.recording.registry.get_breaker(user_id).state.without_calls_in_flight()
            rebuilt = rebuild(self.recording.registry.policy, events)
            assert timeless(rebuilt) == timeless(live)
            assert rebuilt == live or not self.only_one_clock

    def teardown(self) -> None:
        if not hasattr(self, "recording"):
            return
        while self.recording.journal.pending:
            self.cut(1_000_000, 0)
            self.live_state_is_what_the_recorded_events_mean()
        rejected = [event for event in self.all_outcomes() if event.kind is Kind.REJECTED]
        assert sum(event.count or 0 for event in rejected) == self.refused
        for call in self.calls:
            self.run(call.cancel())
        assert self.recording.registry.surroundings.blocks == {}
        self.loop.close()

    def all_outcomes(self) -> list[Outcome]:
        return [event for events in self.stored.values() for event in events if isinstance(event, Outcome)]


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=40 * DEPTH, stateful_step_count=40, deadline=None)


async def come_to_rest(moment: str) -> Recording:
    """Bring a breaker to a calm state, in one of the ways that there are."""
    recording = Recording()
    breaker = recording.breaker
    if moment == "after a success":
        await fail_times(breaker, 3)
        await breaker.call(succeed)
    elif moment == "after a recovery":
        await recover(breaker, recording.clock)
    elif moment == "after a reset":
        await trip(breaker)
        breaker.reset()
    elif moment == "under a policy of its own":
        breaker.set_policy(Policy(failure_threshold=1))
    recording.events()
    return recording


@pytest.mark.parametrize(
    "moment",
    ["at first", "after a success", "after a recovery", "after a reset", "under a policy of its own"],
)
async def test_a_success_of_a_calm_breaker_is_recorded_as_it_would_be_decided(moment: str) -> None:
    """Such calls pass by `decide`, which would decide nothing else."""
    recording = await come_to_rest(moment)
    state = recording.breaker.state
    assert state.calm
    report = Report(
        at=recording.clock.now_us(),
        event_id=recording.journal.next_id(),
        era=1,
        kind=Kind.SUCCESS,
        permit=Permit(state.generation, state.era),
        duration_us=0,
        operation="succeed",
    )
    decided = decide(state, report)
    assert evolve(state, decided[0]) is state

    await recording.breaker.call(succeed)

    assert recording.breaker.state is state
    assert recording.events() == list(decided)


async def test_a_refusal_of_a_breaker_that_waits_is_recorded_as_it_would_be_decided() -> None:
    recording = Recording()
    await trip(recording.breaker)
    recording.events()
    state = recording.breaker.state
    admit = Admit(recording.clock.now_us(), recording.journal.next_id(), 1)
    (decided,) = decide(state, admit)
    assert evolve(state, decided) is state

    with pytest.raises(CircuitBreakerOpenError):
        await recording.breaker.call(succeed)

    assert recording.breaker.state is state
    (recorded,) = recording.events()
    assert isinstance(decided, Outcome)
    assert isinstance(recorded, Outcome)
    assert (recorded.kind, recorded.event_id, recorded.at, recorded.permit, recorded.count) == (
        decided.kind, decided.event_id, decided.at, decided.permit, decided.count,
    )  # fmt: skip


async def test_a_breaker_that_waits_for_a_release_refuses_for_ever_and_says_so() -> None:
    recording = Recording()
    forced = BreakerState(Policy(), state=CircuitState.OPEN, opened_by=EventId(7, 1), opened_at=1)
    breaker = CircuitBreaker.of_registry(USER, forced, recording.registry.surroundings)
    recording.clock.advance(10 * 365 * 86_400)
    with pytest.raises(CircuitBreakerOpenError, match="until it is released") as refused:
        await breaker.call(succeed)
    assert refused.value.timeout_remaining is None
    assert breaker.get_state()["timeout_remaining"] == 0.0
