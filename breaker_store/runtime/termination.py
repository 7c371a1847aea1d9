"""SIGTERM and Ctrl-C, where nobody else handles them: stores are closed first, then the process ends as it would."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

AGAIN_SECONDS: Final = 0.01

_waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []
_came = False


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM cancel the current task within this block, and take effect when the last such block has ended.

    A second SIGTERM takes effect at once. Nothing is changed where the signal has another handler already or is ignored,
    nor outside the main thread. A handler that is set within the block takes the place of ours.
    """
    if not _is_main_thread() or signal.getsignal(signal.SIGTERM) not in {signal.SIG_DFL, _end}:
        yield
        return
    me = (asyncio.get_running_loop(), asyncio.current_task())
    _waiting.append(me)
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        _waiting.remove(me)
        if not _waiting:
            _give_back()


def _end(_number: int, _frame: FrameType | None) -> None:
    global _came  # noqa: PLW0603 - a process has one SIGTERM
    if _came:
        _give_back()
        return
    _came = True
    for loop, task in _waiting:
        if task is not None:
            loop.call_soon_threadsafe(task.cancel)


def _give_back() -> None:
    """Undo what was done to the signal, and let it take effect if it came."""
    global _came  # noqa: PLW0603
    if signal.getsignal(signal.SIGTERM) is _end:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if _came:
        _came = False
        signal.raise_signal(signal.SIGTERM)


@contextmanager
def exit_at_sigterm() -> Iterator[Callable[[], None]]:
    """Have SIGTERM raise `SystemExit` within this block, and take effect when the block has ended.

    Gives what to call when the block is about to end by itself: from then on the signal lets it end. A second SIGTERM
    takes effect at once. Nothing is changed where `ended_by_sigterm` would change nothing. A block that another thread
    ends leaves its handler there, for only the main thread may change that: it then does as if there were none.
    """
    is_ending = came = has_ended = False

    def end() -> None:
        nonlocal is_ending
        is_ending = True

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came or has_ended:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        if not is_ending and _is_in_finalizer(frame):
            # What is raised there is passed over: let the signal come again when that is done.
            threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()
            return
        came = True
        if not is_ending:
            end()
            raise SystemExit(128 + number)

    if not _is_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield end
        return
    signal.signal(signal.SIGTERM, hear)
    try:
        yield end
    finally:
        has_ended = True
        if _is_main_thread() and signal.getsignal(signal.SIGTERM) is hear:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if came:
            signal.raise_signal(signal.SIGTERM)


@contextmanager
def ctrl_c_waits(*, is_second: bool = False) -> Iterator[None]:
    """Have Ctrl-C take effect when this block has ended, and a second one at once; `is_second` says that there was one.

    Nothing is changed where somebody else handles it, nor outside the main thread.
    """
    is_ours = _is_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_second or not is_ours:
        yield
        return
    came = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            signal.default_int_handler(number, frame)
        came = True

    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is hear:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if came:
            signal.raise_signal(signal.SIGINT)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _is_in_finalizer(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None
