"""A task that is cancelled at a suspension of one's choice: wherever it awaits, it can be ended there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class CancelsTask:
    """Cancels the task of a name at its n-th suspension, counted from 1; for `loop.set_task_factory`.

    Attributes:
        cancelled: set when that has been done.

    """

    def __init__(self, name: str, suspension: int) -> None:
        self._name = name
        self._suspension = suspension
        self._count = 0
        self.cancelled = asyncio.Event()

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(_Watched(coroutine, self._note_suspension), loop=loop, **options)

    def _note_suspension(self) -> None:
        task = asyncio.current_task()
        if task is None or task.get_name() != self._name:
            return
        self._count += 1
        if self._count == self._suspension:
            task.cancel()
            self.cancelled.set()


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine that tells whenever it has suspended itself."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], note_suspension: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._note_suspension = note_suspension

    def send(self, value: Any) -> Any:
        awaited = self._coroutine.send(value)
        self._note_suspension()
        return awaited

    def throw(self, *error: Any) -> Any:
        awaited = self._coroutine.throw(*error)
        self._note_suspension()
        return awaited

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()
