"""Calls that go on after the function has returned: streams, and contexts that are entered."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from breaker_store import CircuitBreaker, CircuitBreakerOpenError, CircuitState, Kind
from breaker_store.core.events import Outcome
from breaker_store.runtime.clock import ManualClock
from breaker_store.testing import force_state, memory_store
from tests.runtime.driving import USER, NoAnswerError, Recording, fail_times, trip

Stream = Callable[[CircuitBreaker, Callable[..., Any]], AsyncGenerator[Any, Any]]


async def count(to: int = 3) -> AsyncIterator[int]:
    for number in range(to):
        yield number


async def break_down() -> AsyncIterator[int]:
    yield 0
    raise NoAnswerError("no answer")


def by_stream(breaker: CircuitBreaker, func: Callable[..., Any]) -> AsyncGenerator[Any, Any]:
    return breaker.stream(func)


def by_decorator(breaker: CircuitBreaker, func: Callable[..., Any]) -> AsyncGenerator[Any, Any]:
    protected: AsyncGenerator[Any, Any] = breaker(func)()
    return protected


@pytest.fixture(params=[by_stream, by_decorator])
def stream(request: pytest.FixtureRequest) -> Stream:
    chosen: Stream = request.param
    return chosen


async def test_a_stream_that_is_exhausted_is_one_success(recording: Recording, stream: Stream) -> None:
    numbers = []
    async for number in stream(recording.breaker, count):
        recording.clock.advance(1)
        numbers.append(number)
    (event,) = recording.events()
    assert isinstance(event, Outcome)
    assert numbers == [0, 1, 2]
    assert (event.kind, event.operation, event.duration_us) == (Kind.SUCCESS, "count", 3_000_000)


async def test_an_error_in_mid_stream_is_a_failure(recording: Recording, stream: Stream) -> None:
    with pytest.raises(NoAnswerError):
        async for _ in stream(recording.breaker, break_down):
            assert recording.breaker.state.failure_count == 0
    assert recording.kinds() == [Kind.FAILURE]


async def test_a_stream_that_nobody_iterates_is_no_call(recording: Recording, stream: Stream) -> None:
    await trip(recording.breaker)
    recording.events()
    await stream(recording.breaker, count).aclose()
    assert recording.events() == []


async def test_a_stream_is_refused_when_its_first_item_is_asked_for(
    recording: Recording, stream: Stream
) -> None:
    async def refuse_to_begin() -> AsyncIterator[int]:
        pytest.fail("it was called")
        yield 0

    await trip(recording.breaker)
    recording.events()
    answers = stream(recording.breaker, refuse_to_begin)
    assert recording.events() == []
    with pytest.raises(CircuitBreakerOpenError):
        await anext(answers)
    assert recording.kinds() == [Kind.REJECTED]


async def test_a_consumer_who_stops_early_tells_nothing_and_gives_the_slot_back(
    recording: Recording, stream: Stream
) -> None:
    breaker = recording.breaker
    force_state(breaker, "half_open")
    recording.events()
    async with aclosing(stream(breaker, count)) as numbers:
        async for _ in numbers:
            assert len(breaker.state.probes) == 1
            break
    assert (breaker.state.state, breaker.state.probes) == (CircuitState.HALF_OPEN, ())
    assert recording.events() == []


async def test_a_consumer_who_only_leaves_the_loop_gives_the_slot_back_soon(
    recording: Recording, stream: Stream
) -> None:
    """As the event loop ends every generator that nobody holds any more."""
    force_state(recording.breaker, "half_open")
    async for _ in stream(recording.breaker, count):
        break
    for _ in range(5):
        await asyncio.sleep(0)
    assert recording.breaker.state.probes == ()


async def test_what_the_stream_does_when_it_is_closed_early_is_no_failure(
    recording: Recording, stream: Stream
) -> None:
    async def fail_at_its_end() -> AsyncIterator[int]:
        try:
            yield 0
        finally:
            raise NoAnswerError

    answers = stream(recording.breaker, fail_at_its_end)
    await anext(answers)
    with pytest.raises(NoAnswerError):
        await answers.aclose()
    assert recording.events() == []


async def test_the_stream_inside_is_closed_with_the_one_around_it(
    breaker: CircuitBreaker, stream: Stream
) -> None:
    closed = []

    async def open_connection() -> AsyncIterator[int]:
        try:
            yield 0
        finally:
            closed.append(True)

    answers = stream(breaker, open_connection)
    await anext(answers)
    await answers.aclose()
    assert closed == [True]


async def test_a_cancelled_stream_is_no_outcome(recording: Recording, stream: Stream) -> None:
    async def hang() -> AsyncIterator[int]:
        yield 0
        await asyncio.get_running_loop().create_future()

    async def consume() -> None:
        async for _ in stream(recording.breaker, hang):
            begun.set()

    begun = asyncio.Event()
    task = asyncio.create_task(consume())
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recording.events() == []


async def test_what_is_sent_and_thrown_goes_through(recording: Recording, stream: Stream) -> None:
    async def echo() -> AsyncGenerator[str, str]:
        said = yield "ready"
        while said != "bye":
            try:
                said = yield said.upper()
            except NoAnswerError:
                said = "caught"

    answers = stream(recording.breaker, echo)
    assert await anext(answers) == "ready"
    assert await answers.asend("hi") == "HI"
    assert await answers.athrow(NoAnswerError()) == "CAUGHT"
    with pytest.raises(StopAsyncIteration):
        await answers.asend("bye")
    assert recording.kinds() == [Kind.SUCCESS]


async def test_an_error_that_is_thrown_in_and_comes_out_is_judged(
    recording: Recording, stream: Stream
) -> None:
    answers = stream(recording.breaker, count)
    await anext(answers)
    error = NoAnswerError()
    with pytest.raises(NoAnswerError) as caught:
        await answers.athrow(error)
    assert caught.value is error
    assert recording.kinds() == [Kind.FAILURE]


async def test_an_empty_stream_is_a_success(recording: Recording, stream: Stream) -> None:
    async def say_nothing() -> AsyncIterator[int]:
        if recording.clock is None:
            yield 0

    assert [number async for number in stream(recording.breaker, say_nothing)] == []
    assert recording.kinds() == [Kind.SUCCESS]


class Lines:
    """An iterable of somebody's own, which is no generator."""

    def __init__(self, ends_with: type[Exception] = StopAsyncIteration) -> None:
        self._left = [1, 2]
        self._ends_with = ends_with

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        if not self._left:
            raise self._ends_with
        return self._left.pop(0)


async def open_lines() -> Lines:
    return Lines()


@pytest.mark.parametrize("func", [Lines, open_lines])
async def test_anything_that_gives_an_async_iterator_can_be_streamed(
    recording: Recording, func: Callable[[], Lines | Awaitable[Lines]]
) -> None:
    """Also once it is awaited, as the clients of language models give theirs."""
    assert [number async for number in recording.breaker.stream(func)] == [1, 2]
    assert [event.operation for event in recording.events()] == [func.__name__]


async def test_an_iterator_that_takes_no_errors_raises_what_is_thrown_in(recording: Recording) -> None:
    answers = recording.breaker.stream(Lines)
    assert await anext(answers) == 1
    assert await answers.asend("unheard") == 2
    with pytest.raises(NoAnswerError):
        await answers.athrow(NoAnswerError())
    assert recording.kinds() == [Kind.FAILURE]


async def give_one_answer() -> str:
    return "sent"


@pytest.mark.parametrize("func", [give_one_answer, lambda: 42, list])
async def test_what_gives_no_stream_is_a_clear_error_and_gives_its_slot_back(
    recording: Recording, func: Callable[[], Any]
) -> None:
    force_state(recording.breaker, "half_open")
    recording.events()
    with pytest.raises(TypeError, match="no async iterator: `call` is for what gives one answer"):
        await anext(recording.breaker.stream(func))
    assert (recording.breaker.state.probes, recording.events()) == ((), [])


async def test_what_can_not_be_called_can_not_be_streamed_or_entered(breaker: CircuitBreaker) -> None:
    thing: Any = 42
    with pytest.raises(TypeError, match="a function is needed, not 42"):
        breaker.stream(thing)
    with pytest.raises(TypeError, match="a function is needed, not 42"):
        async with breaker.entering(thing):
            pass


async def test_a_decorated_generator_is_a_generator_function(breaker: CircuitBreaker) -> None:
    class Bot:
        @breaker
        async def updates(self, limit: int) -> AsyncIterator[int]:
            """Give what came."""
            for number in range(limit):
                yield number

    assert [number async for number in Bot().updates(2)] == [0, 1]
    assert inspect.isasyncgenfunction(Bot.updates)
    assert (Bot.updates.__name__, Bot.updates.__doc__) == ("updates", "Give what came.")


@asynccontextmanager
async def connect(text: str = "connected") -> AsyncIterator[str]:
    yield text


@asynccontextmanager
async def connect_in_vain() -> AsyncIterator[str]:
    raise NoAnswerError
    yield ""


async def test_a_context_is_one_success_from_its_opening_to_its_end(recording: Recording) -> None:
    async with recording.breaker.entering(connect, text="hi") as value:
        assert (value, recording.events()) == ("hi", [])
        recording.clock.advance(2)
    (event,) = recording.events()
    assert isinstance(event, Outcome)
    assert (event.kind, event.operation, event.duration_us) == (Kind.SUCCESS, "connect", 2_000_000)


async def test_an_error_of_opening_is_a_failure(recording: Recording) -> None:
    with pytest.raises(NoAnswerError):
        async with recording.breaker.entering(connect_in_vain):
            pytest.fail("it was entered")
    assert recording.kinds() == [Kind.FAILURE]


async def test_an_error_that_comes_out_of_the_body_is_judged_and_raised_as_it_is(
    recording: Recording,
) -> None:
    error = NoAnswerError()
    with pytest.raises(NoAnswerError) as caught:
        async with recording.breaker.entering(connect):
            raise error
    assert caught.value is error
    assert recording.kinds() == [Kind.FAILURE]


async def test_an_error_that_the_context_swallows_is_none(recording: Recording) -> None:
    @asynccontextmanager
    async def swallow() -> AsyncIterator[None]:
        with suppress(NoAnswerError):
            yield

    async with recording.breaker.entering(swallow):
        raise NoAnswerError
    assert recording.kinds() == [Kind.SUCCESS]


async def test_a_cancelled_context_gives_its_slot_back(recording: Recording) -> None:
    force_state(recording.breaker, "half_open")
    recording.events()
    with pytest.raises(asyncio.CancelledError):
        async with recording.breaker.entering(connect):
            assert len(recording.breaker.state.probes) == 1
            raise asyncio.CancelledError
    assert (recording.breaker.state.probes, recording.events()) == ((), [])


async def test_a_context_is_refused_when_it_is_entered(recording: Recording) -> None:
    await trip(recording.breaker)
    context = recording.breaker.entering(lambda: pytest.fail("it was called"))
    with pytest.raises(CircuitBreakerOpenError):
        async with context:
            pass


@pytest.mark.parametrize("func", [give_one_answer, lambda: 42])
async def test_what_gives_no_context_is_a_clear_error_and_gives_its_slot_back(
    recording: Recording, func: Callable[[], Any]
) -> None:
    await fail_times(recording.breaker, 1)
    recording.events()
    with pytest.raises(TypeError, match="no async context manager: `call` is for what gives one answer"):
        async with recording.breaker.entering(func):
            pass
    assert (recording.breaker.state.failure_count, recording.events()) == (1, [])


async def test_streams_and_contexts_may_be_more_durable_than_the_stores_calls(clock: ManualClock) -> None:
    async with memory_store(clock=clock) as store:
        breaker = store.registry.get_breaker(USER).with_durability("committed")
        assert [number async for number in breaker.stream(count)] == [0, 1, 2]
        assert len(store.events(USER)) == 1
        assert [number async for number in breaker(count)(1)] == [0]
        assert len(store.events(USER)) == 2
        async with breaker.entering(connect):
            pass
        assert len(store.events(USER)) == 3


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with two parts, the second of which never comes where the path says so."""
    request = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
    await writer.drain()
    if b"/cut" not in request:
        writer.write(b"other")
    writer.close()


@pytest.mark.parametrize(("path", "kind"), [("/whole", Kind.SUCCESS), ("/cut", Kind.FAILURE)])
async def test_the_streamed_body_of_a_real_client_is_part_of_the_call(
    recording: Recording, path: str, kind: Kind
) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    parts = b""
    async with server, httpx.AsyncClient() as client:
        try:
            async with recording.breaker.entering(
                client.stream, "GET", f"http://{host}:{port}{path}"
            ) as response:
                async for part in response.aiter_bytes():
                    parts += part
        except httpx.RemoteProtocolError:
            assert kind is Kind.FAILURE
    assert parts == (b"firstother" if kind is Kind.SUCCESS else b"first")
    (event,) = recording.events()
    assert (event.kind, event.operation) == (kind, "stream")  # type: ignore[union-attr]
