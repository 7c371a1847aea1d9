"""Call, `async with` and decorator: that they record the same, and what is particular to each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerOpenError
from breaker_store.core.events import CircuitState, Kind
from breaker_store.runtime.clock import ManualClock
from tests.runtime.driving import (
    WAYS,
    Call,
    NoAnswerError,
    Recording,
    Way,
    begin,
    by_block,
    fail,
    fail_times,
    half_open,
    succeed,
    trip,
)


async def live_a_life(recording: Recording, way: Way) -> None:
    """Go through every state, with late, cancelled and refused calls."""
    breaker, clock = recording.breaker, recording.clock
    await way(breaker, succeed)
    late = await begin(breaker, way)
    await fail_times(breaker, 5, way)
    with pytest.raises(CircuitBreakerOpenError):
        await way(breaker, succeed)
    clock.advance(60)
    probe = await begin(breaker, way)
    with pytest.raises(CircuitBreakerOpenError):
        await way(breaker, succeed)
    await probe.cancel()
    clock.advance(0.25)
    await late.fail()
    await way(breaker, succeed)
    await way(breaker, succeed)
    await way(breaker, succeed)


async def test_all_ways_record_the_same() -> None:
    lives = []
    for each in WAYS:
        recording = Recording()
        await live_a_life(recording, each)
        lives.append(
            [
                (event.kind, event.at, event.event_id.writer_seq, getattr(event, "verdict", None))
                for event in recording.events()
            ]
        )
    assert lives[0] == lives[1] == lives[2]
    kinds = [kind for kind, *_ in lives[0]]
    assert kinds[-3:] == [Kind.SUCCESS, Kind.CLOSED, Kind.SUCCESS]
    assert len(kinds) == 15


async def test_a_call_and_a_decorated_function_are_recorded_by_name(recording: Recording) -> None:
    await recording.breaker.call(succeed)
    await recording.breaker(succeed)()
    with pytest.raises(NoAnswerError):
        await recording.breaker.call(fail)
    async with recording.breaker:
        pass
    assert [event.operation for event in recording.events()] == ["succeed", "succeed", "fail", None]


async def test_a_call_is_recorded_with_its_duration(recording: Recording, way: Way) -> None:
    for ending in (Call.succeed, Call.fail):
        call = await begin(recording.breaker, way)
        recording.clock.advance(1.5)
        await ending(call)
    assert [event.duration_us for event in recording.events()] == [1_500_000, 1_500_000]


async def test_arguments_go_through_whatever_they_are_called(breaker: CircuitBreaker) -> None:
    async def func(*args: object, **kwargs: object) -> object:
        return args, kwargs

    expected = ((1,), {"self": 2, "func": 3, "args": 4, "breaker": 5})
    assert await breaker.call(func, 1, self=2, func=3, args=4, breaker=5) == expected
    assert await breaker(func)(1, self=2, func=3, args=4, breaker=5) == expected


async def test_a_decorated_method_is_a_method(breaker: CircuitBreaker) -> None:
    class Bot:
        name = "Ada"

        @breaker
        async def greet(self, other: str) -> str:
            """Greet somebody."""
            return f"{self.name} greets {other}"

    assert await Bot().greet("Bob") == "Ada greets Bob"
    assert (Bot.greet.__name__, Bot.greet.__doc__) == ("greet", "Greet somebody.")
    assert asyncio.iscoroutinefunction(Bot.greet)


async def test_a_block_gives_the_breaker(breaker: CircuitBreaker) -> None:
    async with breaker as given:
        assert given is breaker


async def test_tasks_that_share_a_breaker_do_not_mix_up_their_blocks(recording: Recording) -> None:
    """They leave in another order than they came; each is recorded with its own duration."""
    calls = []
    for _ in range(50):
        calls.append(await begin(recording.breaker, by_block))
        recording.clock.advance(1)
    for call in calls[::-2] + calls[::2]:
        await call.succeed()
    durations = [event.duration_us for event in recording.events()]
    order = list(range(50))
    assert durations == [(50 - number) * 1_000_000 for number in order[::-2] + order[::2]]
    assert recording.registry.surroundings.blocks == {}


async def test_a_block_inside_a_block_of_the_same_breaker_leaves_the_inner_one_first(
    recording: Recording,
) -> None:
    async with recording.breaker:
        recording.clock.advance(1)
        with pytest.raises(NoAnswerError):
            async with recording.breaker:
                recording.clock.advance(1)
                await fail()
        recording.clock.advance(1)
    events = recording.events()
    assert [event.kind for event in events] == [Kind.FAILURE, Kind.SUCCESS]
    assert [event.duration_us for event in events] == [1_000_000, 3_000_000]
    assert recording.registry.surroundings.blocks == {}


async def test_blocks_of_two_breakers_in_one_task_do_not_mix(recording: Recording) -> None:
    other = recording.registry.get_breaker(102)
    async with recording.breaker:
        await fail_times(other, 4)
        async with other, recording.breaker:
            pass
    assert (other.state.failure_count, recording.registry.surroundings.blocks) == (0, {})


async def test_a_refused_block_leaves_nothing_behind(recording: Recording) -> None:
    await trip(recording.breaker)
    with pytest.raises(CircuitBreakerOpenError):
        async with recording.breaker:
            pytest.fail("it was let in")
    assert recording.registry.surroundings.blocks == {}


async def test_a_cancelled_block_leaves_nothing_behind(recording: Recording) -> None:
    probe = await half_open(recording.breaker, recording.clock, by_block)
    await probe.cancel()
    assert recording.registry.surroundings.blocks == {}
    assert recording.breaker.state.probes == ()


async def test_a_block_may_be_entered_through_an_exit_stack(recording: Recording) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(recording.breaker)
    assert recording.kinds() == [Kind.SUCCESS] * 3


async def test_a_block_that_another_task_leaves_gives_its_slot_back(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """So end the blocks of an asynchronous generator that its consumer leaves early."""

    async def stream() -> AsyncIterator[str]:
        async with breaker:
            yield "first"

    answers = stream()
    await trip(breaker)
    clock.advance(60)
    assert await asyncio.create_task(anext(answers)) == "first"  # type: ignore[arg-type]
    await answers.aclose()  # type: ignore[attr-defined]
    assert (breaker.state.state, breaker.state.probes) == (CircuitState.HALF_OPEN, ())


async def test_a_call_inside_a_call_of_the_same_breaker_counts_for_itself(
    recording: Recording, way: Way
) -> None:
    breaker = recording.breaker

    async def outer() -> object:
        with pytest.raises(NoAnswerError):
            await way(breaker, fail)
        return await way(breaker, succeed)

    assert await way(breaker, outer) == "sent"
    assert recording.kinds() == [Kind.FAILURE, Kind.SUCCESS, Kind.SUCCESS]
    assert breaker.state.failure_count == 0


async def test_a_call_inside_a_probe_of_the_same_breaker_is_refused_and_the_probe_counts_as_nothing(
    breaker: CircuitBreaker, clock: ManualClock, way: Way
) -> None:
    await trip(breaker)
    clock.advance(60)
    with pytest.raises(CircuitBreakerOpenError):
        await way(breaker, lambda: way(breaker, succeed))
    assert (breaker.state.state, breaker.state.probes) == (CircuitState.HALF_OPEN, ())


async def test_calls_inside_a_call_that_open_the_breaker_leave_the_outer_one_late(
    breaker: CircuitBreaker, way: Way
) -> None:
    async def outer() -> None:
        await fail_times(breaker, 5, way)

    await way(breaker, outer)
    assert breaker.state.state is CircuitState.OPEN


async def test_a_function_may_reset_the_breaker_that_calls_it(breaker: CircuitBreaker, way: Way) -> None:
    async def reset_and_fail() -> None:
        breaker.reset()
        await fail()

    with pytest.raises(NoAnswerError):
        await way(breaker, reset_and_fail)
    assert breaker.state.failure_count == 0
