"""Where the breakers of a registry decide: on the event loop of its store, or, without a store, under one lock.

Breakers are objects of an event loop: between a decision and its taking effect nothing is awaited, and so nothing comes
in between. A thread keeps to that by having its decisions made on the loop, with what its context holds (the span of
its call is looked up there), and by waiting for them. Where there is no store, or its loop runs no more, the lock stands
in for it: a thread that waited for a loop without need would wait for ever where that loop waits for the thread. A
breaker takes the lock as well whenever its state changes, for calls on a loop that is not known here.

A forked child has no loop, and a lock of its own: its parent's may be held by a thread that the child does not have.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

LOOK_SECONDS: Final = 0.1
"""How often a thread that waits for the loop looks whether it still runs."""

PATIENT_LOOKS: Final = 50
"""After how many looks in vain it is said that the loop does not answer."""

logger = logging.getLogger(__name__)


class LoopEndedError(Exception):
    """The event loop ended before it did what was asked of it."""


_everywhere: weakref.WeakSet[Decisions] = weakref.WeakSet()


class Decisions:
    """Makes decisions in their place, whichever thread asks for them.

    Attributes:
        lock: keeps decisions apart that no loop keeps apart; it may be taken again by whoever has it.

    """

    __slots__ = ("__weakref__", "_look_seconds", "_loop", "lock")

    def __init__(self, look_seconds: float = LOOK_SECONDS) -> None:
        self._look_seconds = look_seconds
        self.begin_anew()
        _everywhere.add(self)

    def begin_anew(self) -> None:
        """Have no loop, and a lock that nobody holds."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.lock = threading.RLock()

    def move_to(self, loop: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop | None:
        """Make decisions on this loop from now on, or without one; give the one before."""
        with self.lock:
            before, self._loop = self._loop, loop
        return before

    @property
    def are_made_here(self) -> bool:
        """Whether this is the thread of the loop, while it runs."""
        return self._loop is not None and running_loop() is self._loop

    def make(self, decision: Callable[[], Result]) -> Result:
        """Make a decision, which does not wait, and give what it gives or raise what it raises."""
        while not self.are_made_here:
            loop = self._loop
            answer = None if loop is None else self._ask(loop, decision)
            if answer is not None:
                try:
                    return answer.result()
                finally:
                    del answer  # else an error would keep itself alive, by way of this frame
            with self.lock:
                if self._loop is loop:  # else they have moved meanwhile
                    return decision()
        return decision()

    def finish(self, ending: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Await something where decisions are made; not to be called on the loop, which would wait for itself.

        Raises:
            LoopEndedError: the loop, if there is one, ended before; what was asked may have begun.

        """
        loop = self._loop
        if loop is None or not loop.is_running():
            with self.lock:
                return run_at_once(ending())
        answer: Future[Result] = Future()

        def start() -> None:
            loop.create_task(ending()).add_done_callback(partial(_pass_on, answer))

        _send(loop, start)
        self._wait(loop, answer)
        return answer.result()

    def _ask(self, loop: asyncio.AbstractEventLoop, decision: Callable[[], Result]) -> Future[Result] | None:
        """Have a decision made on a loop; None if it does not run, or ends before."""
        if not loop.is_running():
            return None
        answer: Future[Result] = Future()
        try:
            _send(loop, partial(_decide, answer, decision))
            self._wait(loop, answer, PATIENT_LOOKS)
        except LoopEndedError:
            return None
        return answer

    def _wait(
        self, loop: asyncio.AbstractEventLoop, answer: Future[Any], patient_looks: int | None = None
    ) -> None:
        """Wait for an answer for as long as the loop runs, and withdraw the question when it does not."""
        for looks in itertools.count():
            with suppress(TimeoutError):
                answer.exception(self._look_seconds)
            if answer.done():
                return
            if not loop.is_running() and answer.cancel():
                raise LoopEndedError("the event loop runs no more")
            if looks == patient_looks:
                logger.warning(
                    "a thread waits for the event loop of its store, which does not answer: "
                    "something holds it up, such as a wait for that very thread"
                )


def run_at_once(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that has nothing to wait for.

    Raises:
        LoopEndedError: it does wait for something.

    """
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        result: Result = stopped.value
        return result
    coroutine.close()
    raise LoopEndedError("there is no event loop to wait on")


def _decide(answer: Future[Result], decision: Callable[[], Result]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(decision())
    except Exception as error:  # noqa: BLE001 - it is the waiting thread's
        answer.set_exception(error)
    except BaseException as error:
        answer.set_exception(error)
        raise
    finally:
        del answer  # as above


def _send(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(callback, context=copy_context())
    except RuntimeError as error:
        raise LoopEndedError(str(error)) from error


def _pass_on(answer: Future[Any], task: asyncio.Task[Any]) -> None:
    if not answer.set_running_or_notify_cancel():
        task.cancelled() or task.exception()  # nobody asks any more
    elif task.cancelled():
        answer.set_exception(LoopEndedError("the event loop is ending"))
    elif (error := task.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(task.result())


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Give the event loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _begin_anew_after_fork() -> None:
    for decisions in list(_everywhere):
        decisions.begin_anew()


os.register_at_fork(after_in_child=_begin_anew_after_fork)
