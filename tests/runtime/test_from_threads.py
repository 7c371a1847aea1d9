"""Calls of plain functions from threads: the same rules, decided on the loop of the store."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from breaker_store import (
    CircuitBreaker,
    CircuitBreakerOpenError,
    CircuitBreakerRegistry,
    CircuitState,
    Kind,
    NotCommittedError,
    Policy,
    Transition,
)
from breaker_store.core.events import Outcome
from breaker_store.memory import MemoryBatch
from breaker_store.ports import Fate
from breaker_store.runtime.clock import ManualClock
from breaker_store.testing import MemoryStore, force_state, memory_store
from tests.runtime.driving import USER, NoAnswerError, Recording

THREADS = 40


def ok(text: str = "sent") -> str:
    return text


def bad() -> str:
    raise NoAnswerError("no answer")


async def send() -> str:
    return "sent"


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    async with memory_store() as store:
        yield store


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as threads:
        yield threads


@pytest.fixture
def hasty_switches() -> Iterator[None]:
    """Have the interpreter go from thread to thread as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


async def in_threads(threads: ThreadPoolExecutor, func: Callable[[], object], times: int) -> list[Any]:
    """Do the same in many threads at once, and give what each came to, errors as well."""
    gate = threading.Barrier(min(times, THREADS))

    def pass_the_gate() -> object:
        gate.wait(10)
        return func()

    loop = asyncio.get_running_loop()
    running = [loop.run_in_executor(threads, pass_the_gate) for _ in range(times)]
    return await asyncio.gather(*running, return_exceptions=True)


async def kinds(store: MemoryStore) -> Counter[Kind]:
    await store.flush()
    return Counter(event.kind for event in store.events(USER))


async def test_calls_from_many_threads_are_each_recorded_once(
    store: MemoryStore, threads: ThreadPoolExecutor
) -> None:
    call = functools.partial(store.registry.get_breaker(USER).call_sync, ok, "hi")
    answers = await in_threads(threads, call, 400)
    assert answers == ["hi"] * 400
    assert await kinds(store) == {Kind.SUCCESS: 400}
    numbers = [event.event_id.writer_seq for event in store.events(USER)]
    assert numbers == list(range(1, 401))


async def test_a_call_is_recorded_by_name_and_with_the_duration_that_it_had_in_its_thread(
    store: MemoryStore,
) -> None:
    breaker = store.registry.get_breaker(USER)

    def work() -> None:
        store.clock.advance(1.5)

    await asyncio.to_thread(breaker.call_sync, work)
    await store.flush()
    (event,) = store.events(USER)
    assert isinstance(event, Outcome)
    assert (event.operation, event.duration_us) == ("work", 1_500_000)


async def test_failures_from_many_threads_open_the_breaker_once(
    store: MemoryStore, threads: ThreadPoolExecutor
) -> None:
    breaker = store.registry.get_breaker(USER)
    answers = await in_threads(threads, lambda: breaker.call_sync(bad), THREADS)
    assert {type(answer) for answer in answers} <= {NoAnswerError, CircuitBreakerOpenError}
    assert breaker.state.state is CircuitState.OPEN
    failures = sum(isinstance(answer, NoAnswerError) for answer in answers)
    counts = await kinds(store)
    assert (counts[Kind.OPENED], counts[Kind.FAILURE]) == (1, failures)


@pytest.mark.parametrize("with_store", [True, False], ids=["on the loop", "under the lock"])
@pytest.mark.parametrize("probes", [1, 3])
async def test_a_half_open_breaker_admits_so_many_of_many_threads(
    threads: ThreadPoolExecutor, with_store: bool, probes: int
) -> None:
    policy = Policy(half_open_max_calls=probes, success_threshold=10)
    leave = threading.Event()

    async def race(breaker: CircuitBreaker, clock: ManualClock) -> list[Any]:
        force_state(breaker, "open")
        clock.advance(60)
        refused = threading.Semaphore(0)

        def call() -> bool:
            try:
                return breaker.call_sync(leave.wait, 10)
            except CircuitBreakerOpenError:
                refused.release()
                raise

        running = asyncio.ensure_future(in_threads(threads, call, THREADS))
        for _ in range(THREADS - probes):
            await asyncio.to_thread(refused.acquire, timeout=10)
        leave.set()
        return await running

    if with_store:
        async with memory_store(policy=policy) as store:
            answers = await race(store.registry.get_breaker(USER), store.clock)
    else:
        clock = ManualClock()
        answers = await race(CircuitBreaker(policy=policy, clock=clock), clock)
    let_in = [answer for answer in answers if answer is True]
    refused = [answer for answer in answers if isinstance(answer, CircuitBreakerOpenError)]
    assert (len(let_in), len(refused)) == (probes, THREADS - probes)


async def test_calls_from_threads_and_from_the_loop_count_together_without_a_store(
    threads: ThreadPoolExecutor, hasty_switches: None
) -> None:
    """Each failure counts, though both sides change the state."""
    breaker = CircuitBreaker(policy=Policy(failure_threshold=10_000))

    async def fail() -> None:
        raise NoAnswerError

    async def fail_here() -> None:
        for _ in range(400):
            with pytest.raises(NoAnswerError):
                await breaker.call(fail)
            await asyncio.sleep(0)

    await asyncio.gather(fail_here(), in_threads(threads, lambda: breaker.call_sync(bad), 400))
    assert breaker.state.failure_count == 800


async def test_whatever_the_function_raises_is_raised_as_it_is(store: MemoryStore) -> None:
    error = NoAnswerError("no answer")

    def raise_it() -> None:
        raise error

    with pytest.raises(NoAnswerError) as caught:
        await asyncio.to_thread(store.registry.get_breaker(USER).call_sync, raise_it)
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_the_end_of_the_program_is_no_outcome_and_gives_the_slot_back(error: type[BaseException]) -> None:
    recording = Recording()
    force_state(recording.breaker, "half_open")
    recording.events()

    def end() -> None:
        raise error

    with pytest.raises(error):
        recording.breaker.call_sync(end)
    assert (recording.breaker.state.probes, recording.events()) == ((), [])


class AsyncCallable:
    async def __call__(self) -> str:
        return "sent"


async def items() -> AsyncIterator[int]:
    yield 42


def generate() -> Iterator[int]:
    yield 42


def give_coroutine() -> Any:
    return send()


def give_items() -> Any:
    return items()


ASYNCHRONOUS = [send, functools.partial(send), give_coroutine, AsyncCallable(), items, give_items]


@pytest.mark.parametrize("func", ASYNCHRONOUS)
def test_what_is_asynchronous_is_refused_and_gives_its_slot_back(func: Callable[[], Any]) -> None:
    recording = Recording()
    force_state(recording.breaker, "half_open")
    recording.events()
    with pytest.raises(TypeError, match=r"call_sync protects plain functions; `await breaker\.call`"):
        recording.breaker.call_sync(func)
    assert (recording.breaker.state.probes, recording.events()) == ((), [])


@pytest.mark.parametrize(
    ("thing", "message"), [(generate, "a generator function"), (42, "a function is needed, not 42")]
)
def test_what_a_call_would_not_run_is_refused(breaker: CircuitBreaker, thing: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        breaker.call_sync(thing)


def test_a_decorated_plain_function_is_protected() -> None:
    recording = Recording()

    @recording.breaker.sync
    def greet(name: str) -> str:
        """Greet somebody."""
        return f"hello {name}"

    assert greet("Ada") == "hello Ada"
    assert (greet.__name__, greet.__doc__) == ("greet", "Greet somebody.")
    assert [event.operation for event in recording.events()] == ["greet"]


def test_an_async_def_can_not_be_decorated_as_a_plain_function(breaker: CircuitBreaker) -> None:
    with pytest.raises(TypeError, match="is asynchronous"):
        breaker.sync(send)


async def test_on_the_loops_own_thread_a_call_is_decided_right_there(store: MemoryStore) -> None:
    breaker = store.registry.get_breaker(USER)
    assert breaker.call_sync(ok) == "sent"
    with pytest.raises(NoAnswerError):
        breaker.call_sync(bad)
    assert await kinds(store) == {Kind.SUCCESS: 1, Kind.FAILURE: 1}


async def test_a_committed_call_returns_when_its_event_is_stored() -> None:
    async with memory_store(durability="committed") as store:
        breaker = store.registry.get_breaker(USER)
        assert await asyncio.to_thread(breaker.call_sync, ok) == "sent"
        assert len(store.events(USER)) == 1
        with pytest.raises(NoAnswerError):
            await asyncio.to_thread(breaker.with_durability("committed").call_sync, bad)
        assert len(store.events(USER)) == 2


async def test_a_committed_call_on_the_loops_own_thread_is_refused_before_it_is_made() -> None:
    async with memory_store(durability="committed") as store:
        called: list[int] = []
        with pytest.raises(RuntimeError, match="can't wait for itself"):
            store.registry.get_breaker(USER).call_sync(called.append, 1)
        assert called == []


async def test_a_committed_call_that_outlives_the_loop_says_what_it_gave() -> None:
    """A loop that ends with the store open, as in a program that was cut short."""
    results: list[Any] = []

    def live() -> None:
        async def main() -> None:
            store_opening = memory_store(durability="committed")
            store = await store_opening.__aenter__()
            kept.append(store_opening)
            store.log.append = never  # type: ignore[method-assign]
            breaker = store.registry.get_breaker(USER)
            caller.append(threading.Thread(target=call, args=(breaker,)))
            caller[0].start()
            await on_its_way.wait()

        asyncio.run(main())

    async def never(_sealed: MemoryBatch) -> list[Fate]:
        on_its_way.set()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    def call(breaker: CircuitBreaker) -> None:
        try:
            results.append(breaker.call_sync(ok))
        except NotCommittedError as error:
            results.append(error)

    on_its_way = asyncio.Event()
    kept: list[object] = []
    caller: list[threading.Thread] = []
    await asyncio.to_thread(live)
    await asyncio.to_thread(caller[0].join, 10)
    (error,) = results
    assert isinstance(error, NotCommittedError)
    assert error.result == "sent"


async def test_after_the_store_was_closed_calls_go_on_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    async with memory_store() as store:
        breaker = store.registry.get_breaker(USER)
        await asyncio.to_thread(breaker.call_sync, ok)
    for _ in range(5):
        with pytest.raises(NoAnswerError):
            await asyncio.to_thread(breaker.call_sync, bad)
    assert breaker.state.state is CircuitState.OPEN
    assert [event.kind for event in store.events(USER)] == [Kind.SUCCESS]
    assert caplog.text.count("nothing is stored any more") == 1


async def test_a_call_under_way_when_the_store_closes_ends_in_memory() -> None:
    entered, leave = threading.Event(), threading.Event()

    def work() -> str:
        entered.set()
        leave.wait(10)
        return "sent"

    async with memory_store() as closing:
        breaker = closing.registry.get_breaker(USER)
        calling = asyncio.ensure_future(asyncio.to_thread(breaker.call_sync, work))
        await asyncio.to_thread(entered.wait, 10)
    leave.set()
    assert await calling == "sent"


@pytest.mark.parametrize("with_store", [True, False])
async def test_a_listener_hears_on_the_loop_of_what_threads_bring_about(
    store: MemoryStore, with_store: bool
) -> None:
    heard: asyncio.Queue[tuple[Kind, threading.Thread]] = asyncio.Queue()

    async def hear(_user_id: int | None, transition: Transition) -> None:
        heard.put_nowait((transition.kind, threading.current_thread()))

    registry = store.registry if with_store else CircuitBreakerRegistry()
    registry.subscribe(hear)
    breaker = registry.get_breaker(USER)
    for _ in range(5):
        with pytest.raises(NoAnswerError):
            await asyncio.to_thread(breaker.call_sync, bad)
    async with asyncio.timeout(5):
        assert await heard.get() == (Kind.OPENED, threading.current_thread())


async def test_what_the_threads_context_holds_is_seen_where_it_is_decided(store: MemoryStore) -> None:
    """The span of a call is in the context of its thread."""
    trace: contextvars.ContextVar[int] = contextvars.ContextVar("trace")

    class Tracing:
        def trace_id(self) -> int:
            return trace.get()

        def tell_refusal(self, error: CircuitBreakerOpenError) -> None:
            told.append(trace.get())

        def tell_transition(self, user_id: int | None, transition: Transition) -> None:
            told.append(trace.get())

    def call(number: int, func: Callable[[], str]) -> None:
        trace.set(number)
        with pytest.raises((NoAnswerError, CircuitBreakerOpenError)):
            breaker.call_sync(func)

    told: list[int] = []
    store.registry.surroundings.trace(Tracing())
    breaker = store.registry.get_breaker(USER)
    for number in range(1, 7):
        await asyncio.to_thread(contextvars.Context().run, call, number, bad)
    await store.flush()
    traces = [event.trace_id for event in store.events(USER) if isinstance(event, Outcome)]
    assert [each and each.int for each in traces] == [1, 2, 3, 4, 5, None]
    assert told == [5, 6]


async def test_people_may_act_on_a_breaker_from_any_thread(
    store: MemoryStore, threads: ThreadPoolExecutor
) -> None:
    breaker = store.registry.get_breaker(USER)
    await in_threads(threads, lambda: breaker.force_open(actor="ada"), THREADS)
    await in_threads(threads, breaker.reset, THREADS)
    assert await kinds(store) == {Kind.FORCED_OPEN: THREADS, Kind.RESET: THREADS}
    versions = [event.version for event in store.events(USER) if isinstance(event, Transition)]
    assert versions == list(range(1, 2 * THREADS + 1))


async def test_threads_that_ask_at_once_get_one_breaker(
    threads: ThreadPoolExecutor, hasty_switches: None
) -> None:
    registry = CircuitBreakerRegistry()
    found: list[tuple[int, CircuitBreaker]] = []

    def ask() -> None:
        for user_id in range(50):
            found.append((user_id, registry.get_breaker(user_id)))

    assert await in_threads(threads, ask, THREADS) == [None] * THREADS
    assert len(set(found)) == len(registry) == 50


async def test_threads_that_wake_a_sleeper_all_see_it_awake(threads: ThreadPoolExecutor) -> None:
    registry = CircuitBreakerRegistry()
    woken = registry.first_state.__class__(Policy(failure_threshold=9))

    def wake() -> Any:
        time.sleep(0.05)
        return woken

    registry.take_over({}, {USER: wake})
    answers = await in_threads(threads, lambda: registry.find_breaker(USER), THREADS)
    assert len(set(answers)) == 1
    assert answers[0].state is woken


def test_a_call_inside_a_call_of_the_same_breaker_counts_for_itself() -> None:
    recording = Recording()
    assert recording.breaker.call_sync(recording.breaker.call_sync, ok) == "sent"
    assert recording.kinds() == [Kind.SUCCESS] * 2


def test_a_refusal_is_not_kept_alive_by_its_own_frames() -> None:
    """A thread that is refused often leaves nothing for the garbage collector to find."""

    async def main() -> None:
        async with memory_store() as store:
            breaker = store.registry.get_breaker(USER)
            force_state(breaker, "open")

            def refuse() -> weakref.ref[Any]:
                try:
                    breaker.call_sync(ok)
                except CircuitBreakerOpenError as error:
                    return weakref.ref(error)
                raise AssertionError("it was let through")

            gc.disable()
            try:
                reference = await asyncio.to_thread(refuse)
                for _ in range(10):
                    await asyncio.sleep(0.001)
                assert reference() is None
            finally:
                gc.enable()

    asyncio.run(main())
