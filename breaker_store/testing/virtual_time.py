"""An event loop whose clock jumps to the next timer instead of waiting for it: limits and pauses tested at once."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from breaker_store.runtime.clock import ManualClock as FakeClock

_TURN_SECONDS = 1e-9


class _JumpingSelector(selectors.DefaultSelector):
    """Lets time pass where it would have to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready: list[Any] = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits, and nothing is going to happen")
        # A turn of the loop takes some time too: whoever rounds a time down would else never get there.
        self.passed += _TURN_SECONDS if ready else max(_TURN_SECONDS, timeout or 0.0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on which no waiting takes any time: its clock jumps to the next timer when nobody is ready.

    What is waited for must be on the loop: for a thread, a process or a socket nothing is waited, so `asyncio.to_thread`
    and clients of real servers don't go together with it. Where everybody waits for what no timer brings, it raises
    RuntimeError.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return 1_000.0 + self._jumping.passed


class VirtualClock(FakeClock):
    """A clock that goes with such a loop, so that a breaker's wait passes too; it can be told to go on besides."""

    __slots__ = ()

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        begun, told_ns = loop.time(), self.monotonic_ns
        self.monotonic_ns = lambda: told_ns() + round((loop.time() - begun) * 1_000_000_000)


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Have a test run on a loop of its own, on which no waiting takes any time.

    The clock of a `memory_store` that is opened in it goes with the loop's. One of an async fixture is of another loop. For
    pytest it is a plain function, so it has no `@pytest.mark.asyncio`.
    """

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
