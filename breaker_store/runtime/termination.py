"""SIGTERM, where nobody else handles it: stores are closed first, then the process ends by the signal as it would."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []
_came = False


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM cancel the current task within this block, and take effect when the last such block has ended.

    A second SIGTERM takes effect at once. Nothing is changed where the signal has another handler already or is ignored,
    nor outside the main thread. A handler that is set within the block takes the place of ours.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) not in {signal.SIG_DFL, _end}:
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
