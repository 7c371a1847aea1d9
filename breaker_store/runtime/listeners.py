"""Those who want to hear of transitions. What they do changes nothing for the breaker or for each other."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from breaker_store.core.events import Transition
from breaker_store.runtime.decisions import running_loop

logger = logging.getLogger(__name__)

Listener: TypeAlias = Callable[[int | None, Transition], Awaitable[object] | object]
BACKLOG_LIMIT = 1_000


class Listeners:
    """Calls each subscriber with `(user_id, transition)`, in order, after the transition has been taken on.

    A call happens in a later turn of the event loop on which the subscriber was added; where that runs no more, or was
    none, of the one that runs where the transition is decided. With neither it happens at once, and whoever has something
    to decide waits for it: so it is quick, and waits for no other thread. A subscriber that raises is logged; one whose
    coroutine is slow gets what it missed afterwards, up to `BACKLOG_LIMIT` transitions, beyond which the newest are left
    out and that is logged.
    """

    def __init__(self) -> None:
        self._subscriptions: list[_Subscription] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add a subscriber, plain or async; the function returned removes it."""
        subscription = _Subscription(listener)
        self._subscriptions.append(subscription)

        def unsubscribe() -> None:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)

        return unsubscribe

    def tell(self, user_id: int | None, transition: Transition) -> None:
        for subscription in tuple(self._subscriptions):
            subscription.offer(user_id, transition)


class _Subscription:
    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._backlog: deque[tuple[int | None, Transition]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._home = running_loop()
        self._pid = os.getpid()

    def offer(self, user_id: int | None, transition: Transition) -> None:
        loop = running_loop()
        if loop is not self._home and self._offer_at_home(user_id, transition):
            return
        if loop is None:
            self._call_without_loop(user_id, transition)
            return
        if len(self._backlog) >= BACKLOG_LIMIT:
            logger.warning(
                "listener %r is too slow and misses %s of user %s", self._listener, transition.kind, user_id
            )
            return
        self._backlog.append((user_id, transition))
        # A task of a loop that was closed is never done.
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._task = loop.create_task(self._drain())

    def _offer_at_home(self, user_id: int | None, transition: Transition) -> bool:
        # A forked child has its parent's loop, which looks as if it ran.
        if self._home is None or not self._home.is_running() or self._pid != os.getpid():
            return False
        try:
            self._home.call_soon_threadsafe(self.offer, user_id, transition)
        except RuntimeError:  # it was closed just now
            return False
        return True

    async def _drain(self) -> None:
        while self._backlog:
            user_id, transition = self._backlog.popleft()
            try:
                answer = self._listener(user_id, transition)
                if inspect.isawaitable(answer):
                    await answer
            except asyncio.CancelledError:
                # Something that the listener waited for was cancelled; if it is this task, there is no going on.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                self._log_failure(user_id, transition)
            except Exception:  # noqa: BLE001 - whatever it raises, it is logged
                self._log_failure(user_id, transition)

    def _log_failure(self, user_id: int | None, transition: Transition) -> None:
        kind = transition.kind.label
        logger.error("listener %r failed on %s of user %s", self._listener, kind, user_id, exc_info=True)  # noqa: LOG014 - called by handlers

    def _call_without_loop(self, user_id: int | None, transition: Transition) -> None:
        try:
            answer = self._listener(user_id, transition)
        except Exception:  # noqa: BLE001 - whatever it raises, it is logged
            self._log_failure(user_id, transition)
            return
        if inspect.iscoroutine(answer):
            answer.close()
            logger.warning("listener %r is async and was not called: no event loop runs", self._listener)
