"""What can be called, and what becomes of that which gives nothing to await."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest

from breaker_store import CircuitBreaker
from breaker_store.core.events import CircuitState, Kind
from breaker_store.runtime.clock import ManualClock
from tests.runtime.driving import Recording, fail_times, succeed, trip


async def double(number: int) -> int:
    return 2 * number


class Answer:
    """An awaitable of somebody's own."""

    def __await__(self) -> Generator[Any, None, int]:
        return double(21).__await__()


class Sender:
    async def send(self) -> int:
        return 42

    async def __call__(self) -> int:
        return 42

    @classmethod
    async def send_all(cls) -> int:
        return 42


def give_future() -> asyncio.Future[int]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(42)
    return future


def give_task() -> asyncio.Task[int]:
    return asyncio.create_task(double(21))


async def answer_of_another_loop() -> int:
    return await asyncio.to_thread(lambda: 42)


CALLABLE = [
    (lambda: double(21), "<lambda>"),
    (partial(double, 21), "double"),
    (partial(partial(double), number=21), "double"),
    (give_future, "give_future"),
    (give_task, "give_task"),
    (Answer, "Answer"),
    (Sender().send, "send"),
    (Sender(), None),
    (Sender.send_all, "send_all"),
    (answer_of_another_loop, "answer_of_another_loop"),
]


@pytest.mark.parametrize(("func", "operation"), CALLABLE)
async def test_anything_that_gives_an_awaitable_is_protected(
    recording: Recording, func: Callable[[], Any], operation: str | None
) -> None:
    assert await recording.breaker.call(func) == 42
    assert await recording.breaker(func)() == 42
    assert [(event.kind, event.operation) for event in recording.events()] == [(Kind.SUCCESS, operation)] * 2


async def stream() -> AsyncIterator[int]:
    yield 42


def give_none() -> None:
    pass


NOT_ASYNCHRONOUS = [give_none, lambda: 42, list, partial(print, end=""), lambda: [double(21).close()]]


@pytest.mark.parametrize("func", NOT_ASYNCHRONOUS)
async def test_what_gives_no_awaitable_is_a_clear_error_and_no_outcome(
    recording: Recording, func: Callable[[], Any]
) -> None:
    await fail_times(recording.breaker, 4)
    recording.events()
    for use in (recording.breaker.call(func), recording.breaker(func)()):
        with pytest.raises(
            TypeError, match=r"gave \w+, which can't be awaited: a breaker protects functions"
        ):
            await use
    assert (recording.events(), recording.breaker.state.failure_count) == ([], 4)


@pytest.mark.parametrize(
    ("func", "way"),
    [
        (give_none, "`breaker.call_sync` plain ones"),
        (stream, "`breaker.stream` those that give an async iterator"),
        (lambda: aiter(stream()), "`breaker.stream` those that give an async iterator"),
        (nullcontext, "`breaker.entering` those that give an async context manager"),
    ],
)
async def test_the_error_names_the_way_that_is_meant(
    recording: Recording, func: Callable[[], Any], way: str
) -> None:
    with pytest.raises(TypeError, match=way):
        await recording.breaker.call(func)
    assert recording.events() == []


@pytest.mark.parametrize("thing", [None, 42, "send"])
async def test_what_can_not_be_called_is_a_clear_error_and_no_outcome(
    recording: Recording, thing: Any
) -> None:
    with pytest.raises(TypeError, match="a function is needed, not"):
        await recording.breaker.call(thing)
    assert recording.events() == []


async def test_a_coroutine_in_place_of_its_function_is_a_clear_error(breaker: CircuitBreaker) -> None:
    coroutine = double(21)
    with pytest.raises(TypeError, match="a function is needed, not <coroutine object double"):
        await breaker.call(coroutine)  # type: ignore[arg-type]
    coroutine.close()


@pytest.mark.parametrize("func", [give_none, 42])
async def test_what_was_no_asynchronous_call_gives_its_probes_slot_back(
    breaker: CircuitBreaker, clock: ManualClock, func: Any
) -> None:
    await trip(breaker)
    clock.advance(60)
    with pytest.raises(TypeError):
        await breaker.call(func)
    assert (breaker.state.state, breaker.state.probes) == (CircuitState.HALF_OPEN, ())
    assert await breaker.call(succeed) == "sent"


async def test_type_errors_of_the_function_itself_are_failures(recording: Recording) -> None:
    """Whether they come before there is something to await, or after."""

    def refuse_arguments() -> Any:
        raise TypeError("'int' object can't be awaited, it says")

    async def add() -> Any:
        return 1 + "1"  # type: ignore[operator]

    async def await_what_cannot_be() -> Any:
        return await 42  # type: ignore[misc]

    for func in (refuse_arguments, add, await_what_cannot_be, double):
        with pytest.raises(TypeError):
            await recording.breaker.call(func)
    assert recording.kinds() == [Kind.FAILURE] * 4


async def test_a_coroutine_that_was_awaited_before_is_a_failure_of_the_function(recording: Recording) -> None:
    coroutine = double(21)
    await coroutine
    with pytest.raises(RuntimeError, match="cannot reuse"):
        await recording.breaker.call(lambda: coroutine)
    assert recording.kinds() == [Kind.FAILURE]


class Proxy:
    """A client that makes a method of every name: `client.chat.send`."""

    def __getattr__(self, name: str) -> Proxy:
        return Proxy()

    async def __call__(self) -> int:
        return 42


class Nameless:
    @property
    def __name__(self) -> str:
        raise RuntimeError("it has no name")

    async def __call__(self) -> int:
        return 42


async def test_a_function_whose_name_is_no_text_is_recorded_without_one(recording: Recording) -> None:
    await fail_times(recording.breaker, 1)
    assert await recording.breaker.call(Proxy().chat.send) == 42
    assert [event.operation for event in recording.events()] == ["fail", None]


async def test_a_function_whose_name_is_no_text_is_recorded_without_one_by_a_calm_breaker_too(
    recording: Recording,
) -> None:
    assert await recording.breaker.call(Proxy().chat.send) == 42
    assert [event.operation for event in recording.events()] == [None]


@pytest.mark.parametrize("failures", [0, 1])
async def test_a_function_whose_name_cannot_be_told_gives_its_answer(
    recording: Recording, failures: int
) -> None:
    await fail_times(recording.breaker, failures)
    assert await recording.breaker.call(Nameless()) == 42
    assert recording.events()[-1].operation is None


async def test_the_name_of_a_function_is_clean_where_a_transition_tells_of_it(recording: Recording) -> None:
    async def func() -> None:
        raise ValueError

    func.__name__ = "send\x00\ud800"
    for _ in range(5):
        with pytest.raises(ValueError):
            await recording.breaker.call(func)
    opened = recording.events()[-1]
    assert {cause.operation for cause in opened.causes} == {"send"}
