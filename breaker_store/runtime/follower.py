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
from breaker_store.ports import EventLog, Fate, StoredBreaker, StoredTransition
from breaker_store.runtime.breaker import CircuitBreaker
from breaker_store.runtime.registry import CircuitBreakerRegistry
from breaker_store.runtime.surroundings import Unconfirmed

logger = logging.getLogger(__name__)

POLL_INTERVAL_SECONDS = 0.25
PAGE = 1_000
POLLS_BETWEEN_LOOKS = 4
"""How often it is looked whether the log is older than what was heard of it."""


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
        self._polls = 0
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
            except Exception:
                # A defect of ours; still, what comes after it is to be heard of.
                logger.exception("a transition can't be taken on")
            else:
                self._away = False

    async def poll(self) -> None:
        """Take on every transition that the log has and this follower has not seen."""
        self._polls += 1
        if self._polls % POLLS_BETWEEN_LOOKS == 0 and await self._log.last_position() < self.position:
            logger.critical(
                "the log has forgotten transitions that it had: it was restored, or is an older copy"
            )
            await self.face_older_history()
        while page := await self._log.transitions_after(self.position, PAGE):
            for news in page:
                # First: one that can't be taken on must not come again for ever.
                self.position = news.transition.position or self.position
                await self._hear(news)

    async def face_older_history(self) -> None:
        """Go on in a log that has forgotten the end of what it had: it was restored, or an older copy took its place.

        No breaker is known to have its row, and positions begin again where the log's own end: where the histories part is
        not known, so the newest page is looked through for news. Breakers go on as they are, each at the version that the
        log has of it, so that its next transition follows what is stored.
        """
        last = await self._log.last_position()
        if last < self.position:
            self.position = last
            for news in await self._log.transitions_after(max(last - PAGE, 0), PAGE):
                if news.transition.version > self._registry.get_breaker(news.user_id).state.version:
                    await self._hear(news)
        for breaker in self._registry:
            breaker.stored = False
            if breaker.state.version and breaker.user_id is not None:
                await self._rebase(breaker, breaker.user_id)

    async def _rebase(self, breaker: CircuitBreaker, user_id: int) -> None:
        stored = await self._log.read_breaker(user_id, self._registry.policy)
        version, last = (0, None) if stored is None else (stored.state.version, stored.state.last_transition)
        if version < breaker.state.version:
            self._registry.surroundings.unconfirmed.pop(user_id, None)
            breaker.adopt(replace(breaker.state, version=version, last_transition=last))

    async def settle(self, fates: list[Fate]) -> None:
        """Learn what became of this process's own transitions."""
        for fate in fates:
            waiting = self._unconfirmed(fate.user_id)
            if waiting is None or not waiting.first_seq <= fate.writer_seq <= waiting.last_seq:
                continue  # void already: the breaker has taken on something else since
            if fate.position is None:
                await self._take_on_stored(fate.user_id)
            else:
                self._confirm(fate, waiting)

    def _confirm(self, fate: Fate, waiting: Unconfirmed) -> None:
        unconfirmed = self._registry.surroundings.unconfirmed
        if fate.writer_seq < waiting.last_seq:
            unconfirmed[fate.user_id] = Unconfirmed(
                waiting.version + 1, fate.writer_seq + 1, waiting.last_seq
            )
        else:
            del unconfirmed[fate.user_id]

    async def _take_on_stored(self, user_id: int) -> None:
        stored = await self._read_stored(user_id)
        if stored is not None:
            logger.info("breaker %s takes on the state that another process stored", user_id)
            self._adopt(self._registry.get_breaker(user_id), self.to_live(stored), None)

    async def _read_stored(self, user_id: int) -> StoredBreaker | None:
        """Read what the log has of a breaker, however long the log is away."""
        while True:
            try:
                return await self._log.read_breaker(user_id, self._registry.policy)
            except StoreError as error:
                logger.warning("what the log has of breaker %s can't be read: %s", user_id, error)
                await self._pause(POLL_INTERVAL_SECONDS)

    async def _hear(self, news: StoredTransition) -> None:
        user_id, transition = news.user_id, news.transition
        if transition.event_id.writer_id == self._registry.surroundings.journal.writer_id:
            return
        if transition.kind is Kind.UNRECOGNIZED:
            logger.error("breaker %s: %s; its place in the chain is taken on", user_id, transition.reason)
        if transition.kind is Kind.ERASED:
            await self._forget(transition)
            self._tell(news)
            return
        breaker = self._registry.get_breaker(user_id)
        breaker.stored = True
        waiting = self._unconfirmed(user_id)
        if waiting is not None and waiting.version <= transition.version:
            if transition.kind is Kind.POLICY_CHANGED:
                # It begins no count: what the current one holds stands in the log, which may be further by now.
                await self._take_on_stored(user_id)
                self._tell(news)
            else:
                self._adopt(breaker, self._after(None, news), transition)
        elif transition.version > breaker.state.version:
            self._adopt(breaker, self._after(breaker.state, news), transition)
        else:  # taken on already, when one of this process lost to it; its listeners have not heard of it
            self._tell(news)

    async def _forget(self, erasure: Transition) -> None:
        """Let the breaker of whoever was erased begin anew: it is known by what it did last, and by nothing else."""
        for breaker in list(self._registry):
            last = breaker.state.last_transition
            if last == erasure.follows and (last is not None or await self._is_unknown(breaker)):
                self._registry.surroundings.unconfirmed.pop(breaker.user_id or 0, None)
                breaker.adopt(self._registry.first_state)
                breaker.stored = False

    async def _is_unknown(self, breaker: CircuitBreaker) -> bool:
        """Tell whether the log has forgotten a breaker without a transition, of which memory has a text.

        One whose first event is under way is taken for one as well: it then counts from the next on.
        """
        if not breaker.stored or breaker.state.last_failure is None or breaker.user_id is None:
            return False
        is_unknown = await self._read_stored(breaker.user_id) is None
        return is_unknown and breaker.state.last_transition is None

    def _tell(self, news: StoredTransition) -> None:
        shifted = news.transition.shifted(-self._log.correction_us)
        self._registry.surroundings.listeners.tell(news.user_id, shifted)

    def _after(self, state: BreakerState | None, news: StoredTransition) -> BreakerState:
        policy = self._registry.policy
        shifted = news.transition.shifted(-self._log.correction_us)
        if state is None:
            after = rebuild_from(policy, [shifted], ())
        else:
            after = under_default(evolve(state, shifted), policy)
        return self._waiting(after, news.remaining_us)

    def _adopt(self, breaker: CircuitBreaker, state: BreakerState, news: Transition | None) -> None:
        self._registry.surroundings.unconfirmed.pop(breaker.user_id or 0, None)
        breaker.adopt(take_on(breaker.state, state), news and news.shifted(-self._log.correction_us))

    def _unconfirmed(self, user_id: int) -> Unconfirmed | None:
        return self._registry.surroundings.unconfirmed.get(user_id)

    def to_live(self, stored: StoredBreaker) -> BreakerState:
        """Put a stored state on the registry's clock, its wait by what remained when it was read."""
        state = stored.state.shifted(-self._log.correction_us)
        return self._waiting(state, stored.remaining_us)

    def _waiting(self, state: BreakerState, remaining_us: int | None) -> BreakerState:
        """Let a wait go on for as long as remained when it was read: from nothing to the whole of it."""
        if state.retry_at is None or remaining_us is None:
            return state
        now = self._registry.surroundings.clock.now_us()
        return replace(state, retry_at=now + min(max(remaining_us, 0), state.longest_wait_us))
