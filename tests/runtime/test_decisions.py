"""Where decisions are made: on the loop while it runs, and without one under a lock; nobody waits in vain."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from functools import partial

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerRegistry, CircuitState
from breaker_store.runtime.decisions import Decisions, LoopEndedError
from tests.runtime.driving import USER, NoAnswerError, Recording


def ok() -> str:
    return "sent"


def bad() -> str:
    raise NoAnswerError("no answer")


def on_this_loop(look_seconds: float = 0.1) -> Decisions:
    decisions = Decisions(look_seconds)
    decisions.move_to(asyncio.get_running_loop())
    return decisions


async def test_a_thread_has_its_decisions_made_on_the_loop() -> None:
    decisions = on_this_loop()
    here = threading.current_thread()
    assert await asyncio.to_thread(decisions.make, threading.current_thread) is here
    assert decisions.make(threading.current_thread) is here


def test_without_a_loop_a_decision_is_made_in_its_thread() -> None:
    assert Decisions().make(threading.current_thread) is threading.current_thread()


async def test_what_a_decision_raises_is_raised_in_the_thread() -> None:
    with pytest.raises(NoAnswerError):
        await asyncio.to_thread(on_this_loop().make, bad)


@pytest.fixture
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def ask(func: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(func()))
    thread.start()
    return thread, answers


def test_a_loop_that_was_closed_is_not_waited_for(loop: asyncio.AbstractEventLoop) -> None:
    decisions = Decisions()
    decisions.move_to(loop)
    loop.close()
    assert decisions.make(ok) == "sent"


async def test_a_loop_that_does_not_answer_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """As one that waits for the very thread that waits for it."""
    thread, answers = ask(partial(on_this_loop(look_seconds=0.001).make, ok))
    thread.join(0.5)
    assert caplog.text.count("a thread waits for the event loop of its store, which does not answer") == 1
    await asyncio.to_thread(thread.join, 10)
    assert answers == ["sent"]


async def test_without_a_store_a_thread_does_not_wait_for_the_loop_that_waits_for_it() -> None:
    """As in a notebook, whose cells run on a loop."""
    thread, answers = ask(partial(CircuitBreaker().call_sync, ok))
    thread.join(10)
    assert answers == ["sent"]


def test_a_question_that_the_loop_ends_over_is_answered_once(loop: asyncio.AbstractEventLoop) -> None:
    """The loop is busy when it is asked, ends without a look at the question, and runs again later."""
    decisions, made = Decisions(), []
    decisions.move_to(loop)
    asked = threading.Event()

    def stop_when_asked() -> None:
        threads.append(ask(lambda: (asked.set(), decisions.make(lambda: made.append(1)))))
        asked.wait(10)
        loop.stop()

    threads: list[tuple[threading.Thread, list[object]]] = []
    loop.call_soon(stop_when_asked)
    loop.run_forever()
    threads[0][0].join(10)
    assert made == [1]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert made == [1]


async def test_a_thread_that_found_no_loop_is_not_answered_beside_the_one_that_comes() -> None:
    """It asks while there is none, has to wait for the lock, and by then decisions are made on a loop."""
    decisions = Decisions()
    with decisions.lock:
        thread, answers = ask(lambda: decisions.make(threading.current_thread))
        await asyncio.sleep(0.05)
        decisions.move_to(asyncio.get_running_loop())
    await asyncio.to_thread(thread.join, 10)
    assert answers == [threading.current_thread()]


def test_what_is_awaited_on_a_loop_that_ends_is_given_up(loop: asyncio.AbstractEventLoop) -> None:
    decisions = Decisions()
    decisions.move_to(loop)
    begun = threading.Event()

    async def wait_for_ever() -> None:
        begun.set()
        loop.stop()
        await loop.create_future()

    def finish() -> str:
        with pytest.raises(LoopEndedError):
            decisions.finish(wait_for_ever)
        return "given up"

    loop.call_soon(lambda: threads.append(ask(finish)))
    threads: list[tuple[threading.Thread, list[object]]] = []
    loop.run_forever()
    threads[0][0].join(10)
    assert threads[0][1] == ["given up"]
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_what_a_loop_cancels_at_its_end_is_given_up() -> None:
    async def main() -> None:
        decisions = on_this_loop()
        begun = asyncio.Event()

        async def wait_for_ever() -> None:
            begun.set()
            await asyncio.get_running_loop().create_future()

        def finish() -> str:
            with pytest.raises(LoopEndedError):
                decisions.finish(wait_for_ever)
            return "given up"

        threads.append(ask(finish))
        await begun.wait()

    threads: list[tuple[threading.Thread, list[object]]] = []
    asyncio.run(main())
    threads[0][0].join(10)
    assert threads[0][1] == ["given up"]


def test_without_a_loop_nothing_can_be_awaited() -> None:
    with pytest.raises(LoopEndedError):
        Decisions().finish(lambda: asyncio.sleep(0))


async def test_a_forked_child_decides_by_itself_though_its_parents_lock_is_held() -> None:
    """Its parent's loop looks as if it ran, and the thread that has the lock is not there to give it back."""
    recording = Recording()
    recording.registry.surroundings.decisions.move_to(asyncio.get_running_loop())
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with recording.registry.surroundings.decisions.lock:
            held.set()
            leave.wait(10)

    holding = asyncio.ensure_future(asyncio.to_thread(hold))
    await asyncio.to_thread(held.wait, 10)
    status = await asyncio.to_thread(fork_and_call, recording.registry)
    leave.set()
    await holding
    assert status == 0
    assert recording.breaker.state.state is CircuitState.CLOSED


def fork_and_call(registry: CircuitBreakerRegistry) -> int:
    child = os.fork()
    if child == 0:
        try:
            breaker = registry.get_breaker(USER)
            assert breaker.call_sync(ok) == "sent"
            for _ in range(5):
                with pytest.raises(NoAnswerError):
                    breaker.call_sync(bad)
            assert breaker.state.state is CircuitState.OPEN
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
