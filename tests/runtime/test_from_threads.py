"""Calls of plain functions from threads: the same rules, decided on the loop of the store."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import signal
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from breaker_store import (
    CircuitBreaker,
    CircuitBreakerOpenError,
    CircuitBreakerRegistry,
    CircuitState,
    Durability,
    Kind,
    LedgerError,
    NotCommittedError,
    Policy,
    Transition,
)
from breaker_store.core.events import Outcome
from breaker_store.core.state import BreakerState
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


async def test_a_call_lasts_no_longer_because_the_loop_was_busy_at_its_end(store: MemoryStore) -> None:
    breaker = store.registry.get_breaker(USER)
    done = threading.Event()

    def work() -> None:
        store.clock.advance(1)
        done.set()

    calling = asyncio.get_running_loop().run_in_executor(None, breaker.call_sync, work)
    done.wait(10)
    time.sleep(0.05)  # noqa: ASYNC251 - the loop is held up, while the thread waits for it
    store.clock.advance(5)
    await calling
    await store.flush()
    (event,) = store.events(USER)
    assert isinstance(event, Outcome)
    assert event.duration_us == 1_000_000


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


@pytest.mark.parametrize("func", [ok, bad])
def test_a_committed_call_that_outlives_the_loop_says_what_it_gave(func: Callable[[], str]) -> None:
    """A program that was cut short, while the log did not answer."""
    caught: list[Exception] = []

    def call(breaker: CircuitBreaker) -> None:
        with pytest.raises((NotCommittedError, NoAnswerError)) as raised:
            breaker.call_sync(func)
        caught.append(raised.value)

    async def main() -> threading.Thread:
        on_its_way = asyncio.Event()

        async def never(_sealed: MemoryBatch) -> list[Fate]:
            on_its_way.set()
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        store = open_for_ever(Durability.COMMITTED)
        store.log.append = never  # type: ignore[method-assign]
        calling = threading.Thread(target=call, args=(store.registry.get_breaker(USER),))
        calling.start()
        await on_its_way.wait()
        return calling

    asyncio.run(main()).join(10)
    (error,) = caught
    if isinstance(error, NotCommittedError):
        assert error.result == "sent"
    else:
        assert error.__notes__ == ["breaker-store: the store's event loop ended before the event was stored"]


def open_for_ever(durability: Durability = Durability.BEHIND) -> MemoryStore:
    """Open a store on the running loop that nobody closes."""
    clock = ManualClock()
    store = MemoryStore(CircuitBreakerRegistry(clock=clock), clock, durability)
    store.registry.surroundings.decisions.move_to(asyncio.get_running_loop())
    store.recorder.start()
    return store


def test_calls_go_on_when_the_loop_was_closed_with_the_store_open() -> None:
    async def main() -> MemoryStore:
        return open_for_ever()

    loop = asyncio.new_event_loop()
    store = loop.run_until_complete(main())
    loop.close()
    breaker = store.registry.get_breaker(USER)
    for _ in range(5):
        with pytest.raises(NoAnswerError):
            breaker.call_sync(bad)
    with pytest.raises(CircuitBreakerOpenError):
        breaker.call_sync(ok)
    with pytest.raises(LedgerError, match="the event loop of the recorder does not run"):
        store.registry.surroundings.decisions.finish(store.flush)


def test_ctrl_c_while_a_call_waits_to_begin_gives_its_slot_back() -> None:
    held, leave = threading.Event(), threading.Event()

    def hold_up() -> None:
        held.set()
        leave.wait(10)

    def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.05)
        leave.set()

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(memory_store()) as store:
        breaker = store.registry.get_breaker(USER)
        portal.call(force_state, breaker, "half_open")
        portal.start_task_soon(hold_up)
        held.wait(10)
        timer = threading.Timer(0.05, interrupt)
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            breaker.call_sync(ok)
        timer.join()
        portal.call(int)  # the loop has come as far
        assert (breaker.state.state, breaker.state.probes) == (CircuitState.HALF_OPEN, ())


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


async def test_after_the_store_was_closed_no_thread_waits_for_its_loop(threads: ThreadPoolExecutor) -> None:
    async with memory_store() as store:
        pass
    assert threads.submit(store.registry.get_breaker(USER).call_sync, ok).result(10) == "sent"


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


def test_a_sleeper_is_seen_by_no_thread_before_it_is_awake(threads: ThreadPoolExecutor) -> None:
    waking, go_on = threading.Event(), threading.Event()
    woken = BreakerState(Policy(failure_threshold=9))

    def wake() -> BreakerState:
        waking.set()
        go_on.wait(10)
        return woken

    def find() -> tuple[CircuitBreaker, BreakerState]:
        breaker = registry.find_breaker(USER)
        assert breaker is not None
        return breaker, breaker.state

    registry = CircuitBreakerRegistry()
    registry.take_over({}, {USER: wake})
    finding = [threads.submit(find)]
    waking.wait(10)
    finding += [threads.submit(find) for _ in range(5)]
    wait(finding, timeout=0.05)
    go_on.set()
    found = {each.result() for each in finding}
    assert [state for _, state in found] == [woken]
    assert len(registry) == 1


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
