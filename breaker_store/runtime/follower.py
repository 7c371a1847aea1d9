"""Keeps live breakers in step with the log: with what other processes did, and with what this one lost.

Transitions are read in the order of their positions, which have no gap, by asking again and again for what follows the
last one seen. A breaker's own transitions wait in `Surroundings.unconfirmed` until their fate is known. When one has
lost, or when another process's takes its place, everything decided on it is void, and the breaker takes on what the
log has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from breaker_store.core.events import Kind, Transition
from breaker_store.core.rebuild import rebuild_from, take_on, under_default
from breaker_store.core.state import BreakerState, evolve
from breaker_store.errors import StoreError
from breaker_store.ports import EventLog, Fate, StoredBreaker, UserTransition
from breaker_store.runtime.breaker import CircuitBreaker
from breaker_store.runtime.registry import CircuitBreakerRegistry

logger = logging.getLogger(__name__)

POLL_INTERVAL_SECONDS = 0.25
PAGE = 1_000


class Follower:
    """Follows a log from a position on, for the breakers of one registry."""

    def __init__(
        self,
        registry: CircuitBreakerRegistry,
        log: EventLog[Any],
        position: int,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._registry = registry
        self._log = log
        self._pause = pause
        self._away = False
        self.position = position

    async def run(self) -> None:
        """Poll until cancelled; while the log is away, go on trying."""
        while True:
            await self._pause(POLL_INTERVAL_SECONDS)
            try:
                await self.poll()
            except StoreError as error:
                if not self._away:
                    logger.warning("the event log can't be followed for now: %s", error)
                self._away = True
            else:
                self._away = False

    async def poll(self) -> None:
        """Take on every transition that the log has and this follower has not seen."""
        while page := await self._log.transitions_after(self.position, PAGE):
            for news in page:
                self._hear(news)
            self.position = page[-1].transition.position or self.position

    async def settle(self, fates: list[Fate]) -> None:
        """Learn what became of this process's own transitions."""
        for fate in fates:
            waiting = self._unconfirmed(fate.user_id)
            if fate.writer_seq not in [transition.event_id.writer_seq for transition in waiting]:
                continue  # void already: the breaker has taken on something else since
            if fate.position is None:
                await self._take_on_stored(fate.user_id)
            else:
                self._confirm(fate)

    def _confirm(self, fate: Fate) -> None:
        unconfirmed = self._registry.surroundings.unconfirmed
        rest = [each for each in unconfirmed[fate.user_id] if each.event_id.writer_seq != fate.writer_seq]
        if rest:
            unconfirmed[fate.user_id] = rest
        else:
            del unconfirmed[fate.user_id]

    async def _take_on_stored(self, user_id: int) -> None:
        while True:
            try:
                stored = await self._log.read_breaker(user_id, self._registry.policy)
                break
            except StoreError as error:
                logger.warning("breaker %s lost a transition and can't read what holds: %s", user_id, error)
                await self._pause(POLL_INTERVAL_SECONDS)
        if stored is not None:
            logger.info("breaker %s takes on the state that another process stored", user_id)
            self._adopt(self._registry.get_breaker(user_id), self.to_live(stored), None)

    def _hear(self, news: UserTransition) -> None:
        user_id, transition = news
        if transition.event_id.writer_id == self._registry.surroundings.journal.writer_id:
            return
        if transition.kind is Kind.UNRECOGNIZED:
            logger.error("breaker %s: %s; its place in the chain is taken on", user_id, transition.reason)
        breaker = self._registry.get_breaker(user_id)
        breaker.stored = True
        waiting = self._unconfirmed(user_id)
        if waiting and waiting[0].version <= transition.version:
            self._adopt(breaker, self._after(None, transition), transition)
        elif transition.version > breaker.state.version:
            self._adopt(breaker, self._after(breaker.state, transition), transition)
        else:  # taken on already, when one of this process lost to it; its listeners have not heard of it
            shifted = transition.shifted(-self._log.correction_us)
            self._registry.surroundings.listeners.tell(user_id, shifted)

    def _after(self, state: BreakerState | None, transition: Transition) -> BreakerState:
        policy = self._registry.policy
        shifted = transition.shifted(-self._log.correction_us)
        if state is None:
            return self._clamped(rebuild_from(policy, [shifted], ()))
        return self._clamped(under_default(evolve(state, shifted), policy))

    def _adopt(self, breaker: CircuitBreaker, state: BreakerState, news: Transition | None) -> None:
        self._registry.surroundings.unconfirmed.pop(breaker.user_id or 0, None)
        breaker.adopt(take_on(breaker.state, state), news and news.shifted(-self._log.correction_us))

    def _unconfirmed(self, user_id: int) -> list[Transition]:
        return self._registry.surroundings.unconfirmed.get(user_id, [])

    def to_live(self, stored: StoredBreaker) -> BreakerState:
        """Put a stored state on the registry's clock, its wait by what remained when it was read."""
        state = stored.state.shifted(-self._log.correction_us)
        if stored.remaining_us is not None:
            state = replace(state, retry_at=self._registry.surroundings.clock.now_us() + stored.remaining_us)
        return self._clamped(state)

    def _clamped(self, state: BreakerState) -> BreakerState:
        """Keep a wait between nothing and the whole timeout, whatever the clocks say."""
        if state.retry_at is None:
            return state
        now = self._registry.surroundings.clock.now_us()
        retry_at = min(max(state.retry_at, now), now + state.policy.timeout_us)
        return state if retry_at == state.retry_at else replace(state, retry_at=retry_at)
